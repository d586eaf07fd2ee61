"""Click rates per group and creative, at position 1 on an average day.

The priors are in `rate_posterior`, position and day in `place_effects`; comparing rates belongs in `pairs`.

Source: this project's own design (5.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.special import gammaincinv

from osmf_pipelines.spark.place_effects import PlaceEffects, add_effective_impressions
from osmf_pipelines.spark.preference_rules import ROOT_RULE, group_id
from osmf_pipelines.spark.rate_posterior import ScopeRates, group_posterior, root_posterior
from osmf_pipelines.tables import TABLES

_COLUMNS = [column for column in TABLES["group_ctr"].columns if column.name != "as_of_date"]
_INTERVAL = (0.025, 0.975)


def group_ctr(
    creative_stats_window: DataFrame,
    user_groups: DataFrame,
    product_splits: DataFrame,
    *,
    as_of_date: date,
    place_effects: PlaceEffects,
    fitted_splits: Sequence[str] = ("train",),
) -> DataFrame:
    """Returns `group_ctr`: the Gamma posterior of each creative's rate in each group, and in the root of each scope.

    Grain: one row per (as_of_date, group_id, product, creative) shown in the group; cells without a group, being under
        the floor of users, are left out. A product without a split counts as held out.

    Args:
        creative_stats_window: `creative_stats` of the days of the window.
        user_groups: of the same window, one row per (scope, cell).
        product_splits: one row per product.
        as_of_date: last day of the window.
        place_effects: of the same window.
        fitted_splits: splits that the variances of the priors are estimated on; all three in production.
    """
    fitted_products = product_splits.where(F.col("split").isin(*fitted_splits)).select(
        "product_id", F.lit(True).alias("is_fitted")
    )
    counts = (
        add_effective_impressions(creative_stats_window, place_effects)
        .join(user_groups.select("scope", "cell", "group_id"), on=["scope", "cell"], how="inner")
        .groupBy("scope", "group_id", "product_id", "creative_id")
        .agg(
            F.sum("num_impressions").alias("num_impressions"),
            F.sum("num_clicks").alias("num_clicks"),
            F.sum("effective_impression_millis").alias("effective_millis"),
        )
        .join(fitted_products, on="product_id", how="left")
        .fillna({"is_fitted": False})
    )
    schema = ", ".join(f"{column.name} {column.type}" for column in _COLUMNS)
    rates = counts.groupBy("scope").applyInPandas(rate_scope, schema=schema)
    return rates.withColumn("as_of_date", F.lit(as_of_date)).select(*TABLES["group_ctr"].column_names)


def rate_scope(counts: pd.DataFrame) -> pd.DataFrame:
    """Returns one scope's rows of `group_ctr`, the root's first.

    Args:
        counts: sums per (scope, group_id, product, creative), in any order, as `group_ctr` makes them.
    """
    keys = ["product_id", "creative_id"]
    creatives = counts.drop_duplicates(keys).sort_values(keys, ignore_index=True)[[*keys, "is_fitted"]]
    creative_of = pd.MultiIndex.from_frame(creatives[keys]).get_indexer(pd.MultiIndex.from_frame(counts[keys]))
    group_of, group_ids = pd.factorize(counts["group_id"], sort=True)
    sums = np.zeros((3, len(group_ids), len(creatives)))
    for values, name in zip(sums, ("num_impressions", "num_clicks", "effective_millis"), strict=True):
        values[group_of, creative_of] = counts[name]
    sums[2] /= 1000
    product_of = pd.factorize(creatives["product_id"])[0]
    starts = np.flatnonzero(np.diff(product_of, prepend=-1))
    scope = ScopeRates(sums[2], sums[1], starts, product_of, creatives["is_fitted"].to_numpy(dtype=bool))
    posteriors = (root_posterior(scope), group_posterior(scope))
    shape = np.concatenate([posterior.shape for posterior in posteriors])
    rate = np.concatenate([posterior.rate for posterior in posteriors])
    with_root = np.concatenate([sums.sum(axis=1, keepdims=True), sums], axis=1)
    group, creative = np.nonzero(with_root[0])
    shape, rate = shape[group, creative], rate[group, creative]
    scope_name = counts["scope"].iloc[0]
    columns = {
        "group_id": np.array([group_id(scope_name, ROOT_RULE), *group_ids], dtype=object)[group],
        "scope": scope_name,
        "is_scope_root": group == 0,
        "product_id": creatives["product_id"].to_numpy()[creative],
        "creative_id": creatives["creative_id"].to_numpy()[creative],
        "num_impressions": with_root[0][group, creative].astype(np.int64),
        "num_clicks": with_root[1][group, creative].astype(np.int64),
        "effective_impressions": with_root[2][group, creative],
        "posterior_shape": shape,
        "posterior_rate": rate,
        "ctr_rate": shape / rate,
        "ctr_rate_low": gammaincinv(shape, _INTERVAL[0]) / rate,
        "ctr_rate_high": gammaincinv(shape, _INTERVAL[1]) / rate,
    }
    return pd.DataFrame(columns)[[column.name for column in _COLUMNS]]
