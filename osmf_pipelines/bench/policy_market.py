"""A simulated market whose policies have an exact value: chosen by the logs of a day, worth what the next day says.

Valuing them from logs belongs in `off_policy.py`.

Shapes: `P` products, `K` creatives of each, `V` users of the market, `G` most groups of a scope and its root, `S` most
segments of a scope, `N` impressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_models.evaluation.off_policy import Array
from osmf_models.simulator.draws import Index
from osmf_models.simulator.events import Shop, open_shop, rates_of_day, segments_of_users
from osmf_models.simulator.market import Market
from osmf_models.simulator.serving import UNIFORM, Policy, serve_day
from osmf_models.simulator.truth import MAX_CLICK_RATE
from osmf_pipelines.bench.grouping import START
from osmf_pipelines.bench.market_counts import MarketCounts, cell_of_users, count_market
from osmf_pipelines.spark.ctr import rate_scope
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.scope_groups import form_scope_groups

LOGGING_POLICIES = {"uniform": UNIFORM, "epsilon greedy": Policy("epsilon_greedy", 0.2)}
_ACTIVITY_SPREAD = 1.0  # of the log of how many impressions a user is expected to have


@dataclass(frozen=True)
class Choices:
    """Policies, and what they are made of.

    Attributes:
        group_of_user: place of each user's group in the scope of each product's, root 0, (V, P).
        best_for_all: number of the creative of each product, (P,).
        best_per_group: the same in each group, (P, G).
        rates: predicted click rates at position 1, (P, G, K).
        examination: predicted factor of each position.
        propensities: of the logging policy, (P, K).
    """

    group_of_user: NDArray[np.int16]
    best_for_all: Index
    best_per_group: Index
    rates: Array
    examination: Array
    propensities: Array


@dataclass(frozen=True)
class Truth:
    """What happens, exactly.

    Attributes:
        rates: at position 1 of each creative in each segment of its scope, (P, K, S).
        segment_of_user: place of each user's segment in the scope of each product, (V, P).
        factors: of each user's click rates, (V,).
        examination: by position.
        popularity: share of impressions by product, (P,).
        worth: clicks that an impression brings where the users of a group are shown a creative, (P, G, K).
    """

    rates: Array
    segment_of_user: NDArray[np.int16]
    factors: Array
    examination: Array
    popularity: Array
    worth: Array

    def value(self, policy: Index) -> float:
        """Returns the clicks an impression that a policy earns, (P, G) numbers of creatives."""
        return float(np.take_along_axis(self.worth, policy[..., None], axis=2).sum())

    def logging_value(self, propensities: Array) -> float:
        """Returns the same of the logging policy."""
        return float((self.worth * propensities[:, None, :]).sum())


def choose(
    market: Market,
    policy: Policy,
    seed: int,
    impressions: int,
    groups: Mapping[str, list[list[str]]] | None = None,
) -> tuple[Choices, Truth]:
    """Returns policies chosen by one day's logs, and the truth of the next.

    Args:
        market: whose users are sampled.
        policy: what shows pictures.
        seed: of the logs.
        impressions: of the day by which policies are chosen.
        groups: cells of each group by scope, in the order that numbers them; None forms them from the day's clicks.
    """
    shop = open_shop(market, seed, START, impressions)
    counts = count_market(shop, UNIFORM, 1)
    rates = rates_of_day(shop, 1)
    shape = (len(market.products), market.num_creatives_per_product)
    shown, clicked = (
        np.bincount(counts.rows.creative, values, len(rates)).reshape(shape).astype(float)
        for values in (counts.rows.num_impressions, counts.rows.num_clicks)
    )
    serving = serve_day(policy, rates, len(market.examination), shown, clicked)
    choices = _choices(counts, serving.propensities[:, 0], groups)
    return choices, _truth(shop, rates, choices)


def _choices(counts: MarketCounts, propensities: Array, groups: Mapping[str, list[list[str]]] | None) -> Choices:
    shop, effects = counts.shop, counts.place_effects
    market = shop.market
    users = np.arange(market.population.num_users)
    cell_of_user = cell_of_users(market.population, users)
    by_scope = []
    for place, scope in enumerate(market.scopes):
        rows = counts.of_scope(place, effects)
        if groups is None:
            formed = form_scope_groups(rows, counts.features_of_scope(place), TreeSettings(), "adaptive")
            cells = formed["cells"][~formed["is_scope_root"]].tolist()
        else:
            cells = groups.get(scope.name, [])
        by_scope.append(_rates_of_scope(rows, cells, counts))
    num_groups = max(len(rates) for _, rates in by_scope)
    num_creatives = market.num_creatives_per_product
    rates = np.full((len(market.products), num_groups, num_creatives), -1.0)
    group_of_user = np.zeros((len(users), len(market.products)), np.int16)
    for product, scope in enumerate(shop.scope_of_product):
        group_of_cell, of_scope = by_scope[scope]
        columns = slice(product * num_creatives, (product + 1) * num_creatives)
        rates[product, : len(of_scope)] = of_scope[:, columns]
        group_of_user[:, product] = group_of_cell[cell_of_user]
    for_all = rates[:, 0].argmax(axis=1)
    per_group = np.where(rates.max(axis=2) < 0, for_all[:, None], rates.argmax(axis=2))
    examination = [effects.examination_rates["default", 1 + place] for place in range(len(market.examination))]
    return Choices(group_of_user, for_all, per_group, np.maximum(rates, 0.0), np.array(examination), propensities)


def _rates_of_scope(rows: pd.DataFrame, groups: list[list[str]], counts: MarketCounts) -> tuple[Index, Array]:
    """Place of each cell's group, and predicted rates of all creatives in each, root first; -1 where never shown."""
    group_of = {cell: 1 + index for index, cells in enumerate(groups) for cell in cells}
    inside = rows.assign(group_id=rows["cell"].map(group_of)).dropna(subset=["group_id"])
    names = ["num_impressions", "num_clicks", "effective_millis"]
    keys = ["scope", "group_id", "product_id", "creative_id", "is_fitted"]
    rates = np.full((1 + len(groups), len(counts.creative_ids)), -1.0)
    if inside.empty:
        return np.zeros(len(counts.cells), np.int64), rates
    rated = rate_scope(inside.groupby(keys, as_index=False)[names].sum())
    group = np.array([0 if row.is_scope_root else int(row.group_id) for row in rated.itertuples()])
    rates[group, pd.Index(counts.creative_ids).get_indexer(rated["creative_id"])] = rated["ctr_rate"]
    return np.array([group_of.get(cell, 0) for cell in counts.cells]), rates


