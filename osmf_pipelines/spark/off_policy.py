"""Sums per user of logs with propensities: what the estimators of `osmf_models.evaluation.off_policy` need of them.

Which policies there are belongs in `policies`, estimating in `policy_values`. Integers only, so that no result depends
on partitioning.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from osmf_models.evaluation.off_policy import SUM_NAMES
from osmf_pipelines.spark.place_effects import PlaceEffects
from osmf_pipelines.spark.policies import LOGGING

NUM_BUCKETS = 4096
SCALE = 1_000_000  # sums are of millionths, but for these
_COUNTED = ("num_impressions", "num_clicks", "num_clipped")
_PREDICTED = ("expected_clicks", "weighted_expected_clicks")
_PREDICTION_SCALE = 1_000_000_000
_KEYS = ("logged_arm", "policy")


def add_context(
    exposures: DataFrame, user_groups: DataFrame, scope_roots: DataFrame, place_effects: PlaceEffects
) -> DataFrame:
    """Returns exposures with `group_id` and `place_effect`, by which place and day multiply the rates predicted.

    Grain: one row per exposure of a scope that has a root; users without a group are in the root. A place or day that
        `place_effects` does not know multiplies by 1.

    Args:
        exposures: `silver_exposures`.
        user_groups: as of one day.
        scope_roots: (scope, root_id).
        place_effects: from clicks that the policies will not be valued on.
    """
    spark = exposures.sparkSession
    rates = [(*place, rate) for place, rate in place_effects.examination_rates.items()]
    places = spark.createDataFrame(rates, "_slot_type string, _position int, _place double")
    days = spark.createDataFrame(list(place_effects.day_factors.items()), "event_date date, _day double")
    is_same = F.col("slot_type").eqNullSafe(F.col("_slot_type")) & F.col("position").eqNullSafe(F.col("_position"))
    groups = user_groups.select("scope", "cell", F.col("group_id").alias("_group"))
    effect = F.coalesce("_place", F.lit(1.0)) * F.coalesce("_day", F.lit(1.0))
    return (
        exposures.join(F.broadcast(scope_roots), on="scope", how="inner")
        .join(groups, on=["scope", "cell"], how="left")
        .join(F.broadcast(places), on=is_same, how="left")
        .join(F.broadcast(days), on="event_date", how="left")
        .withColumn("group_id", F.coalesce("_group", "root_id"))
        .withColumn("place_effect", effect)
        .drop("_group", "root_id", "_slot_type", "_position", "_place", "_day")
    )


def sum_by_bucket(exposures: DataFrame, policies: DataFrame, on: Sequence[str], *, max_weight: float) -> DataFrame:
    """Returns the sums of each policy on each arm's logs, users put together in buckets by their hash.

    Few users are alone in a bucket, many share one: resampling buckets is resampling users, whatever their number.

    Grain: one row per (scope, logged_arm, policy, bucket); a null scope is all scopes together, a null arm is logs that
        name none. Exposures without a propensity, and those in a context that no policy knows, are left out. Scaled
        sums become numbers in `unscaled`.

    Args:
        exposures: scope, the columns of `on`, user_id, creative_id, propensity, is_clicked, arm, place_effect.
        policies: a table of policies, as `policies` makes them.
        on: columns that are the context.
        max_weight: weights above are clipped.
    """
    known = exposures.where(F.col("propensity").isNotNull()).withColumn("logged_arm", F.col("arm"))
    # Any null is a place of its own, on both sides.
    same_context = [F.col(f"x.{name}").eqNullSafe(F.col(f"p.{name}")) for name in on]
    columns = ["scope", "logged_arm", "user_id", "creative_id", "propensity", "is_clicked", "place_effect"]
    rows = known.alias("x").join(policies.alias("p"), on=same_context, how="inner")
    told = [F.col(f"p.{name}") for name in ("policy", "probabilities", "predicted_rates", "expected_rate")]
    terms = _terms(rows.select(*(F.col(f"x.{name}") for name in columns), *told), max_weight)
    sums = [F.sum(name).alias(name) for name in SUM_NAMES]
    by_user = terms.groupBy("scope", *_KEYS, "user_id").agg(*sums)
    each, together = ["scope", *_KEYS, "user_id"], [*_KEYS, "user_id"]
    both = by_user.groupingSets([each, together], "scope", *_KEYS, "user_id").agg(*sums)
    bucket = F.pmod(F.xxhash64(F.lit("bootstrap"), "user_id"), F.lit(NUM_BUCKETS)).cast("int")
    by_bucket = both.withColumn("bucket", bucket).groupBy("scope", *_KEYS, "bucket")
    return by_bucket.agg(F.count(F.lit(1)).alias("num_users"), *sums)


def scale_of(name: str) -> int:
    """Returns by what a column of sums was multiplied."""
    return 1 if name in _COUNTED else _PREDICTION_SCALE if name in _PREDICTED else SCALE


def _terms(rows: DataFrame, max_weight: float) -> DataFrame:
    """What each exposure adds to each sum of `SUM_NAMES`, whole numbers."""
    raw = F.coalesce(F.col("probabilities")[F.col("creative_id")], F.lit(0.0)) / F.col("propensity")
    full = F.when(F.col("policy") == LOGGING, 1.0).otherwise(raw)
    weighted = rows.withColumn("_full", full).withColumn("_w", F.least("_full", F.lit(max_weight)))
    w, r = F.col("_w"), F.col("is_clicked").cast("double")
    predicted = F.coalesce(F.col("predicted_rates")[F.col("creative_id")], F.lit(0.0)) * F.col("place_effect")
    terms: dict[str, Column] = {
        "num_impressions": F.lit(1),
        "num_clicks": r,
        "weights": w,
        "squared_weights": w * w,
        "weighted_clicks": w * r,
        "squared_weighted_clicks": w * w * r,
        "expected_clicks": F.col("expected_rate") * F.col("place_effect"),
        "weighted_expected_clicks": w * predicted,
        "num_clipped": F.col("_full") > max_weight,
    }
    scaled = [F.round(terms[name].cast("double") * scale_of(name)).cast("bigint").alias(name) for name in SUM_NAMES]
    return weighted.select("scope", *_KEYS, "user_id", *scaled)
