"""Events that came more than once: exact repeats leave one row, contradicting ones leave none.

What makes a single event invalid belongs in `quarantine`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def find_repeated_ids(events: DataFrame, id_columns: Sequence[str]) -> DataFrame:
    """Returns the ids that more than one row has: few, so that single rows need not be moved to be told apart.

    Grain: one row per id.
    """
    return events.groupBy(*id_columns).count().where("count > 1").drop("count")


def label_copies(repeated: DataFrame, *, id_columns: Sequence[str], payload_columns: Sequence[str]) -> DataFrame:
    """Returns the events with `label`: first (the one to keep), copy (of it), or conflict (no copy can be believed).

    Copies of an id agree in all payload columns; where two disagree, all rows of the id are conflicts. Two null payload
    values are equal.

    Grain: as given. Which of several copies is the first goes by the order of the columns, so it is the same whatever
        the partitioning. A null id is refused by quarantine before.

    Args:
        repeated: events of one type whose ids came more than once.
        id_columns: what makes two rows the same event.
        payload_columns: what both must agree on; where and when a row was read is no payload.
    """
    by_id = Window.partitionBy(*id_columns).rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    in_order = Window.partitionBy(*id_columns).orderBy(*repeated.columns)
    payload = F.struct(*payload_columns)
    is_conflict = ~F.min(payload).over(by_id).eqNullSafe(F.max(payload).over(by_id))
    is_first = F.row_number().over(in_order) == 1
    return repeated.withColumn("label", F.when(is_conflict, "conflict").when(is_first, "first").otherwise("copy"))
