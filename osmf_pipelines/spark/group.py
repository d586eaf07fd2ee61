"""Groups of every scope, and what is told of them: one grouped-map call a scope over aggregated counts.

One scope's part is in `scope_groups`, the statistics in `preference_tree`, the baselines in `baseline_groups` and
`kmeans_groups`; rates of creatives in a group belong in `ctr`. Nothing per user or per impression reaches Python: a
scope's counts are (cell, product, creative).

Source: this project's own design (5.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import get_args

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.spark.ctr import PlaceEffects, add_effective_impressions
from osmf_pipelines.spark.grouping import GroupingMethod
from osmf_pipelines.spark.kmeans_groups import cluster_cells
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.scope_groups import FORMED_GROUPS_DDL, REPORT_COLUMNS, form_scope_groups
from osmf_pipelines.spark.stats import count_cell_users
from osmf_pipelines.tables import TABLES

_TASKS_PER_CORE = 4


def form_groups(
    creative_stats_window: DataFrame,
    cell_users_window: DataFrame,
    creative_features: DataFrame,
    product_splits: DataFrame,
    *,
    as_of_date: date,
    place_effects: PlaceEffects,
    grouping: GroupingMethod = "adaptive",
    min_users: int = 50,
    min_clicks: int = 200,
    fitted_splits: Sequence[str] = ("train",),
    heldout_fold: int = 0,
) -> DataFrame:
    """Returns the groups of each scope and its root, with everything that is told of them; `list_*` reads it out.

    Groups are formed without the held-out users' clicks and judged on them; published preferences use everyone. A scope
    with fewer than `min_users` users does not appear at all. Persist the result when reading out more than one table.

    Grain: one row per (scope, group), scope roots included. A product without a split counts as held out; a creative
        without features says nothing of taste; a null feature counts as its product's mean.

    Args:
        creative_stats_window: `creative_stats` of the days of the window.
        cell_users_window: `cell_users` of the same days.
        creative_features: one row per creative.
        product_splits: one row per product.
        as_of_date: last day of the window.
        place_effects: of the same window.
        grouping: how groups are formed: the adaptive tree (`grow_groups`), or a baseline: `keep_one_group`,
            `cross_attributes` or `cluster_cells`, which runs Spark jobs at once. Everything else is the same.
        min_users: distinct users behind every group, and the floor under which nothing is published.
        min_clicks: clicks behind each part that a scope is divided into.
        fitted_splits: splits of the products that cuts, preferences and exemplars may look at; all three in production.
        heldout_fold: `user_fold` to judge the groups on.

    Raises:
        ValueError: when `grouping` is not one of these.
    """
    if grouping not in get_args(GroupingMethod):
        raise ValueError(f"grouping is {grouping!r}: it must be one of {', '.join(get_args(GroupingMethod))}.")
    settings = TreeSettings(min_users=min_users, min_clicks=min_clicks)
    counts = _count_cells(
        creative_stats_window, cell_users_window, product_splits, place_effects, fitted_splits, heldout_fold
    )
    features = creative_features.select("scope", "creative_id", "feature_names", "feature_values")
    if grouping == "kmeans":
        counts = counts.join(cluster_cells(counts, features, settings), on=["scope", "cell"], how="left")

    def form_scope(counts_of_scope: pd.DataFrame, features_of_scope: pd.DataFrame) -> pd.DataFrame:
        return form_scope_groups(counts_of_scope, features_of_scope, settings, grouping)

    # Counts are small and trees are slow: by its bytes Spark would make so few tasks of them that cores are idle.
    num_tasks = _TASKS_PER_CORE * counts.sparkSession.sparkContext.defaultParallelism
    counts, features = (frame.repartition(num_tasks, "scope") for frame in (counts, features))
    formed = (
        counts.groupBy("scope").cogroup(features.groupBy("scope")).applyInPandas(form_scope, schema=FORMED_GROUPS_DDL)
    )
    return formed.withColumn("as_of_date", F.lit(as_of_date))


def list_user_groups(formed_groups: DataFrame) -> DataFrame:
    """Returns `user_groups`: which cell belongs to which group; roots, being everyone, are left out.

    Grain: one row per (as_of_date, scope, cell).
    """
    cells = formed_groups.where(~F.col("is_scope_root")).withColumn("cell", F.explode("cells"))
    return cells.select(*TABLES["user_groups"].column_names)


def list_group_features(formed_groups: DataFrame) -> DataFrame:
    """Returns `group_features`. Grain: one row per (as_of_date, group_id), scope roots included."""
    return formed_groups.select(*TABLES["group_features"].column_names)


def list_scope_reports(formed_groups: DataFrame) -> DataFrame:
    """Returns how the groups of each scope came about. Grain: one row per scope published."""
    return formed_groups.groupBy("as_of_date", "scope").agg(
        F.count_if(~F.col("is_scope_root")).alias("num_groups"),
        *(F.max(name).alias(name) for name in REPORT_COLUMNS),
    )


def count_suppressed_impressions(creative_stats_window: DataFrame, user_groups: DataFrame) -> int:
    """Returns the impressions of the window in cells without a group: all that is told of what the floor suppresses.

    Args:
        creative_stats_window: `creative_stats` of the days of the window.
        user_groups: of the same window, one row per (scope, cell).
    """
    suppressed = creative_stats_window.join(user_groups, on=["scope", "cell"], how="left_anti")
    return int(suppressed.agg(F.coalesce(F.sum("num_impressions"), F.lit(0))).collect()[0][0])


def _count_cells(
    creative_stats_window: DataFrame,
    cell_users_window: DataFrame,
    product_splits: DataFrame,
    place_effects: PlaceEffects,
    fitted_splits: Sequence[str],
    heldout_fold: int,
) -> DataFrame:
    """Sums of the window, one row per (scope, cell, product, creative), with the users of the cell on each."""
    is_heldout = F.col("user_fold") == heldout_fold
    effective = F.col("effective_impression_millis")
    fitted_products = product_splits.where(F.col("split").isin(*fitted_splits)).select(
        "product_id", F.lit(True).alias("is_fitted")
    )
    return (
        add_effective_impressions(creative_stats_window, place_effects)
        .groupBy("scope", "cell", "product_id", "creative_id")
        .agg(
            F.sum("num_impressions").alias("num_impressions"),
            F.sum("num_clicks").alias("num_clicks"),
            F.sum(effective).alias("effective_millis"),
            F.sum(F.when(is_heldout, effective).otherwise(0)).alias("heldout_millis"),
            F.sum(F.when(is_heldout, F.col("num_clicks")).otherwise(0)).alias("heldout_clicks"),
        )
        .join(count_cell_users(cell_users_window), on=["scope", "cell"], how="left")
        .join(fitted_products, on="product_id", how="left")
        .fillna({"num_users": 0, "is_fitted": False})
    )
