"""What groups of one simulated scope are worth, against the segments that were planted in it.

Forming them belongs in `spark/scope_groups.py`, running many scopes in `grouping.py`.

Shapes: `N` cells, `S` segments, `C` creatives of the scope, `G` groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_models.simulator.events import rates_of_day
from osmf_models.simulator.market import segment_shares_of
from osmf_pipelines.bench.market_counts import MarketCounts
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
        creative_ids: of all products, sorted by product, (C,).
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
        scope = market.scopes[place]
        names = [segment.name for segment in scope.segments]
        shares = {}
        for cell in np.flatnonzero(counts.cell_users[place]):
            found = segment_shares_of(market, scope.name, counts.cells[cell])
            shares[counts.cells[cell]] = np.array([found.get(name, 0.0) for name in names])
        rows = counts.scope_of_creative == place
        rates = np.mean([rates_of_day(counts.shop, day)[rows] for day in range(counts.num_days)], axis=0)
        product_of = np.unique(counts.product_ids[rows], return_inverse=True)[1]
        return cls(scope.name, scope.kind, shares, counts.creative_ids[rows], product_of, rates[:, : len(names)])


def score_groups(
    planted: PlantedScope, counts: pd.DataFrame, formed: pd.DataFrame, settings: TreeSettings
) -> dict[str, Any]:
    """Returns what is told of one scope and one way to form groups, by the names of the report.

    Cells belong to the segment that most of their users are in. `adjusted_rand_index` is weighted by users, over the
    cells of segments that keep the floors; NaN where fewer than two of them do.

    Args:
        planted: the truth.
        counts: of the scope, as the groups were formed from.
        formed: the groups.
        settings: floors of a group.
    """
    groups = formed[~formed["is_scope_root"]]
    group_of = {cell: group for group, cells in zip(groups["group_id"], groups["cells"], strict=True) for cell in cells}
    by_cell = counts.groupby("cell").agg(num_users=("num_users", "first"), num_clicks=("num_clicks", "sum"))
    by_cell = by_cell[by_cell.index.isin(group_of)]
    users, clicks = (by_cell[name].to_numpy(dtype=float) for name in ("num_users", "num_clicks"))
    segment = np.array([planted.segment_shares[cell].argmax() for cell in by_cell.index])
    group = pd.factorize(by_cell.index.map(group_of), sort=True)[0]
    keeps = (np.bincount(segment, users) >= settings.min_users) & (np.bincount(segment, clicks) >= settings.min_clicks)
    kept = keeps[segment]
    return {
        "scope": planted.name,
        "kind": planted.kind,
        "num_clicks": int(clicks.sum()),
        "num_users": int(users.sum()),
        "num_segments": int(keeps.sum()),
        "num_groups": len(groups),
        "adjusted_rand_index": adjusted_rand_index(segment[kept], group[kept], users[kept]),
        "heldout_gain_per_1000": float(groups["heldout_gain_per_1000"].max()),
        "heldout_impressions": float(counts["heldout_millis"].sum() / 1000),
        "ctr_share_of_oracle": ctr_share_of_oracle(planted, counts, group_of),
    }


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


def ctr_share_of_oracle(planted: PlantedScope, counts: pd.DataFrame, group_of: dict[str, str]) -> float:
    """Returns the true click rate of showing each user the creative that looks best in their group, against the best.

    The best is what each user's own segment likes best, product by product; users and products weigh alike. Looking
    best goes by the posterior mean rate of `group_ctr`.
    """
    rows = counts.assign(group_id=counts["cell"].map(group_of)).dropna(subset=["group_id"])
    sums = rows.groupby(["scope", "group_id", "product_id", "creative_id"], as_index=False).agg(
        num_impressions=("num_impressions", "sum"),
        num_clicks=("num_clicks", "sum"),
        effective_millis=("effective_millis", "sum"),
        is_fitted=("is_fitted", "first"),
    )
    rated = rate_scope(sums)
    rated = rated[~rated["is_scope_root"]].sort_values(["ctr_rate", "creative_id"], ascending=[False, True])
    picks = rated.drop_duplicates(["group_id", "product_id"])
    place = {creative: index for index, creative in enumerate(planted.creative_ids)}
    users: dict[str, Array] = {}
    for cell, num_users in rows.groupby("cell")["num_users"].first().items():
        group = group_of[str(cell)]
        users[group] = users.get(group, 0.0) + num_users * planted.segment_shares[str(cell)]
    picked = sum(
        float(planted.rates[place[creative]] @ users[group])
        for group, creative in zip(picks["group_id"], picks["creative_id"], strict=True)
    )
    num_products = planted.product_of.max() + 1
    best = np.full((num_products, planted.rates.shape[1]), -np.inf)
    np.maximum.at(best, planted.product_of, planted.rates)
    return picked / float((best @ sum(users.values())).sum())


def _num_pairs(counts: Array) -> float:
    return float((counts * (counts - 1) / 2).sum())
