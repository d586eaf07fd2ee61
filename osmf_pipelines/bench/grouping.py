"""How well groups are found: simulated scopes with planted segments, each way to form groups, and what came of it.

The scopes go through the very function that forms groups in a refresh, a Spark task for each simulated market; what is
measured of one scope is in `grouping_score.py`, the counts in `market_counts.py`, plots in `plots.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.events import Shop, draw_impressions, open_shop, rates_of_day
from osmf_models.simulator.market import Market, with_scopes
from osmf_models.simulator.realistic import realistic_market
from osmf_models.simulator.serving import UNIFORM, Policy, serve_day
from osmf_pipelines.bench.grouping_score import SCORE_COLUMNS, PlantedScope, score_groups
from osmf_pipelines.bench.market_counts import MarketCounts, count_market
from osmf_pipelines.spark.grouping import GroupingMethod
from osmf_pipelines.spark.kmeans_groups import cluster_cells
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.scope_groups import form_scope_groups

FORMAT = "osmf-bench-grouping/1"
START = date(2026, 3, 2)
LEVEL_CLICKS = 10_000
_PILOT_IMPRESSIONS = 20_000
MARKETS: dict[str, Callable[..., Market]] = {"easy": easy_market, "realistic": realistic_market}
_IN_TASK: tuple[GroupingMethod, ...] = ("adaptive", "one_group", "attribute_cross")
_KEYS = ("condition", "market", "seed", "clicks_wanted")
_ROW_DDL = """condition string, market string, seed int, clicks_wanted int, scope string, kind string, method string,
    num_clicks bigint, num_users bigint, num_segments int, num_groups int, adjusted_rand_index double,
    heldout_gain_per_1000 double, heldout_impressions double, ctr_share_of_oracle double, seconds double"""


@dataclass(frozen=True)
class Condition:
    """Who is shown what.

    Attributes:
        policy: which picture is shown.
        activity: how active users are, by attribute.
    """

    policy: Policy
    activity: tuple[tuple[str, tuple[float, ...]], ...] = ()


CONDITIONS = {
    "even": Condition(UNIFORM),
    "uneven": Condition(Policy("taste", 0.3), (("age_band", (1.0, 2.0, 4.0, 2.0)),)),
}


@dataclass(frozen=True)
class Case:
    """One simulated market.

    Attributes:
        market: its name.
        condition: name of one of `CONDITIONS`.
        seed: of the market.
        clicks_wanted: clicks of each scope, about.
        scopes: categories kept; empty for all.
    """

    market: str
    condition: str
    seed: int
    clicks_wanted: int
    scopes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Tells cases apart."""
        return f"{self.market}/{self.condition}/{self.seed}/{self.clicks_wanted}"


def open_case(case: Case, num_days: int = 1) -> Shop:
    """Returns the shop that brings the clicks wanted within `num_days`."""
    condition = CONDITIONS[case.condition]
    market = MARKETS[case.market](case.seed)
    market = replace(market, population=replace(market.population, activity=condition.activity))
    market = with_scopes(market, list(case.scopes)) if case.scopes else market
    shop = open_shop(market, case.seed, START, _PILOT_IMPRESSIONS)
    rates, none_yet = rates_of_day(shop, 0), np.zeros((len(market.products), market.num_creatives_per_product))
    serving = serve_day(condition.policy, rates, len(market.examination), none_yet, none_yet)
    click_rate = draw_impressions(shop, rates, serving, np.arange(_PILOT_IMPRESSIONS)).click_rate.mean()
    per_day = round(case.clicks_wanted * len(market.scopes) / click_rate / num_days)
    return replace(shop, impressions_per_day=per_day)


def count_case(case: Case, num_days: int = 1) -> MarketCounts:
    """Returns the counts of the days in which the clicks wanted come."""
    return count_market(open_case(case, num_days), CONDITIONS[case.condition].policy, num_days)


