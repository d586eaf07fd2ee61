"""What every source offers, and how its columns become ours.

A source yields frames with our column names and *its own* types; parsing, refusing and hashing user ids happen in
`spark/quarantine.py`, the same for all sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Protocol

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

IMPRESSION_FIELDS = (
    "impression_id",
    "user_id",
    "product_id",
    "creative_id",
    "impressed_at",
    "position",
    "slot_type",
    "propensity",
    "experiment_id",
    "arm",
    "model_version",
)
CLICK_FIELDS = ("click_id", "impression_id", "clicked_at")
CORRUPT_RECORD = "_corrupt_record"


class Source(Protocol):
    """One origin of logs. Frames of events carry the source's fields, `source_date`, `source_file` and `payload`."""

    def days(self) -> list[date]:
        """Returns the days that are complete, oldest first."""
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


def event_frame(events: DataFrame, columns: Mapping[str, str], fields: tuple[str, ...], day: date) -> DataFrame:
    """Returns `events` under our names, with the whole event as it came in `payload`.

    Args:
        events: rows as read.
        columns: our name to theirs.
        fields: our names, in order; one that is not mapped becomes null.
        day: the source's day.
    """
    # A corrupt line carries its own text; a readable one is shown as JSON.
    payload = F.to_json(F.struct(*[F.col(f"`{name}`") for name in events.columns if name != "_metadata"]))
    if CORRUPT_RECORD in events.columns:
        payload = F.coalesce(F.col(CORRUPT_RECORD), payload)
    return events.select(
        F.lit(day).alias("source_date"),
        *[(F.col(f"`{columns[name]}`") if name in columns else F.lit(None)).alias(name) for name in fields],
        payload.alias("payload"),
        (F.col(CORRUPT_RECORD).isNotNull() if CORRUPT_RECORD in events.columns else F.lit(False)).alias("is_corrupt"),
        F.col("_metadata.file_name").alias("source_file"),
    )
