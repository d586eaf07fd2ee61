"""What groups of one simulated scope are worth, against the segments that were planted in it.

Forming them belongs in `spark/scope_groups.py`, running many scopes in `grouping.py`.

Shapes: `N` cells, `S` segments, `C` creatives of the scope, `G` groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_models.simulator.drawn import DrawnCreative, drawn_rates, measure_drawn
from osmf_models.simulator.events import open_shop, rates_of_day
from osmf_models.simulator.market import Market, segment_shares_of, with_scopes
from osmf_models.simulator.segments import Scope
from osmf_pipelines.bench.market_counts import MarketCounts, creative_ids, product_ids
from osmf_pipelines.spark.ctr import rate_scope
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.preference_model import design_creatives, log_likelihood

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlantedScope:
    """The truth of one scope.

    Attributes:
        name, kind: of the scope.
        segment_shares: of each cell's users, text to (S,).
        creative_ids: of all products, sorted by product, those that the market did not draw last, (C,).
        product_of: place of each creative's product, (C,).
        rates: true click rates at position 1, mean over days, (C, S).
    """

    name: str
    kind: str
    segment_shares: dict[str, Array]
    creative_ids: NDArray[np.object_]
    product_of: NDArray[np.int64]
    rates: Array

    @classmethod
    def of(cls, counts: MarketCounts, place: int) -> PlantedScope:
        """Returns the truth of a scope by its place in the market."""
        market = counts.shop.market
        scope, rows = market.scopes[place], counts.scope_of_creative == place
        cells = [counts.cells[cell] for cell in np.flatnonzero(counts.cell_users[place])]
        rates = np.mean([rates_of_day(counts.shop, day)[rows] for day in range(counts.num_days)], axis=0)
        product_of = np.unique(counts.product_ids[rows], return_inverse=True)[1]
        shares = _segment_shares(market, scope, cells)
        return cls(
            scope.name, scope.kind, shares, counts.creative_ids[rows], product_of, rates[:, : len(scope.segments)]
        )

    @classmethod
    def of_scope(
        cls,
        market: Market,
        name: str,
        cells: Sequence[str],
        impressions: Mapping[date, int],
        drawn: Sequence[DrawnCreative] = (),
    ) -> PlantedScope:
        """Returns the truth of a scope in logs.

        Args:
            market: the truth.
            name: of the scope.
            cells: of its users.
            impressions: of each day that the logs hold; rates are means weighted by them.
            drawn: creatives of the scope that are not the market's own; their truth is that of their pixels.
        """
        alone, first = with_scopes(market, [name]), min(impressions)
        shop = open_shop(alone, market.seed, first, 1)
        measured = measure_drawn(alone, drawn)
        by_day = [
            np.concatenate([rates_of_day(shop, (day - first).days), drawn_rates(alone, drawn, measured, day)])
            for day in impressions
        ]
        rates = np.average(by_day, axis=0, weights=list(impressions.values()))
        ids = np.array([*creative_ids(alone), *(one.creative_id for one in drawn)], dtype=object)
        products = np.array([*product_ids(alone), *(one.product_id for one in drawn)], dtype=object)
        product_of = np.unique(products, return_inverse=True)[1]
        shares = _segment_shares(market, alone.scopes[0], cells)
        return cls(name, alone.scopes[0].kind, shares, ids, product_of, rates)


def _segment_shares(market: Market, scope: Scope, cells: Sequence[str]) -> dict[str, Array]:
    shares = {}
    for cell in cells:
        found = segment_shares_of(market, scope.name, cell)
        shares[cell] = np.array([found.get(segment.name, 0.0) for segment in scope.segments])
    return shares


def score_groups(
    planted: PlantedScope, counts: pd.DataFrame, formed: pd.DataFrame, settings: TreeSettings
) -> dict[str, Any]:
    """Returns what is told of one scope and one way to form groups, by the names of the report.

    Args:
        planted: the truth.
        counts: of the scope, as the groups were formed from.
        formed: the groups.
        settings: floors of a group.
    """
    groups = formed[~formed["is_scope_root"]]
    group_of = {cell: group for group, cells in zip(groups["group_id"], groups["cells"], strict=True) for cell in cells}
    by_cell = counts.groupby("cell").agg(num_users=("num_users", "first"), num_clicks=("num_clicks", "sum"))
    by_cell = by_cell[by_cell.index.isin(group_of)].assign(group_id=lambda rows: rows.index.map(group_of))
    return {
        "scope": planted.name,
        "kind": planted.kind,
        "num_clicks": int(by_cell["num_clicks"].sum()),
        "num_users": int(by_cell["num_users"].sum()),
        **compare_with_segments(planted, by_cell, settings),
        "num_groups": len(groups),
        "heldout_gain_per_1000": float(groups["heldout_gain_per_1000"].max()),
        "heldout_impressions": float(counts["heldout_millis"].sum() / 1000),
        "ctr_share_of_oracle": ctr_share_of_oracle(planted, _rated(counts, group_of), by_cell),
    }


def compare_with_segments(planted: PlantedScope, by_cell: pd.DataFrame, settings: TreeSettings) -> dict[str, Any]:
    """Returns `num_segments` that keep the floors and the `adjusted_rand_index` of groups against them.

    Cells belong to the segment that most of their users are in. The index is weighted by users, over the cells of
    segments that keep the floors; NaN where fewer than two of them do.

    Args:
        planted: the truth.
        by_cell: group_id, num_users and num_clicks of each cell, which is the index.
        settings: floors of a group.
    """
    users, clicks = (by_cell[name].to_numpy(dtype=float) for name in ("num_users", "num_clicks"))
    segment = np.array([planted.segment_shares[cell].argmax() for cell in by_cell.index])
    group = pd.factorize(by_cell["group_id"], sort=True)[0]
    keeps = (np.bincount(segment, users) >= settings.min_users) & (np.bincount(segment, clicks) >= settings.min_clicks)
    kept = keeps[segment]
    index = adjusted_rand_index(segment[kept], group[kept], users[kept])
    return {"num_segments": int(keeps.sum()), "adjusted_rand_index": index}


def gain_on(counts: pd.DataFrame, features: pd.DataFrame, formed: pd.DataFrame) -> tuple[float, float]:
    """Returns the log-likelihood that group tastes gain over one taste, per 1000 effective impressions, and those.

    Args:
        counts: to judge on, per cell and creative; cells without a group are left out.
        features: of all creatives of the scope.
        formed: groups and root with their preferences, fitted on other clicks.
    """
    groups, root = formed[~formed["is_scope_root"]], formed[formed["is_scope_root"]]
    group_of = {cell: index for index, cells in enumerate(groups["cells"]) for cell in cells}
    rows = counts.assign(group=counts["cell"].map(group_of)).dropna(subset=["group"])
    creatives = rows[["product_id", "creative_id"]].drop_duplicates().sort_values(["product_id", "creative_id"])
    values = features.set_index("creative_id")["feature_values"].reindex(creatives["creative_id"])
    design = design_creatives(pd.factorize(creatives["product_id"])[0], np.stack(values.to_list()))
    creative = pd.Index(creatives["creative_id"]).get_indexer(rows["creative_id"])
    shown, clicked = (np.zeros((len(groups), len(creatives))) for _ in range(2))
    group = rows["group"].to_numpy(dtype=np.int64)
    np.add.at(shown, (group, creative), rows["effective_millis"] / 1000)
    np.add.at(clicked, (group, creative), rows["num_clicks"])
    own, shared = (np.stack(part["preference"].to_list()) * design.scale for part in (groups, root))
    gain = log_likelihood(design, shown, clicked, own) - log_likelihood(design, shown, clicked, shared)
    return float(gain.sum() * 1000 / shown.sum()), float(shown.sum())


def adjusted_rand_index(one: NDArray[np.int64], other: NDArray[np.int64], weights: Array) -> float:
    """Returns the adjusted Rand index of two partitions whose members count `weights` times each.

    1 when they are the same, 0 in the mean over random ones; NaN where a partition has fewer than two parts.

    Source: Hubert and Arabie, "Comparing partitions" (1985).
    """
    if len(np.unique(one)) < 2:
        return float("nan")
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), weights)
    pairs, of_one, of_other = (_num_pairs(part) for part in (table, table.sum(1), table.sum(0)))
    expected = of_one * of_other / _num_pairs(table.sum(keepdims=True))
    return float((pairs - expected) / ((of_one + of_other) / 2 - expected))


def ctr_share_of_oracle(planted: PlantedScope, rated: pd.DataFrame, by_cell: pd.DataFrame) -> float:
    """Returns the true click rate of showing each user the creative that looks best in their group, against the best.

    The best is what each user's own segment likes best, product by product; users and products weigh alike, but that a
    product counts only in groups that were shown it. Looking best goes by the posterior mean rate.

    Args:
        planted: the truth.
        rated: rows of `group_ctr` of the groups.
        by_cell: group_id and num_users of each cell, which is the index.
    """
    ordered = rated.sort_values(["ctr_rate", "creative_id"], ascending=[False, True])
    picks = ordered.drop_duplicates(["group_id", "product_id"])
    place = {creative: index for index, creative in enumerate(planted.creative_ids)}
    users: dict[str, Array] = {}
    for cell, group, num_users in zip(by_cell.index, by_cell["group_id"], by_cell["num_users"], strict=True):
        users[group] = users.get(group, 0.0) + num_users * planted.segment_shares[cell]
    best = np.full((planted.product_of.max() + 1, planted.rates.shape[1]), -np.inf)
    np.maximum.at(best, planted.product_of, planted.rates)
    picked = possible = 0.0
    for group, creative in zip(picks["group_id"], picks["creative_id"], strict=True):
        at = place[creative]
        picked += float(planted.rates[at] @ users[group])
        possible += float(best[planted.product_of[at]] @ users[group])
    return picked / possible


def _rated(counts: pd.DataFrame, group_of: dict[str, str]) -> pd.DataFrame:
    rows = counts.assign(group_id=counts["cell"].map(group_of)).dropna(subset=["group_id"])
    sums = rows.groupby(["scope", "group_id", "product_id", "creative_id"], as_index=False).agg(
        num_impressions=("num_impressions", "sum"),
        num_clicks=("num_clicks", "sum"),
        effective_millis=("effective_millis", "sum"),
        is_fitted=("is_fitted", "first"),
    )
    rated = rate_scope(sums)
    return rated[~rated["is_scope_root"]]


def _num_pairs(counts: Array) -> float:
    return float((counts * (counts - 1) / 2).sum())
