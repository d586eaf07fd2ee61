"""Policies that logs can value: which creative to show in which context, and what is predicted of it.

Estimating their values belongs in `off_policy` and `policy_values`.

A table of policies has one row per (policy, context). The context is the scope, the group and the product, and for a
policy that has places of its own the position too; `probabilities` and `predicted_rates` go by creative,
`expected_rate` is the sum over creatives of one times the other.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

LOGGING, BEST_FOR_ALL, BEST_PER_GROUP = "logging", "best_for_all", "best_per_group"
ARM_PREFIX = "arm "
GROUP_CONTEXT, PLACE_CONTEXT = ("scope", "group_id", "product_id"), ("scope", "product_id", "position")


def choose_best_creatives(group_ctr: DataFrame) -> DataFrame:
    """Returns the policies that show the creative of the highest rate: in the scope, and in the group.

    A product that a group was never shown falls back to the scope's choice, and so does everyone without a group. The
    prediction is the rate in the group, or else in the scope.

    Grain: one row per (policy, scope, group_id, product), the logging policy among them; the scope's root is the group
        of those who are in none. Of equal rates the first creative id is chosen.

    Args:
        group_ctr: as of one day, roots included, from clicks that the policies will not be valued on.
    """
    of_root, of_group = (group_ctr.where(F.col("is_scope_root") == is_root) for is_root in (True, False))
    for_all = _best(of_root)
    groups = group_ctr.select("scope", "group_id").distinct()
    contexts = groups.join(for_all.drop("group_id").withColumnRenamed("rate", "for_all_rate"), on="scope", how="inner")
    own = _best(of_group).withColumnsRenamed({"creative_id": "own_id", "rate": "own_rate"})
    in_group = of_group.select("scope", "group_id", "product_id", "creative_id", F.col("ctr_rate").alias("in_group"))
    joined = contexts.join(own, on=list(GROUP_CONTEXT), how="left").join(
        in_group, on=[*GROUP_CONTEXT, "creative_id"], how="left"
    )
    for_all_rate = F.coalesce("in_group", "for_all_rate")
    policies = F.array(
        _as_logged(),
        _policy(F.lit(BEST_FOR_ALL), F.col("creative_id"), for_all_rate),
        _policy(F.lit(BEST_PER_GROUP), F.coalesce("own_id", "creative_id"), F.coalesce("own_rate", for_all_rate)),
    )
    return joined.select(*GROUP_CONTEXT, F.inline(policies))


def name_arms(exposures: DataFrame) -> DataFrame:
    """Returns the exposures with `arm` as EXPERIMENT/ARM: arms of two experiments may be called alike.

    Grain: one row per exposure. Without an experiment the arm is its own name.
    """
    name = F.concat_ws("/", "experiment_id", "arm")
    return exposures.withColumn("arm", F.when(F.col("arm").isNotNull(), name))


def list_arm_policies(exposures: DataFrame) -> DataFrame:
    """Returns what the arms of an experiment do: how often each shows a creative of a product at a position.

    The prediction is the arm's own click rate of the creative, one click at the rate of the product added.

    Grain: one row per (policy, scope, product, position), of logs that name an arm, the logging policy among them. A
        null position is a place of its own.
    """
    known = exposures.where(F.col("arm").isNotNull()).withColumn("policy", F.concat(F.lit(ARM_PREFIX), "arm"))
    of_product = ["policy", "scope", "product_id"]
    of_creative, of_place = [*of_product, "creative_id"], [*of_product, "position"]
    num_clicks = F.sum(F.col("is_clicked").cast("bigint"))
    everyone = known.groupBy(*of_product).agg((num_clicks + 0.5).alias("_all"), (F.count(F.lit(1)) + 1).alias("_shown"))
    rates = (
        known.groupBy(*of_creative)
        .agg(num_clicks.alias("_clicks"), F.count(F.lit(1)).alias("_impressions"))
        .join(everyone, on=of_product, how="inner")
        .select(
            *of_creative,
            ((F.col("_clicks") + 1) / (F.col("_impressions") + F.col("_shown") / F.col("_all"))).alias("rate"),
        )
    )
    shown = known.groupBy(*of_place, "creative_id").agg(F.count(F.lit(1)).alias("_num"))
    share = F.col("_num") / F.sum("_num").over(Window.partitionBy(*of_place))
    entry = F.struct("creative_id", F.col("probability").alias("value"))
    predicted = F.struct("creative_id", F.col("rate").alias("value"))
    arms = (
        shown.withColumn("probability", share)
        .join(rates, on=of_creative, how="inner")
        .groupBy(*of_place)
        .agg(
            F.map_from_entries(F.sort_array(F.collect_list(entry))).alias("probabilities"),
            F.map_from_entries(F.sort_array(F.collect_list(predicted))).alias("predicted_rates"),
        )
        .select(*PLACE_CONTEXT, "policy", _expected().alias("expected_rate"), "probabilities", "predicted_rates")
    )
    places = exposures.select(*PLACE_CONTEXT).distinct()
    logged = places.select(*PLACE_CONTEXT, F.inline(F.array(_as_logged())))
    return arms.unionByName(logged)


def _best(rates: DataFrame) -> DataFrame:
    """The creative of the highest rate of each product in each group."""
    by_rate = Window.partitionBy(*GROUP_CONTEXT).orderBy(F.desc("ctr_rate"), "creative_id")
    ranked = rates.withColumn("_rank", F.row_number().over(by_rate)).where("_rank = 1")
    return ranked.select(*GROUP_CONTEXT, "creative_id", F.col("ctr_rate").alias("rate"))


def _policy(name: Column, creative_id: Column, rate: Column) -> Column:
    """A policy that always shows one creative."""
    return _entry(name, rate, F.create_map(creative_id, F.lit(1.0)), F.create_map(creative_id, rate))


def _as_logged() -> Column:
    """The logging policy, which has no choice of its own."""
    nothing = F.lit(None).cast("map<string,double>")
    return _entry(F.lit(LOGGING), F.lit(0.0), nothing, nothing)


def _entry(name: Column, expected_rate: Column, probabilities: Column, predicted_rates: Column) -> Column:
    return F.struct(
        name.alias("policy"),
        expected_rate.alias("expected_rate"),
        probabilities.alias("probabilities"),
        predicted_rates.alias("predicted_rates"),
    )


def _expected() -> Column:
    """Sum over creatives of probability times predicted rate, in the order of their ids."""
    products = F.transform(
        F.map_keys("probabilities"),
        lambda creative: F.col("probabilities")[creative] * F.col("predicted_rates")[creative],
    )
    return F.aggregate(products, F.lit(0.0), lambda total, value: total + value)
