"""Typed events, and the refused ones with their reasons: nothing is dropped, nothing becomes null unnoticed.

Duplicates are told apart in `deduplicate.py`; whether a day has too many bad rows is decided in `quality/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.tables import TABLES


@dataclass(frozen=True)
class ParsedEvents:
    """Events split in two.

    Attributes:
        accepted: typed rows, plus `payload` and `source_file`.
        quarantined: rows of the table `quarantined_events`, without `ingested_at`.
    """

    accepted: DataFrame
    quarantined: DataFrame


def parse_impressions(events: DataFrame, creatives: DataFrame, *, user_key: str) -> ParsedEvents:
    """Returns typed impressions with hashed user ids, and the refused ones.

    Grain: one row per event in one of the two frames. A missing position is 1, a missing slot type "default"; blank
        text is missing.

    Args:
        events: from a source.
        creatives: the table `creatives`; an impression of one that it lacks is refused.
        user_key: key of the hash that replaces user ids.
    """
    typed, bad = _typed(events, "bronze_impressions")
    known = creatives.select("creative_id", F.col("product_id").alias("known_product_id"))
    typed = typed.join(F.broadcast(known), on="creative_id", how="left")
    reasons = {
        **bad,
        "unreadable": F.col("is_corrupt"),
        **_missing("impression_id", "user_id", "product_id", "creative_id", "impressed_at"),
        "unknown_creative": F.col("creative_id").isNotNull() & F.col("known_product_id").isNull(),
        "creative_of_another_product": F.col("product_id") != F.col("known_product_id"),
        "outside_source_date": F.to_date("impressed_at") != F.col("source_date"),
        "position_below_1": F.col("position") < 1,
        "propensity_not_in_0_1": (F.col("propensity") <= 0) | (F.col("propensity") > 1),
    }
    parsed = _split(typed, reasons, "impression")
    accepted = parsed.accepted.withColumns(
        {
            "user_id": hash_user_id(F.col("user_id"), user_key),
            "position": F.coalesce("position", F.lit(1)),
            "slot_type": F.coalesce("slot_type", F.lit("default")),
        }
    )
    return ParsedEvents(accepted.drop("known_product_id"), parsed.quarantined)


def parse_clicks(events: DataFrame) -> ParsedEvents:
    """Returns typed clicks, and the refused ones. A click of an earlier day is a late one, and accepted.

    Grain: one row per event in one of the two frames.
    """
    typed, bad = _typed(events, "bronze_clicks")
    reasons = {
        **bad,
        "unreadable": F.col("is_corrupt"),
        **_missing("click_id", "impression_id", "clicked_at"),
        "after_source_date": F.to_date("clicked_at") > F.col("source_date"),
    }
    return _split(typed, reasons, "click")


def hash_user_id(user_id: Column, user_key: str) -> Column:
    """Returns the keyed hash that stands for a user everywhere in the lake, 32 hex digits."""
    return F.substring(F.sha2(F.concat(F.lit(f"{user_key}:"), user_id.cast("string")), 256), 1, 32)


def _typed(events: DataFrame, table: str) -> tuple[DataFrame, dict[str, Column]]:
    """Casts each column to the table's type; a value that cannot be cast is a reason, told by the second result.

    A text without a visible character is none: many writers leave nothing else where there is nothing.
    """
    types = {column.name: column.type for column in TABLES[table].columns if column.name in events.columns}
    actual = dict(events.dtypes)
    texts = [name for name in types if actual[name] == "string"]
    events = events.withColumns({name: F.when(F.col(name).rlike(r"\S"), F.col(name)) for name in texts})
    casts = {name: F.col(name).try_cast(type_) for name, type_ in types.items() if actual[name] != type_}
    marked = {f"_bad_{name}": F.col(name).isNotNull() & cast.isNull() for name, cast in casts.items()}
    reasons = {f"bad_{name}": F.col(f"_bad_{name}") for name in casts}
    return events.withColumns(marked).withColumns(casts), reasons


def _missing(*columns: str) -> dict[str, Column]:
    return {f"missing_{name}": F.col(name).isNull() for name in columns}


def _split(typed: DataFrame, reasons: dict[str, Column], event_type: str) -> ParsedEvents:
    conditions = {name: F.coalesce(condition, F.lit(False)) for name, condition in reasons.items()}
    # Beside the array of reasons, which Spark does not compile, so that only refused rows pay for it.
    is_bad = reduce(Column.__or__, conditions.values())
    found = F.array_compact(F.array(*[F.when(condition, F.lit(name)) for name, condition in conditions.items()]))
    bad_columns = [name for name in typed.columns if name.startswith("_bad_")]
    accepted = typed.where(~is_bad).drop("is_corrupt", *bad_columns)
    return ParsedEvents(accepted, as_quarantined(typed.where(is_bad).withColumn("reasons", found), event_type))


def as_quarantined(events: DataFrame, event_type: str) -> DataFrame:
    """Returns refused events (with `reasons` and `payload`) as rows of `quarantined_events`, without `ingested_at`."""
    return events.select("source_date", F.lit(event_type).alias("event_type"), "reasons", "payload", "source_file")
