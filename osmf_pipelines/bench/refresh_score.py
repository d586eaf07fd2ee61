"""How right the groups, rates and probabilities of a refresh are, where its logs are a simulated market's.

The same figures as the benchmarks', of published tables; a Spark task for each scope.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_models.simulator.drawn import DrawnCreative
from osmf_models.simulator.market import Market, load_market
from osmf_pipelines.bench.comparisons import (
    PROBABILITY_BINS,
    bin_of,
    compare,
    covered_rates,
    is_kept,
    with_true_rates,
)
from osmf_pipelines.bench.grouping_score import PlantedScope, compare_with_segments, ctr_share_of_oracle
from osmf_pipelines.bench.market_counts import creative_ids
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.stats import count_cell_users
from osmf_pipelines.tables import TABLES

_COLUMNS = [column for column in TABLES["truth_report"].columns if column.name != "as_of_date"]


def score_refresh(
    truth: Path,
    creative_stats_window: DataFrame,
    cell_users_window: DataFrame,
    user_groups: DataFrame,
    group_ctr: DataFrame,
    creatives: DataFrame,
    *,
    as_of_date: date,
    settings: TreeSettings,
    min_probability: float,
) -> DataFrame:
    """Returns `truth_report`: the groups, rates and comparisons as of a day beside the truth.

    Grain: one row per (as_of_date, scope, measure, probability_from).

    Args:
        truth: folder of the market's truth.
        creative_stats_window: `creative_stats` of the days of the window.
        cell_users_window: `cell_users` of the same days.
        user_groups: as of the day.
        group_ctr: as of the day.
        creatives: with the files of pictures that the market did not draw; their truth is that of their pixels.
        as_of_date: last day of the window.
        settings: floors of a group.
        min_probability: pairs are kept from here on.

    Raises:
        ValueError: when there is no market in `truth`, or the logs name a scope, cell or creative that is not in it
            and has no picture.
    """
    market = load_market(truth)
    by_day = creative_stats_window.groupBy("event_date").agg(F.sum("num_impressions").alias("shown")).collect()
    impressions = {row["event_date"]: row["shown"] for row in sorted(by_day, key=lambda row: row["event_date"])}
    sums = creative_stats_window.groupBy("scope", "cell").agg(
        F.sum("num_impressions").alias("num_impressions"), F.sum("num_clicks").alias("num_clicks")
    )
    cells = (
        user_groups.select("scope", "cell", "group_id")
        .join(sums, on=["scope", "cell"], how="inner")
        .join(count_cell_users(cell_users_window), on=["scope", "cell"], how="left")
        .fillna({"num_users": 0})
    )

    drawn = _drawn_creatives(market, group_ctr, creatives)

    def score(cells_of_scope: pd.DataFrame, rates_of_scope: pd.DataFrame) -> pd.DataFrame:
        rows = score_scope(market, impressions, cells_of_scope, rates_of_scope, settings, min_probability, drawn)
        return pd.DataFrame(rows, columns=[column.name for column in _COLUMNS])

    schema = ", ".join(f"{column.name} {column.type}" for column in _COLUMNS)
    scored = cells.groupBy("scope").cogroup(group_ctr.groupBy("scope")).applyInPandas(score, schema=schema)
    return scored.withColumn("as_of_date", F.lit(as_of_date)).select(*TABLES["truth_report"].column_names)


def _drawn_creatives(market: Market, group_ctr: DataFrame, creatives: DataFrame) -> tuple[DrawnCreative, ...]:
    """The rated creatives with a picture that are not the market's own. Collects the ids of all rated ones."""
    rated = group_ctr.select("creative_id").distinct().join(creatives, on="creative_id", how="inner")
    rows = rated.where("image_path IS NOT NULL").select("creative_id", "product_id", "image_path").collect()
    own = set(creative_ids(market))
    return tuple(sorted((DrawnCreative(*row) for row in rows if row["creative_id"] not in own), key=astuple))


def score_scope(
    market: Market,
    impressions: Mapping[date, int],
    cells: pd.DataFrame,
    rates: pd.DataFrame,
    settings: TreeSettings,
    min_probability: float,
    drawn: Sequence[DrawnCreative] = (),
) -> Iterator[tuple[str, str, float | None, float, int]]:
    """Yields (scope, measure, probability_from, value, num_cases) of one scope.

    Args:
        market: the truth.
        impressions: of each day of the window.
        cells: cell, group_id, num_users, num_impressions and num_clicks.
        rates: the scope's rows of `group_ctr`, its root's too.
        settings: floors of a group.
        min_probability: pairs are kept from here on.
        drawn: creatives of the market's products that it did not draw.
    """
    scope = str(cells["scope"].iloc[0])
    own = [one for one in drawn if market.product(one.product_id).scope == scope]
    by_cell = cells.set_index("cell").sort_index()
    planted = PlantedScope.of_scope(market, scope, by_cell.index.to_list(), impressions, own)
    rated = with_true_rates(planted, cells, rates[~rates["is_scope_root"]])
    root = rates[rates["is_scope_root"]]
    found = compare_with_segments(planted, by_cell, settings)
    num_users, num_groups = int(by_cell["num_users"].sum()), by_cell["group_id"].nunique()
    yield scope, "num_segments", None, float(found["num_segments"]), num_users
    yield scope, "num_groups", None, float(num_groups), num_users
    if np.isfinite(found["adjusted_rand_index"]):
        yield scope, "adjusted_rand_index", None, found["adjusted_rand_index"], num_users
    yield scope, "ctr_share_of_oracle", None, ctr_share_of_oracle(planted, rated, by_cell), num_users
    everyone = by_cell.assign(group_id=root["group_id"].iloc[0])
    yield scope, "ctr_share_of_oracle_one_size", None, ctr_share_of_oracle(planted, root, everyone), num_users
    num_rates, num_covered = covered_rates(rated)
    yield scope, "rates_covered_share", None, num_covered / num_rates, num_rates
    compared = compare(rated)
    kept = compared[is_kept(compared, min_probability)]
    if len(kept):
        yield scope, "expected_wrong_share", None, float((1 - kept["probability"]).mean()), len(kept)
        yield scope, "wrong_share", None, float((~kept["is_right"]).mean()), len(kept)
    for place, part in compared.groupby(bin_of(compared)):
        yield scope, "claimed_right_share", PROBABILITY_BINS[place], float(part["probability"].mean()), len(part)
        yield scope, "right_share", PROBABILITY_BINS[place], float(part["is_right"].mean()), len(part)
