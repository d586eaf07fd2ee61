"""How well groups are found: simulated scopes with planted segments, each way to form groups, and what came of it.

The scopes go through the very function that forms groups in a refresh, a Spark task for each simulated market; what is
measured of one scope is in `grouping_score.py`, the counts in `market_counts.py`, plots in `plots.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.events import Shop, draw_impressions, open_shop, rates_of_day
from osmf_models.simulator.market import Market, with_scopes
from osmf_models.simulator.realistic import realistic_market
from osmf_models.simulator.serving import UNIFORM, Policy, serve_day
from osmf_pipelines.bench.grouping_score import PlantedScope, gain_on, score_groups
from osmf_pipelines.bench.market_counts import MarketCounts, count_market
from osmf_pipelines.spark.grouping import GroupingMethod
from osmf_pipelines.spark.kmeans_groups import cluster_cells
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.scope_groups import form_scope_groups

FORMAT = "osmf-bench-grouping/1"
START = date(2026, 3, 2)
LEVEL_CLICKS = 10_000
_PILOT_IMPRESSIONS = 20_000
_IN_TASK: tuple[GroupingMethod, ...] = ("adaptive", "one_group", "attribute_cross")
_SEEN_OF_TEN = 7
FormScope = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
"""(counts, features) of one scope → its groups, as `form_scope_groups`."""
UNSEEN_DDL = """condition string, market string, seed int, clicks_wanted int, scope string, kind string, method string,
    unseen_gain_per_1000 double, unseen_impressions double"""
ROW_DDL = """condition string, market string, seed int, clicks_wanted int, scope string, kind string, method string,
    num_clicks bigint, num_users bigint, num_segments int, num_groups int, adjusted_rand_index double,
    heldout_gain_per_1000 double, heldout_impressions double, ctr_share_of_oracle double, seconds double"""


@dataclass(frozen=True)
class PlantedMarket:
    """A market, and what the pipeline sees of its pictures: `make(seed)`, and the name of an encoder."""

    make: Callable[[int], Market]
    encoder: str = "default"


MARKETS = {
    "easy": PlantedMarket(easy_market),
    "realistic": PlantedMarket(realistic_market),
    "realistic, blind": PlantedMarket(realistic_market, "pixels"),
}


@dataclass(frozen=True)
class Condition:
    """Who is shown what, and how much tastes differ.

    Attributes:
        policy: which picture is shown, and where.
        activity: how active users are, by attribute.
        taste_scale: what every weight of a taste is multiplied by; other than 1 in `pair_quality` alone.
        num_days: over which impressions are spread, in `pair_quality` alone.
    """

    policy: Policy
    activity: tuple[tuple[str, tuple[float, ...]], ...] = ()
    taste_scale: float = 1.0
    num_days: int = 1


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


def open_case(case: Case, num_days: int = 1) -> Shop:
    """Returns the shop that brings the clicks wanted within `num_days`."""
    condition = CONDITIONS[case.condition]
    market = MARKETS[case.market].make(case.seed)
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
    encoder = MARKETS[case.market].encoder
    return count_market(open_case(case, num_days), CONDITIONS[case.condition].policy, num_days, encoder)


def plan_cases(markets: Sequence[str], seeds: Sequence[int], clicks: Sequence[int], num_agreeing: int) -> list[Case]:
    """Returns what to simulate: every level of clicks for each market and seed, and scopes that agree for many more."""
    cases = [Case(*one) for one in product(markets, CONDITIONS, seeds, clicks)]
    agreeing = list(range(max(seeds) + 1, max(seeds) + 1 + num_agreeing))
    return cases + [Case("easy", one, seed, LEVEL_CLICKS, ("mug",)) for one, seed in product(CONDITIONS, agreeing)]


def run_cases(
    spark: SparkSession,
    cases: list[Case],
    score: Callable[[Case], pd.DataFrame],
    schema: str,
    progress: Callable[[int], None] = lambda done: None,
) -> pd.DataFrame:
    """Returns the rows of all cases; each case is a task.

    Args:
        spark: session.
        cases: to simulate.
        score: from a case to its rows, columns as `schema`.
        schema: `ROW_DDL` or `UNSEEN_DDL`.
        progress: called with the number of cases done.
    """
    parts, batch = [], 2 * spark.sparkContext.defaultParallelism
    for first in range(0, len(cases), batch):
        of_batch = cases[first : first + batch]

        def run(frames: Iterator[pd.DataFrame], of_batch: list[Case] = of_batch) -> Iterator[pd.DataFrame]:
            for frame in frames:
                for index in frame["id"]:
                    yield score(of_batch[int(index)])

        numbers = spark.range(0, len(of_batch), 1, len(of_batch))
        parts.append(numbers.mapInPandas(run, schema=schema).toPandas())
        progress(first + len(of_batch))
    return pd.concat(parts, ignore_index=True)


def score_case(case: Case, settings: TreeSettings, form: FormScope | None = None) -> pd.DataFrame:
    """Returns one row per scope and method of one case, columns as `ROW_DDL`.

    Args:
        case: to simulate.
        settings: floors of a group.
        form: how groups are formed; None for the methods that need no Spark.
    """
    counts = count_case(case)
    rows = []
    for place in range(len(counts.shop.market.scopes)):
        frame, features = counts.of_scope(place, counts.place_effects), counts.features_of_scope(place)
        planted = PlantedScope.of(counts, place)
        for method, formed, seconds in _formed(frame, features, settings, form):
            score = score_groups(planted, frame, formed, settings)
            rows.append({**vars(case), **score, "method": method, "seconds": seconds})
    return pd.DataFrame(rows)[_columns(ROW_DDL)]


def score_unseen(case: Case, settings: TreeSettings, form: FormScope | None = None) -> pd.DataFrame:
    """Returns one row per scope and method, columns as `UNSEEN_DDL`: groups of earlier days on products never seen.

    Groups and tastes are fitted on seven in ten products of the first of two days, and judged on the others on the
    second, as the evaluation edition of a refresh is.

    Args:
        case: its clicks are those of one day.
        settings: floors of a group.
        form: as of `score_case`.
    """
    shop = open_case(case)
    policy, encoder = CONDITIONS[case.condition].policy, MARKETS[case.market].encoder
    counts = count_market(shop, policy, 2, encoder)
    seen = frozenset(one.product_id for place, one in enumerate(shop.market.products) if place % 10 < _SEEN_OF_TEN)
    earlier, later = counts.of_days(0, 1), counts.of_days(1, 1)
    rows = []
    for place, scope in enumerate(shop.market.scopes):
        frame = earlier.of_scope(place, earlier.place_effects, fitted_products=seen)
        unseen = later.of_scope(place, later.place_effects, fitted_products=seen)
        features = counts.features_of_scope(place)
        for method, formed, _ in _formed(frame, features, settings, form):
            gain, impressions = gain_on(unseen[~unseen["is_fitted"]], features, formed)
            told = {"scope": scope.name, "kind": scope.kind, "method": method}
            rows.append({**vars(case), **told, "unseen_gain_per_1000": gain, "unseen_impressions": impressions})
    return pd.DataFrame(rows)[_columns(UNSEEN_DDL)]


def form_by_kmeans(spark: SparkSession, settings: TreeSettings) -> FormScope:
    """Returns Spark MLlib's k-means, which is driven from outside a task, as a way to form the groups of one scope."""

    def form(counts: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
        frames = [spark.createDataFrame(frame) for frame in (counts, features)]
        clusters = pd.DataFrame(cluster_cells(frames[0], frames[1], settings).toPandas())
        return form_scope_groups(counts.merge(clusters, on=["scope", "cell"]), features, settings, "kmeans")

    return form


def _formed(
    counts: pd.DataFrame, features: pd.DataFrame, settings: TreeSettings, form: FormScope | None
) -> Iterator[tuple[str, pd.DataFrame, float]]:
    """Yields method, groups and seconds."""
    forms: dict[str, FormScope] = {"kmeans": form} if form else {}
    for method in () if form else _IN_TASK:
        forms[method] = partial(form_scope_groups, settings=settings, method=method)
    for name, way in forms.items():
        started = time.monotonic()
        groups = way(counts, features)
        yield name, groups, time.monotonic() - started


def _columns(ddl: str) -> list[str]:
    return [column.split()[0] for column in ddl.split(",")]
