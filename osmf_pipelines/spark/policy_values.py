"""What policies would earn, from logs with propensities: one grouped-map call a scope over sums per bucket of users.

A policy is never valued on the logs that chose it: the best creatives are chosen by the clicks of some users (and the
groups formed by them) and valued on those of the held-out ones; what an arm does is known from its own logs and valued
on another arm's. The estimators are in `osmf_models.evaluation.off_policy`, the sums in `off_policy`.

Source: this project's own design (5.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_models.evaluation.off_policy import (
    ESTIMATORS,
    MAX_WEIGHT,
    MIN_EFFECTIVE_CLICKS,
    SUM_NAMES,
    Array,
    PolicySums,
    clipped_share,
    draw_users,
    effective_clicks,
    effective_impressions,
    mean_weight,
    on_policy,
    studentized_interval,
)
from osmf_pipelines.spark.ctr import group_ctr
from osmf_pipelines.spark.off_policy import add_context, scale_of, sum_by_bucket
from osmf_pipelines.spark.place_effects import PlaceEffects, fit_place_effects
from osmf_pipelines.spark.policies import (
    ARM_PREFIX,
    BEST_FOR_ALL,
    BEST_PER_GROUP,
    GROUP_CONTEXT,
    LOGGING,
    PLACE_CONTEXT,
    choose_best_creatives,
    list_arm_policies,
)
from osmf_pipelines.tables import TABLES

HELD_OUT, ALL, OWN_LOGS = "held_out", "all", "own_logs"
_COLUMNS = [column for column in TABLES["policy_values"].columns if column.name != "as_of_date"]
_SPLITS = ("train", "validation", "test")  # a policy may choose by every product: it is valued on other users


@dataclass(frozen=True)
class LogCounts:
    """What of the logs can be used.

    Attributes:
        num_impressions: exposures.
        num_without_propensity: of them; they value nothing.
        num_heldout: exposures of held-out users that have a propensity.
        num_arms: arms that exposures with a propensity name.
    """

    num_impressions: int
    num_without_propensity: int
    num_heldout: int
    num_arms: int


@dataclass(frozen=True)
class _Valued:
    """One policy on one log: how many users are behind it, and its sums by bucket of them."""

    num_users: int
    sums: PolicySums


def count_logs(exposures: DataFrame, *, heldout_fold: int = 0) -> LogCounts:
    """Returns what of the exposures can be used. Grain: collects one row of sums to the driver."""
    is_known = F.col("propensity").isNotNull()
    sums = exposures.agg(
        F.count(F.lit(1)).alias("num_impressions"),
        F.count_if(~is_known).alias("num_without_propensity"),
        F.count_if(is_known & (F.col("user_fold") == heldout_fold)).alias("num_heldout"),
        F.count_distinct(F.when(is_known, F.col("arm"))).alias("num_arms"),
    )
    return LogCounts(**sums.collect()[0].asDict())


def rate_without_heldout(
    creative_stats_window: DataFrame,
    user_groups: DataFrame,
    product_splits: DataFrame,
    *,
    as_of_date: date,
    heldout_fold: int = 0,
) -> tuple[DataFrame, PlaceEffects]:
    """Returns `group_ctr` and the place effects by the clicks of users who are not held out.

    The groups are the published ones, whose cuts did not see the held-out fold either. Persist the rates.

    Args:
        creative_stats_window: `creative_stats` of the days of the evidence window.
        user_groups: of the same window, formed with the same `heldout_fold`.
        product_splits: one row per product.
        as_of_date: last day of the window.
        heldout_fold: `user_fold` that policies will be valued on.

    Raises:
        ValueError: when nobody else is left.
    """
    choosing = creative_stats_window.where(F.col("user_fold") != heldout_fold)
    effects = fit_place_effects(choosing)
    rates = group_ctr(
        choosing, user_groups, product_splits, as_of_date=as_of_date, place_effects=effects, fitted_splits=_SPLITS
    )
    return rates, effects


def sum_choices(
    exposures: DataFrame,
    user_groups: DataFrame,
    rates: DataFrame,
    place_effects: PlaceEffects,
    *,
    heldout_fold: int = 0,
    max_weight: float = MAX_WEIGHT,
) -> DataFrame:
    """Returns the sums of the best creatives for all and per group, and of the logging policy, on held-out users.

    Grain: one row per (users, scope, logged_arm, policy, bucket), as `sum_by_bucket`.

    Args:
        exposures: `silver_exposures` of the days to value on.
        user_groups: as of the day.
        rates: from `rate_without_heldout`, as are `place_effects`.
        place_effects: what place and day do to clicks.
        heldout_fold: the same.
        max_weight: weights above are clipped.
    """
    heldout = exposures.where(F.col("user_fold") == heldout_fold)
    roots = rates.where("is_scope_root").select("scope", F.col("group_id").alias("root_id")).distinct()
    in_context = add_context(heldout, user_groups, roots, place_effects)
    sums = sum_by_bucket(in_context, choose_best_creatives(rates), GROUP_CONTEXT, max_weight=max_weight)
    return sums.withColumn("users", F.lit(HELD_OUT))


def sum_arms(exposures: DataFrame, *, max_weight: float = MAX_WEIGHT) -> DataFrame:
    """Returns the sums of each arm's policy on each arm's logs, of all users.

    Grain: one row per (users, scope, logged_arm, policy, bucket), as `sum_by_bucket`.

    Args:
        exposures: `silver_exposures` of the days to value on.
        max_weight: weights above are clipped.
    """
    everyone = exposures.withColumn("place_effect", F.lit(1.0))  # arms' rates are those of their places together
    sums = sum_by_bucket(everyone, list_arm_policies(exposures), PLACE_CONTEXT, max_weight=max_weight)
    return sums.withColumn("users", F.lit(ALL))


def estimate_policy_values(sums: DataFrame, *, as_of_date: date, min_users: int) -> DataFrame:
    """Returns `policy_values`.

    Grain: as the table. Logs of fewer than `min_users` users value nothing.

    Args:
        sums: from `sum_choices` and `sum_arms`.
        as_of_date: last day of the window.
        min_users: privacy floor.
    """

    def value(sums_of_scope: pd.DataFrame) -> pd.DataFrame:
        return value_scope(sums_of_scope, min_users)

    schema = ", ".join(f"{column.name} {column.type}" for column in _COLUMNS)
    values = sums.groupBy("scope").applyInPandas(value, schema=schema)
    return values.withColumn("as_of_date", F.lit(as_of_date)).select(*TABLES["policy_values"].column_names)


def value_scope(sums: pd.DataFrame, min_users: int) -> pd.DataFrame:
    """Returns the values of one scope's policies and what they differ by, columns as `policy_values` without the day.

    Args:
        sums: rows of `sum_choices` and `sum_arms` of one scope, in any order.
        min_users: logs of fewer users value nothing.
    """
    buckets = np.unique(sums["bucket"])
    counts = draw_users(len(buckets))
    named = sums.assign(logged_arm=sums["logged_arm"].fillna(""))
    rows: list[tuple[object, ...]] = []
    for users, part in named.groupby("users"):
        valued = {
            (str(arm), str(policy)): _value(of_policy, buckets)
            for (arm, policy), of_policy in part.groupby(["logged_arm", "policy"])
            if of_policy["num_users"].sum() >= min_users
        }
        rows += [(sums["scope"].iloc[0], users, *row) for row in _tell(valued, counts)]
    return pd.DataFrame(rows, columns=[column.name for column in _COLUMNS])


def _value(of_policy: pd.DataFrame, buckets: Array) -> _Valued:
    ordered = of_policy.set_index("bucket").reindex(buckets, fill_value=0)
    sums = PolicySums.from_mapping({name: ordered[name].to_numpy() / scale_of(name) for name in SUM_NAMES})
    return _Valued(int(of_policy["num_users"].sum()), sums)


def _tell(valued: Mapping[tuple[str, str], _Valued], counts: Array) -> Iterator[tuple[object, ...]]:
    """Rows of the table from its column `logged_arm` on."""
    for (arm, policy), one in valued.items():
        logging = valued.get((arm, LOGGING))
        if policy == LOGGING:
            yield _row(counts, arm, policy, "on_policy", one)
        elif _can_value(arm, policy, one):
            for estimator in ESTIMATORS:
                yield _row(counts, arm, policy, estimator, one)
                if logging:
                    yield _row(counts, arm, policy, estimator, one, LOGGING, "on_policy", logging)
                own = valued.get((policy.removeprefix(ARM_PREFIX), LOGGING)) if policy.startswith(ARM_PREFIX) else None
                if own:
                    yield _row(counts, arm, policy, estimator, one, OWN_LOGS, "on_policy", own)
                for_all = valued.get((arm, BEST_FOR_ALL)) if policy == BEST_PER_GROUP else None
                if for_all and _can_value(arm, BEST_FOR_ALL, for_all):
                    yield _row(counts, arm, policy, estimator, one, BEST_FOR_ALL, estimator, for_all)


def _can_value(arm: str, policy: str, one: _Valued) -> bool:
    """Whether logs say something of the policy: they hold what it shows, and did not choose it.

    Logs whose weights for another arm would have to be clipped hold next to nothing of some of what it shows.
    """
    is_own, is_arm = policy == f"{ARM_PREFIX}{arm}", policy.startswith(ARM_PREFIX)
    return float(one.sums.total.weights) > 0 and not is_own and not (is_arm and clipped_share(one.sums) > 0)


def _row(
    counts: Array,
    arm: str,
    policy: str,
    estimator: str,
    one: _Valued,
    compared_with: str | None = None,
    other_estimator: str = "",
    other: _Valued | None = None,
) -> tuple[object, ...]:
    ratio_of = {**ESTIMATORS, "on_policy": on_policy}
    own, theirs = ratio_of[estimator](one.sums), None
    value, num_clicks = own.value, _num_clicks(estimator, one)
    if other is not None:
        theirs = ratio_of[other_estimator](other.sums)
        value, num_clicks = value - theirs.value, min(num_clicks, _num_clicks(other_estimator, other))
    has_interval = num_clicks >= MIN_EFFECTIVE_CLICKS
    low, high = studentized_interval(own, counts, theirs) if has_interval else (None, None)
    told = (effective_impressions(one.sums), _num_clicks(estimator, one), mean_weight(one.sums))
    behind = (one.num_users, int(one.sums.total.num_impressions))
    what = (arm or None, policy, compared_with, estimator)
    return (*what, value, low, high, *behind, *told, clipped_share(one.sums))


def _num_clicks(estimator: str, one: _Valued) -> float:
    """Effective clicks behind an estimate."""
    return float(one.sums.total.num_clicks) if estimator == "on_policy" else effective_clicks(one.sums)