def _truth(shop: Shop, rates: Array, choices: Choices) -> Truth:
    market = shop.market
    users = np.arange(market.population.num_users)
    num_products, num_groups, num_creatives = choices.rates.shape
    factors, examination = market.population.click_factors(users), np.asarray(market.examination)
    popularity = np.diff(shop.popularity, prepend=0.0)
    of_scope = [
        segments_of_users(market, users, np.full(len(users), scope)).astype(np.int16)
        for scope in range(len(market.scopes))
    ]
    segment_of_user = np.stack([of_scope[scope] for scope in shop.scope_of_product], axis=1)
    by_product = rates.reshape(num_products, num_creatives, -1)
    worth = np.zeros(choices.rates.shape)
    for product in range(num_products):
        of_user = np.minimum(by_product[product][:, segment_of_user[:, product]] * factors, MAX_CLICK_RATE)
        for number in range(num_creatives):
            worth[product, :, number] = np.bincount(choices.group_of_user[:, product], of_user[number], num_groups)
        worth[product] *= popularity[product] * examination.mean() / len(users)
    return Truth(by_product, segment_of_user, factors, examination, popularity, worth)


@dataclass(frozen=True)
class Logs:
    """The impressions of one replication, each field (N,); `user` counts the users drawn, from 0."""

    user: Index
    product: Index
    group: Index
    creative: Index
    position: Index
    propensity: Array
    is_clicked: NDArray[np.bool_]


def draw_logs(truth: Truth, choices: Choices, num_users: int, impressions: int, rng: np.random.Generator) -> Logs:
    """Returns what users drawn from the market are shown and click, of `impressions` on average."""
    drawn = rng.integers(0, len(truth.factors), num_users)
    activity = np.exp(_ACTIVITY_SPREAD * rng.standard_normal(num_users) - _ACTIVITY_SPREAD**2 / 2)
    user = np.repeat(np.arange(num_users), rng.poisson(activity * impressions / num_users))
    who, product = drawn[user], np.searchsorted(np.cumsum(truth.popularity)[:-1], rng.random(len(user)), side="right")
    bounds = np.cumsum(choices.propensities, axis=1)[:, :-1]
    creative = (rng.random(len(user))[:, None] >= bounds[product]).sum(axis=1)
    position = rng.integers(0, len(truth.examination), len(user))
    rate = truth.rates[product, creative, truth.segment_of_user[who, product]] * truth.factors[who]
    is_clicked = rng.random(len(user)) < np.minimum(rate, MAX_CLICK_RATE) * truth.examination[position]
    group, propensity = choices.group_of_user[who, product].astype(np.int64), choices.propensities[product, creative]
    return Logs(user, product, group, creative, position, propensity, is_clicked)