def plan_cases(
    seeds: Sequence[int], clicks: Sequence[int], num_agreeing: int, markets: Sequence[str] = ("easy", "realistic")
) -> list[Case]:
    """Returns the markets to simulate: every level of clicks for each seed, and scopes that agree for many more."""
    cases = [Case(*one) for one in product(markets, CONDITIONS, seeds, clicks)]
    agreeing = list(range(max(seeds) + 1, max(seeds) + 1 + num_agreeing))
    return cases + [Case("easy", one, seed, LEVEL_CLICKS, ("mug",)) for one, seed in product(CONDITIONS, agreeing)]


def bench_grouping(
    spark: SparkSession, cases: list[Case], settings: TreeSettings, progress: Callable[[int], None] = lambda done: None
) -> pd.DataFrame:
    """Returns one row per case, scope and method, columns as `_ROW_DDL`; k-means only of cases with all scopes.

    Args:
        spark: session; each case is a task.
        cases: to simulate.
        settings: floors of a group.
        progress: called with the number of cases done.
    """
    parts, batch = [], 2 * spark.sparkContext.defaultParallelism
    for first in range(0, len(cases), batch):
        of_batch = cases[first : first + batch]

        def score(frames: Iterator[pd.DataFrame], of_batch: list[Case] = of_batch) -> Iterator[pd.DataFrame]:
            for frame in frames:
                for index in frame["id"]:
                    yield score_case(of_batch[int(index)], settings)

        numbers = spark.range(0, len(of_batch), 1, len(of_batch))
        parts.append(numbers.mapInPandas(score, schema=_ROW_DDL).toPandas())
        progress(first + len(of_batch))
    return pd.concat(parts, ignore_index=True)


def score_case(case: Case, settings: TreeSettings) -> pd.DataFrame:
    """Returns the rows of one case, for the methods that need no Spark."""
    counts = count_case(case)
    rows = []
    for place in range(len(counts.shop.market.scopes)):
        frame, features = counts.of_scope(place, counts.place_effects), counts.features_of_scope(place)
        planted = PlantedScope.of(counts, place)
        for method in _IN_TASK:
            started = time.monotonic()
            formed = form_scope_groups(frame, features, settings, method)
            seconds = time.monotonic() - started
            rows.append(_row(case, method, score_groups(planted, frame, formed, settings), seconds))
    return pd.DataFrame(rows)


def bench_kmeans(spark: SparkSession, cases: list[Case], settings: TreeSettings) -> pd.DataFrame:
    """Returns the same rows for Spark MLlib's k-means, which is driven from outside a task."""
    rows = []
    for case in cases:
        counts = count_case(case)
        for place in range(len(counts.shop.market.scopes)):
            frame, features = counts.of_scope(place, counts.place_effects), counts.features_of_scope(place)
            started = time.monotonic()
            clusters = _clusters(spark, frame, features, settings)
            formed = form_scope_groups(frame.merge(clusters, on=["scope", "cell"]), features, settings, "kmeans")
            seconds = time.monotonic() - started
            score = score_groups(PlantedScope.of(counts, place), frame, formed, settings)
            rows.append(_row(case, "kmeans", score, seconds))
    return pd.DataFrame(rows)


def _clusters(
    spark: SparkSession, counts: pd.DataFrame, features: pd.DataFrame, settings: TreeSettings
) -> pd.DataFrame:
    frames: list[DataFrame] = [spark.createDataFrame(frame) for frame in (counts, features)]
    return pd.DataFrame(cluster_cells(frames[0], frames[1], settings).toPandas())


def _row(case: Case, method: str, score: dict[str, Any], seconds: float) -> dict[str, Any]:
    keys = {"condition": case.condition, "market": case.market, "seed": case.seed, "clicks_wanted": case.clicks_wanted}
    told = {name: score[name] for name in SCORE_COLUMNS}
    return {**keys, "scope": score["scope"], "kind": score["kind"], "method": method, **told, "seconds": seconds}
