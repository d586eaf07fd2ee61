"""From logged impressions to the sums of an experiment's arms, of everyone and of each group; no user leaves Spark.

An exposure names its experiment and its arm. Sums are per user first, since users are randomised, then over users:
whole numbers, so that no result depends on partitioning. What follows from them is in `osmf_models.evaluation.ab`.

Source: this project's own design (5.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from osmf_models.evaluation.ab import SUM_NAMES, ArmSums
from osmf_models.evaluation.ab_readout import ArmCounts, ExperimentCounts
from osmf_pipelines.spark.assign import assign_groups

DEFAULT_CONTROL = "control"
_MAX_LISTED = 20


def exposures_between(exposures: DataFrame, first_date: date | None, last_date: date | None) -> DataFrame:
    """Returns the exposures of these days, both ends included; None leaves an end open."""
    if first_date is not None:
        exposures = exposures.where(F.col("event_date") >= first_date)
    return exposures if last_date is None else exposures.where(F.col("event_date") <= last_date)


def choose_groups_date(dates: list[date], first_date: date) -> date | None:
    """Returns as of which day groups are read: the last before the experiment, or else the first there is.

    Groups of the days before cannot depend on what the arms did.

    Args:
        dates: on which groups were published.
        first_date: of the experiment.
    """
    before = [one for one in dates if one < first_date]
    return max(before) if before else min(dates, default=None)


def days_of_experiment(exposures: DataFrame, experiment_id: str) -> tuple[date, date]:
    """Returns the first and the last day on which an experiment was shown to somebody.

    Raises:
        ValueError: when it is not among the exposures; the message lists those that are.
    """
    days = F.min("event_date").alias("first"), F.max("event_date").alias("last"), F.count(F.lit(1)).alias("num")
    rows = exposures.where(F.col("experiment_id").isNotNull()).groupBy("experiment_id").agg(*days).collect()
    found = {row["experiment_id"]: row for row in rows}
    if experiment_id not in found:
        listed = [
            f"{name} ({row['first']} to {row['last']}, {row['num']:,} impressions)" for name, row in found.items()
        ]
        told = ", ".join(sorted(listed)[:_MAX_LISTED]) or "none: map the log's column experiment_id"
        raise ValueError(f"no impression of these days belongs to experiment {experiment_id!r}; there are: {told}.")
    return found[experiment_id]["first"], found[experiment_id]["last"]


def sum_users(exposures: DataFrame, rules: DataFrame | None) -> DataFrame:
    """Returns impressions and clicks of each user in each arm and group, to which users belong as when they are served.

    Grain: one row per (user_id, arm, scope, group_id). A user who was shown two arms has a null arm, a scope without
        groups a null group. Exposures without an arm or a user are left out.

    Args:
        exposures: of one experiment.
        rules: from `assign.list_rules`, of one day; None for no groups.
    """
    known = exposures.where(F.col("arm").isNotNull() & F.col("user_id").isNotNull())
    if rules is None:
        placed = known.withColumn("group_id", F.lit(None).cast("string"))
    else:
        attributes = F.str_to_map("cell", F.lit(r"\|"), F.lit("="))
        placed = assign_groups(known.withColumn("attributes", attributes), rules)
    of_user = Window.partitionBy("user_id")
    is_crossed = F.min("arm").over(of_user) != F.max("arm").over(of_user)
    return (
        placed.groupBy("user_id", "arm", "scope", "group_id")
        .agg(F.count(F.lit(1)).alias("num_impressions"), F.sum(F.col("is_clicked").cast("bigint")).alias("num_clicks"))
        .withColumn("arm", F.when(~is_crossed, F.col("arm")))
    )


def sum_arms(by_user: DataFrame, *, min_users: int) -> DataFrame:
    """Returns the sums over users of each arm: of everyone, where scope and group are null, and of each group.

    A user counts once in each row. Groups of fewer than `min_users` users in an arm are left out.

    Grain: one row per (arm, scope, group_id); a null arm is users who were shown two.

    Args:
        by_user: from `sum_users`.
        min_users: privacy floor of a group.
    """
    values = [F.sum(name).alias(name) for name in ("num_impressions", "num_clicks")]
    no_group = [F.lit(None).cast("string").alias(name) for name in ("scope", "group_id")]
    everyone = by_user.groupBy("user_id", "arm").agg(*values)
    in_groups = by_user.where(F.col("arm").isNotNull() & F.col("group_id").isNotNull())
    rows = everyone.select("arm", *no_group, "num_impressions", "num_clicks").unionByName(in_groups.drop("user_id"))
    n, k = F.col("num_impressions"), F.col("num_clicks")
    terms = {
        "num_users": F.lit(1).cast("bigint"),
        "num_impressions": n,
        "num_clicks": k,
        "squared_impressions": n * n,
        "impressions_by_clicks": n * k,
        "squared_clicks": k * k,
    }
    sums = rows.groupBy("arm", "scope", "group_id").agg(*(F.sum(terms[name]).alias(name) for name in SUM_NAMES))
    is_told = F.col("group_id").isNull() | (F.col("num_users") >= min_users)
    return sums.where(is_told).select("arm", "scope", "group_id", *SUM_NAMES)


def count_model_versions(exposures: DataFrame) -> tuple[dict[str, dict[str, int]], int]:
    """Returns, by arm, the impressions of each model version, and how many name no arm or no user.

    Creatives that no model drew have the version "".
    """
    is_known = F.col("arm").isNotNull() & F.col("user_id").isNotNull()
    version = F.coalesce("model_version", F.lit("")).alias("version")
    arm = F.when(is_known, F.col("arm")).alias("arm")
    rows = exposures.groupBy(arm, version).agg(F.count(F.lit(1)).alias("num")).orderBy("arm", "version").collect()
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["arm"] is not None:
            found.setdefault(row["arm"], {})[row["version"]] = row["num"]
    return found, sum(row["num"] for row in rows if row["arm"] is None)


def count_experiment(
    exposures: DataFrame,
    rules: DataFrame | None,
    *,
    experiment_id: str,
    groups_as_of: date | None,
    control: str | None,
    planned_shares: Mapping[str, float] | None,
    min_users: int,
) -> ExperimentCounts:
    """Returns what was counted in an experiment. Reads the exposures three times; collects sums to the driver.

    Args:
        exposures: `silver_exposures` of the days to count.
        rules: of groups as of `groups_as_of`, from `assign.list_rules`; None for no groups.
        experiment_id: as the logs name it.
        groups_as_of: day whose groups these are.
        control: arm that others are held against; None for the one called `control`.
        planned_shares: of users, by arm; None for equal ones.
        min_users: privacy floor.

    Raises:
        ValueError: when the experiment is not there, names no arm, lacks the control, or an arm has fewer users
            than the floor.
    """
    first, last = days_of_experiment(exposures, experiment_id)
    own = exposures.where(F.col("experiment_id") == experiment_id)
    all_rows = [row.asDict() for row in sum_arms(sum_users(own, rules), min_users=min_users).collect()]
    num_crossed = sum(row["num_users"] for row in all_rows if row["arm"] is None)
    rows = [row for row in all_rows if row["arm"] is not None]
    if not rows:
        raise ValueError(f"no impression of experiment {experiment_id!r} names an arm and a user of that arm alone.")
    counts = tuple(_counts(row) for row in sorted(rows, key=_order))
    users = {one.arm: one.sums.num_users for one in counts if one.group_id is None}
    few = {arm: number for arm, number in users.items() if number < min_users}
    if few:
        told = ", ".join(f"{arm} {number}" for arm, number in few.items())
        raise ValueError(
            f"experiment {experiment_id!r} has arms of fewer than {min_users} users ({told}): too small to be told."
        )
    versions, num_left_out = count_model_versions(own)
    return ExperimentCounts(
        experiment_id,
        str(first),
        str(last),
        None if groups_as_of is None or rules is None else str(groups_as_of),
        _control_of(experiment_id, list(users), control),
        dict(planned_shares) if planned_shares else dict.fromkeys(users, 1 / len(users)),
        counts,
        versions,
        num_crossed,
        num_left_out,
    )


def _control_of(experiment_id: str, arms: list[str], named: str | None) -> str:
    if named is None and len(arms) > 1 and DEFAULT_CONTROL not in arms:
        raise ValueError(
            f"experiment {experiment_id!r} has no arm called {DEFAULT_CONTROL}: name the one that others are held "
            f"against, --control ARM. It has {', '.join(arms)}."
        )
    return named or (DEFAULT_CONTROL if DEFAULT_CONTROL in arms else arms[0])


def _counts(row: Mapping[str, Any]) -> ArmCounts:
    return ArmCounts(row["arm"], row["scope"], row["group_id"], ArmSums(*(int(row[name]) for name in SUM_NAMES)))


def _order(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["scope"] or "", row["group_id"] or "", row["arm"]
