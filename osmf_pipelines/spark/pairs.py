"""From click rates to preference pairs: which of two creatives of a product a group prefers, and how surely.

Rates and their priors belong in `ctr`; what a pair is trained with, in `osmf_models`.

Source: this project's own design (5.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from scipy.special import betainc

from osmf_pipelines.tables import TABLES

_GROUP_KEYS = ("as_of_date", "group_id", "scope", "is_scope_root", "product_id")
_RATE_COLUMNS = ("creative_id", "effective_impressions", "posterior_shape", "posterior_rate")


@dataclass(frozen=True)
class PairCounts:
    """How many comparisons were sure enough.

    Attributes:
        num_kept: pairs kept.
        num_insufficient_evidence: two creatives of one product, seen by one group, whose order is not known.
        expected_wrong_share: mean of 1 - chosen_better_probability over the pairs kept; None where none is.
    """

    num_kept: int
    num_insufficient_evidence: int
    expected_wrong_share: float | None


def preference_pairs(
    group_ctr: DataFrame, product_splits: DataFrame, *, as_of_date: date, min_probability: float = 0.9
) -> DataFrame:
    """Returns `preference_pairs`: creatives of one product whose order in a group is known with `min_probability`.

    A pair is kept when the chosen creative is better with that probability and its mean rate is above the other's; with
    little evidence the two can disagree. Everything else has insufficient evidence; `count_pairs` counts it.

    Grain: one row per (as_of_date, group_id, product, two creatives), each two creatives at most once. A product
        without a split has been decided by nobody and gives no pairs (inner join).

    Args:
        group_ctr: rates of groups and scope roots; days other than `as_of_date` are left out.
        product_splits: one row per product.
        as_of_date: last day of the window.
        min_probability: in [0.5, 1).

    Raises:
        ValueError: when `min_probability` is out of range.
    """
    rates = group_ctr.where(F.col("as_of_date") == F.lit(as_of_date))
    kept = _compare_creatives(rates).where(_has_evidence(min_probability))
    return (
        kept.withColumn("is_contradiction", is_contradiction())
        .join(product_splits.select("product_id", "split"), on="product_id", how="inner")
        .select(*TABLES["preference_pairs"].column_names)
    )


def count_pairs(group_ctr: DataFrame, *, min_probability: float = 0.9) -> PairCounts:
    """Returns how many of the comparisons that `group_ctr` allows have evidence enough, scope roots included.

    Grain: collects one row of sums to the driver.
    """
    is_kept = _has_evidence(min_probability)
    sums = _compare_creatives(group_ctr).agg(
        F.count_if(is_kept).alias("num_kept"),
        F.count_if(~is_kept).alias("num_insufficient_evidence"),
        F.avg(F.when(is_kept, 1 - F.col("chosen_better_probability"))).alias("expected_wrong_share"),
    )
    return PairCounts(**sums.collect()[0].asDict())


def count_by_probability(pairs: DataFrame) -> list[tuple[float, int, int]]:
    """Returns (probability rounded down to thousandths, pairs, contradictions among them), in order.

    Grain: rows of `preference_pairs`; scope roots are left out.
    """
    thousandths = F.floor(F.col("chosen_better_probability") * 1000).alias("thousandths")
    counts = (
        pairs.where(~F.col("is_scope_root"))
        .groupBy(thousandths)
        .agg(F.count(F.lit(1)).alias("num_pairs"), F.count_if("is_contradiction").alias("num_contradictions"))
        .orderBy("thousandths")
    )
    return [(row["thousandths"] / 1000, row["num_pairs"], row["num_contradictions"]) for row in counts.collect()]


def _has_evidence(min_probability: float) -> Column:
    if not 0.5 <= min_probability < 1:
        raise ValueError(f"min_probability must be in [0.5, 1), got {min_probability}.")
    return (F.col("chosen_better_probability") >= min_probability) & (F.col("log_rate_ratio") > 0)


def better_probability(
    shape: NDArray[np.float64],
    rate: NDArray[np.float64],
    other_shape: NDArray[np.float64],
    other_rate: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns P(x > y) for independent x ~ Gamma(shape, rate) and y ~ Gamma(other_shape, other_rate).

    P = 1 - I_z(shape, other_shape) with z = rate / (rate + other_rate), I the regularised incomplete beta function:
    rate*x / (rate*x + other_rate*y) is Beta(shape, other_shape), and x > y when it is above z.
    """
    return betainc(other_shape, shape, other_rate / (rate + other_rate))


def _compare_creatives(rates: DataFrame) -> DataFrame:
    """Every two creatives of a product in a group, the more probable one chosen, equal ones in order of their ids."""
    first, second = (
        rates.select(*_GROUP_KEYS, *(F.col(name).alias(f"{side}_{name}") for name in _RATE_COLUMNS))
        for side in ("first", "second")
    )
    both = first.join(second, on=list(_GROUP_KEYS), how="inner").where("first_creative_id < second_creative_id")
    schema = both.withColumn("first_better_probability", F.lit(0.0)).schema
    probable = both.mapInPandas(_add_probabilities, schema=schema)
    is_first_chosen = F.col("first_better_probability") >= 0.5

    def chosen(name: str) -> Column:
        return F.when(is_first_chosen, F.col(f"first_{name}")).otherwise(F.col(f"second_{name}"))

    def rejected(name: str) -> Column:
        return F.when(is_first_chosen, F.col(f"second_{name}")).otherwise(F.col(f"first_{name}"))

    probability = F.col("first_better_probability")
    chosen_mean = chosen("posterior_shape") / chosen("posterior_rate")
    rejected_mean = rejected("posterior_shape") / rejected("posterior_rate")
    return probable.select(
        *_GROUP_KEYS,
        chosen("creative_id").alias("chosen_creative_id"),
        rejected("creative_id").alias("rejected_creative_id"),
        F.greatest(probability, 1 - probability).alias("chosen_better_probability"),
        F.log(chosen_mean / rejected_mean).alias("log_rate_ratio"),
        chosen("effective_impressions").alias("chosen_effective_impressions"),
        rejected("effective_impressions").alias("rejected_effective_impressions"),
    )


def _add_probabilities(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for batch in batches:
        first, second = (
            (batch[f"{side}_posterior_shape"].to_numpy(), batch[f"{side}_posterior_rate"].to_numpy())
            for side in ("first", "second")
        )
        yield batch.assign(first_better_probability=better_probability(*first, *second))


def is_contradiction() -> Column:
    """Returns whether the two creatives stand the other way round in another group of the scope; roots stay out of it.

    Grain: a window expression over rows of `preference_pairs`.
    """
    is_in_order = F.col("chosen_creative_id") < F.col("rejected_creative_id")
    both_ways = Window.partitionBy(
        "scope",
        "is_scope_root",
        "product_id",
        F.least("chosen_creative_id", "rejected_creative_id"),
        F.greatest("chosen_creative_id", "rejected_creative_id"),
    ).rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    return ~F.col("is_scope_root") & (F.min(is_in_order).over(both_ways) != F.max(is_in_order).over(both_ways))
