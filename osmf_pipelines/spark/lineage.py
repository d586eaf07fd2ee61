"""Which group of the previous published day each group continues.

Told after the groups are formed: nothing depends on it, so that no table depends on yesterday's run. Forming groups
belongs in `group`.

Source: this project's own design (5.1).
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.spark.stats import count_cell_users
from osmf_pipelines.tables import TABLES


def list_group_lineage(
    user_groups_today: DataFrame,
    user_groups_previous: DataFrame | None,
    cell_users_window: DataFrame,
    *,
    as_of_date: date,
    previous_as_of_date: date | None,
) -> DataFrame:
    """Returns `group_lineage`: the group of the previous day that most users of each group were in, and their share.

    A user stands in the cell of `count_cell_users`, and was in the group that this cell had on the previous day. Of
    groups with as many users the smaller `group_id` is taken. Only sums of groups leave this function.

    Grain: one row per (as_of_date, group_id); scope roots, which `user_groups` does not hold, are left out. Where no
        user was in a group on the previous day, or there is none, the previous group and the share are null.

    Args:
        user_groups_today: `user_groups` of `as_of_date`.
        user_groups_previous: `user_groups` of `previous_as_of_date`, or None when no day was published before.
        cell_users_window: `cell_users` of the days of today's window.
        as_of_date: last day of the window.
        previous_as_of_date: the published day before it, or None.

    Raises:
        ValueError: when the previous groups come without their day or the day without its groups.
    """
    if (user_groups_previous is None) != (previous_as_of_date is None):
        raise ValueError("give user_groups_previous and previous_as_of_date together, or neither.")
    previous = user_groups_today.limit(0) if user_groups_previous is None else user_groups_previous
    users = (
        user_groups_today.select("scope", "cell", "group_id")
        .join(count_cell_users(cell_users_window), on=["scope", "cell"], how="left")
        .join(
            previous.select("scope", "cell", F.col("group_id").alias("previous_group_id")),
            on=["scope", "cell"],
            how="left",
        )
        .groupBy("scope", "group_id", "previous_group_id")
        .agg(F.coalesce(F.sum("num_users"), F.lit(0)).alias("num_users"))
    )
    return (
        _pick_most_users(users)
        .withColumn("as_of_date", F.lit(as_of_date))
        .withColumn("previous_as_of_date", F.lit(previous_as_of_date).cast("date"))
        .withColumn("has_same_rule", F.coalesce(F.col("previous_group_id") == F.col("group_id"), F.lit(False)))
        .select(*TABLES["group_lineage"].column_names)
    )


def _pick_most_users(users: DataFrame) -> DataFrame:
    """One row per (scope, group_id): the previous group with most of its users, and its share of all of them."""
    is_candidate = F.col("previous_group_id").isNotNull() & (F.col("num_users") > 0)
    most_users_first = F.struct((-F.col("num_users")).alias("order"), "previous_group_id")
    return (
        users.groupBy("scope", "group_id")
        .agg(F.min(F.when(is_candidate, most_users_first)).alias("first"), F.sum("num_users").alias("num_users"))
        .select(
            "scope",
            "group_id",
            F.col("first.previous_group_id").alias("previous_group_id"),
            (-F.col("first.order") / F.col("num_users")).alias("users_kept_share"),
        )
    )
