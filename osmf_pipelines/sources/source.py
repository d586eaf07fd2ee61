"""What every source offers, and how its columns become ours.

A source yields frames with our column names and *its own* types; parsing, refusing and hashing user ids happen in
`spark/quarantine.py`, the same for all sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Protocol

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

CORRUPT_RECORD = "_corrupt_record"


class Source(Protocol):
    """One origin of logs.

    Frames of events carry the source's fields, `source_date`, `source_file`, `payload` and `is_corrupt`.
    """

    def days(self) -> list[date]:
        """Returns the days that are complete, oldest first; starts no Spark."""
        ...

    def delivery_of(self, day: date) -> str:
        """Returns a token that changes when a complete day is delivered again; "" where that cannot be told."""
        ...

    def impressions(self, spark: SparkSession, day: date) -> DataFrame:
        """Returns the impression events of one day."""
        ...

    def clicks(self, spark: SparkSession, day: date) -> DataFrame:
        """Returns the click events of one day."""
        ...

    def users(self, spark: SparkSession) -> DataFrame:
        """Returns (user_id, attributes): ids as the source has them."""
        ...

    def products(self, spark: SparkSession) -> DataFrame:
        """Returns the columns of the table `products`."""
        ...

    def creatives(self, spark: SparkSession) -> DataFrame:
        """Returns the columns of the table `creatives`."""
        ...

    def ready_pairs(self, spark: SparkSession, day: date) -> DataFrame | None:
        """Returns the preference pairs that the source brings ready-made for one day, or None where it brings none.

        Grain: one row per pair as the source has it. A value that cannot be read as its column's type is null.

        Returns:
            group_id, scope, product_id, chosen_creative_id, rejected_creative_id, chosen_better_probability,
            log_rate_ratio (null where not known); `payload`, the pair as it came; `is_corrupt`: a line, or a value
            that is not null, could not be read.
        """
        ...


def quoted(name: str) -> Column:
    """Returns the column of exactly this name, whatever characters it has."""
    return F.col("`" + name.replace("`", "``") + "`")


def payload_of(frame: DataFrame) -> Column:
    """Returns each row as it came: a line that could not be read as its own text, any other as JSON."""
    payload = F.to_json(F.struct(*[quoted(name) for name in frame.columns if name != "_metadata"]))
    return F.coalesce(F.col(CORRUPT_RECORD), payload) if CORRUPT_RECORD in frame.columns else payload


def is_corrupt(frame: DataFrame) -> Column:
    """Returns whether a row is a line that could not be read."""
    return F.col(CORRUPT_RECORD).isNotNull() if CORRUPT_RECORD in frame.columns else F.lit(False)


def mapped_column(columns: Mapping[str, str], field: str) -> Column:
    """Returns our column `field` by their name in `columns`; null where it is not mapped."""
    return quoted(columns[field]) if field in columns else F.lit(None)


def event_frame(
    events: DataFrame,
    columns: Mapping[str, str],
    fields: tuple[str, ...],
    day: date,
    origin: str | None = None,
) -> DataFrame:
    """Returns `events` under our names, with the whole event as it came in `payload`.

    Grain: one row per event given.

    Args:
        events: rows as read.
        columns: our name to theirs.
        fields: our names, in order; one that is not mapped becomes null.
        day: the source's day.
        origin: what the events were read from; None: each event's file.
    """
    return events.select(
        F.lit(day).alias("source_date"),
        *[mapped_column(columns, name).alias(name) for name in fields],
        payload_of(events).alias("payload"),
        is_corrupt(events).alias("is_corrupt"),
        (F.col("_metadata.file_name") if origin is None else F.lit(origin)).alias("source_file"),
    )
