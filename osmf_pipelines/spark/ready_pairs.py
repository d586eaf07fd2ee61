"""Preference pairs that come ready-made (a released data set, an annotation campaign), checked against the lake.

Pairs mined from clicks belong in `pairs`. A ready table is taken as a whole or refused as a whole: unlike a log it is a
finished piece of work, and its owner can mend it.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from osmf_pipelines.spark.pairs import is_contradiction
from osmf_pipelines.tables import TABLES

_NUM_EXAMPLES = 3
_MAX_PROBABILITY = 1 - 1e-6


def take_ready_pairs(
    ready: DataFrame, group_features: DataFrame, creatives: DataFrame, product_splits: DataFrame, *, as_of_date: date
) -> DataFrame:
    """Returns `preference_pairs` from a ready table.

    Without a `log_rate_ratio` the probability is read as a Bradley-Terry share, as of annotators who preferred the
    chosen creative, and its log-odds are taken. Effective impressions are null: there are none.

    Grain: one row per row given.

    Args:
        ready: from a source, with `payload` and `is_corrupt`.
        group_features: of the day; a pair belongs to one of its groups.
        creatives: the table `creatives`.
        product_splits: one row per product.
        as_of_date: day that the pairs are published under.

    Raises:
        ValueError: when any row is wrong: how many rows for which reason, and the first of them.
    """
    known = _join_known(ready, group_features, creatives)
    _refuse(known.withColumn("reasons", _reasons()))
    probability = F.col("chosen_better_probability")
    log_odds = F.log(
        F.least(probability, F.lit(_MAX_PROBABILITY)) / (1 - F.least(probability, F.lit(_MAX_PROBABILITY)))
    )
    columns: dict[str, Column] = {
        "as_of_date": F.lit(as_of_date),
        "scope": F.col("_scope"),
        "is_scope_root": F.col("_is_scope_root"),
        "log_rate_ratio": F.coalesce("log_rate_ratio", log_odds),
        "chosen_effective_impressions": F.lit(None).cast("double"),
        "rejected_effective_impressions": F.lit(None).cast("double"),
    }
    pairs = known.drop("scope").withColumns(columns)
    return (
        pairs.withColumn("is_contradiction", is_contradiction())
        .join(product_splits.select("product_id", "split"), on="product_id", how="inner")
        .select(*TABLES["preference_pairs"].column_names)
    )


def _join_known(ready: DataFrame, group_features: DataFrame, creatives: DataFrame) -> DataFrame:
    """Beside each pair what the lake knows of its group and its two creatives, null where it knows nothing."""
    groups = group_features.select(
        "group_id", F.col("scope").alias("_scope"), F.col("is_scope_root").alias("_is_scope_root")
    )
    joined = ready.join(groups, on="group_id", how="left")
    for side in ("chosen", "rejected"):
        products = creatives.select(
            F.col("creative_id").alias(f"{side}_creative_id"), F.col("product_id").alias(f"_{side}_product_id")
        )
        joined = joined.join(products, on=f"{side}_creative_id", how="left")
    return joined


def _reasons() -> Column:
    ends = F.array_sort(F.array("chosen_creative_id", "rejected_creative_id"))
    same_pair = Window.partitionBy("group_id", ends).rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    is_of_another_product = (F.col("_chosen_product_id") != F.col("product_id")) | (
        F.col("_rejected_product_id") != F.col("product_id")
    )
    probability = F.col("chosen_better_probability")
    reasons = {
        "unreadable": F.col("is_corrupt"),
        "unknown_group": F.col("_scope").isNull(),
        "unknown_creative": F.col("_chosen_product_id").isNull() | F.col("_rejected_product_id").isNull(),
        "creative_of_another_product": is_of_another_product,
        "same_creative": F.col("chosen_creative_id") == F.col("rejected_creative_id"),
        "probability_not_in_0.5_1": probability.isNull() | ~probability.between(0.5, 1),
        "log_rate_ratio_not_above_0": F.col("log_rate_ratio") <= 0,
        "pair_more_than_once": F.count(F.lit(1)).over(same_pair) > 1,
    }
    return F.array_compact(F.array(*[F.when(condition, F.lit(name)) for name, condition in reasons.items()]))


def _refuse(checked: DataFrame) -> None:
    wrong = checked.where(F.size("reasons") > 0)
    counts = wrong.select(F.explode("reasons").alias("reason")).groupBy("reason").count().orderBy("reason").collect()
    if counts:
        examples = [row["payload"] for row in wrong.orderBy("payload").limit(_NUM_EXAMPLES).collect()]
        told = ", ".join(f"{row['reason']}: {row['count']}" for row in counts)
        raise ValueError(
            f"[preference_pairs] holds rows that cannot be taken ({told}), such as {'; '.join(examples)}. Nothing is "
            "published; mend the table, then run again."
        )
