"""Events that came more than once: exact repeats leave one row, contradicting ones leave none.

What makes a single event invalid belongs in `quarantine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

CONFLICT_REASON = "conflicting_duplicate"


@dataclass(frozen=True)
class DeduplicatedEvents:
    """Every event given, in exactly one of three frames.

    Attributes:
        unique: one row per id, columns as given.
        duplicates: the further copies of the rows in `unique`, columns as given.
        conflicts: all rows of an id whose payloads disagree, with `reasons`.
    """

    unique: DataFrame
    duplicates: DataFrame
    conflicts: DataFrame


def deduplicate_events(events: DataFrame, *, id_column: str, payload_columns: Sequence[str]) -> DeduplicatedEvents:
    """Returns the events with one row per id, their repeats, and the ids that contradict themselves.

    Grain: `unique` has one row per id over all days given, the first in the order of the columns (`source_date` leads
        in bronze tables, so the earliest delivery stays). Two null payload values are equal. A null id is refused by
        quarantine before; here all null ids would be one id.

    Args:
        events: bronze events of one type.
        id_column: what makes two rows the same event.
        payload_columns: what both must agree on; where and when a row was read is no payload.
    """
    by_id = Window.partitionBy(id_column).rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    in_order = Window.partitionBy(id_column).orderBy(*events.columns)
    payload = F.struct(*payload_columns)
    marked = events.select(
        "*",
        (~F.min(payload).over(by_id).eqNullSafe(F.max(payload).over(by_id))).alias("_is_conflict"),
        F.row_number().over(in_order).alias("_copy"),
    )
    is_conflict, is_first = F.col("_is_conflict"), F.col("_copy") == 1
    reasons = F.array(F.lit(CONFLICT_REASON)).alias("reasons")
    return DeduplicatedEvents(
        unique=marked.where(~is_conflict & is_first).select(*events.columns),
        duplicates=marked.where(~is_conflict & ~is_first).select(*events.columns),
        conflicts=marked.where(is_conflict).select(*events.columns, reasons),
    )
