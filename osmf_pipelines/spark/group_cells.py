"""Which cells a group holds and how often each was shown an ad: what its true click rate is an average over."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def count_group_cells(user_groups: DataFrame, creative_stats: DataFrame) -> DataFrame:
    """Returns group_id, scope, cell, num_impressions, ordered.

    Grain: one row per (group_id, cell); cells that were shown nothing are left out.

    Args:
        user_groups: of one day.
        creative_stats: of the days of its evidence window.
    """
    shown = creative_stats.groupBy("scope", "cell").agg(F.sum("num_impressions").alias("num_impressions"))
    cells = user_groups.join(shown, on=["scope", "cell"], how="inner")
    return cells.select("group_id", "scope", "cell", "num_impressions").orderBy("group_id", "cell")
