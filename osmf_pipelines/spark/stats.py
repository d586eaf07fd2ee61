"""Daily sums of exposures: integers only, so that a window is a sum of days and no result depends on partitioning.

What a model drew is no evidence: groups are shown what was drawn for them, so that such rates and those of other
creatives are not of one distribution, and who learns from own pictures learns less of what groups tell apart
(docs/closed_loop.md). What such pictures earn is for A/B tests and policies, which read the exposures.

Correcting for position and day belongs in `ctr`; forming groups in `group`.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.tables import TABLES

_STATS_KEYS = (
    "event_date",
    "scope",
    "cell",
    "user_fold",
    "product_id",
    "creative_id",
    "slot_type",
    "position",
)


def evidence_of(exposures: DataFrame) -> DataFrame:
    """Returns the exposures of creatives that no model drew."""
    return exposures.where(F.col("model_version").isNull())


def aggregate_creative_stats(exposures: DataFrame) -> DataFrame:
    """Returns `creative_stats`: impressions and clicks per day, cell, fold, creative and place, of what no model drew.

    Grain: one row per (event_date, scope, cell, user_fold, product, creative, slot_type, position); a null slot type or
        position is a place of its own. `inverse_propensity_millis` is null when any exposure of the row has no
        propensity, since a partial sum would understate. Duplicate exposures would count twice.
    """
    is_known = F.count("propensity") == F.count(F.lit(1))
    inverse_propensity_millis = F.sum(F.round(1000 / F.col("propensity")).cast("bigint"))
    return (
        evidence_of(exposures)
        .groupBy(*_STATS_KEYS)
        .agg(
            F.count(F.lit(1)).alias("num_impressions"),
            F.sum(F.col("is_clicked").cast("bigint")).alias("num_clicks"),
            F.when(is_known, inverse_propensity_millis).alias("inverse_propensity_millis"),
        )
        .select(*TABLES["creative_stats"].column_names)
    )


def sum_by_day(creative_stats: DataFrame) -> list[tuple[date, int, int]]:
    """Returns (day, impressions, clicks), oldest first."""
    sums = creative_stats.groupBy("event_date").agg(
        F.sum("num_impressions").alias("num_impressions"), F.sum("num_clicks").alias("num_clicks")
    )
    return [
        (row["event_date"], row["num_impressions"], row["num_clicks"]) for row in sums.orderBy("event_date").collect()
    ]


def list_cell_users(exposures: DataFrame) -> DataFrame:
    """Returns `cell_users`: who was behind the evidence of each cell on each day, which the privacy floor counts.

    Grain: one row per (event_date, scope, cell, user), however many exposures; exposures without a user are left out.
    """
    columns = TABLES["cell_users"].column_names
    return evidence_of(exposures).where(F.col("user_id").isNotNull()).select(*columns).distinct()


def count_cell_users(cell_users_window: DataFrame) -> DataFrame:
    """Returns how many users stand behind each cell of a window, each user in the cell where they were seen last.

    Counting a user once makes the counts of cells add up to distinct users of any set of cells, never above the truth.

    Grain: one row per (scope, cell); two cells on the last day go to the one that sorts last.
    """
    last_cell = F.max(F.struct("event_date", "cell"))["cell"].alias("cell")
    return (
        cell_users_window.groupBy("scope", "user_id")
        .agg(last_cell)
        .groupBy("scope", "cell")
        .agg(F.count(F.lit(1)).alias("num_users"))
        .select("scope", "cell", "num_users")
    )
