"""One scope, from aggregated counts in pandas to the rows that tell its groups.

How cells are put into groups is in `preference_tree` and `baseline_groups`, the wording in `features`, the way to and
from Spark in `group`.

Shapes: `N` cells, `C` creatives sorted by product, `R` rows of counts, `d` features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from osmf_pipelines.spark.baseline_groups import cell_tastes, cross_attributes, group_clusters, keep_one_group
from osmf_pipelines.spark.features import attribute_shares, describe_group, pick_exemplars
from osmf_pipelines.spark.grouping import Grouping, GroupingMethod
from osmf_pipelines.spark.preference_cuts import ScopeCounts, TreeSettings
from osmf_pipelines.spark.preference_model import Array, Indices, design_creatives, fit_preference
from osmf_pipelines.spark.preference_rules import ROOT_RULE, group_id
from osmf_pipelines.spark.preference_tree import grow_groups

REPORT_COLUMNS = ("num_cuts_tried", "num_cuts_accepted", "num_merges", "heldout_gain_per_1000")
FORMED_GROUPS_DDL = """
    scope string, group_id string, is_scope_root boolean, rule string, cells array<string>,
    num_users bigint, num_impressions bigint, num_clicks bigint,
    feature_names array<string>, preference array<double>, preference_se array<double>,
    attribute_shares map<string,double>, top_creative_ids array<string>, bottom_creative_ids array<string>,
    description string, num_cuts_tried bigint, num_cuts_accepted bigint, num_merges bigint,
    heldout_gain_per_1000 double"""
_COLUMNS = [
    *("scope", "group_id", "is_scope_root", "rule", "cells", "num_users", "num_impressions", "num_clicks"),
    *("feature_names", "preference", "preference_se", "attribute_shares", "top_creative_ids", "bottom_creative_ids"),
    *("description", *REPORT_COLUMNS),
]
CELL_TASTES_DDL = "scope string, cell string, taste array<double>, num_users bigint, num_clicks bigint"
_GROUP_CELLS: Mapping[str, Callable[[ScopeCounts, TreeSettings], Grouping]] = {
    "adaptive": grow_groups,
    "one_group": keep_one_group,
    "attribute_cross": cross_attributes,
}


@dataclass(frozen=True)
class _Scope:
    """One scope's counts, indexed.

    Attributes:
        name: the scope.
        creative_ids: (C,).
        feature_names: (d,).
        cell_impressions, cell_clicks: of all products, (N,).
        counts: of the products fitted on.
        fitted_impressions, fitted_clicks: the same, held-out users included, (R,).
    """

    name: str
    creative_ids: list[str]
    feature_names: list[str]
    cell_impressions: Array
    cell_clicks: Array
    counts: ScopeCounts
    fitted_impressions: Array
    fitted_clicks: Array


def form_scope_groups(
    counts: pd.DataFrame, features: pd.DataFrame, settings: TreeSettings, method: GroupingMethod
) -> pd.DataFrame:
    """Returns the rows of one scope, root first, then groups by rule; none where too few users stand behind the scope.

    Args:
        counts: one row per (cell, product, creative), in any order, as `group` sums them; for `kmeans` with the
            `cluster` of the cell on each.
        features: one row per creative, in any order; creatives may be missing.
        settings: floors of a group, and when a cut counts.
        method: how the groups are formed.
    """
    if _is_under_floor(counts, settings):
        return pd.DataFrame(columns=_COLUMNS)
    scope = _index_scope(counts, features)
    if method == "kmeans":
        cluster_of_cell = counts.groupby("cell", sort=True)["cluster"].first().to_numpy(dtype=np.int64)
        grouping = group_clusters(scope.counts, cluster_of_cell)
    else:
        grouping = _GROUP_CELLS[method](scope.counts, settings)
    return pd.DataFrame(_tell_groups(scope, grouping), columns=_COLUMNS)


def list_cell_tastes(counts: pd.DataFrame, features: pd.DataFrame, settings: TreeSettings) -> pd.DataFrame:
    """Returns the cells of one scope as k-means sees them, in the columns of `CELL_TASTES_DDL`, sorted by cell.

    Clicks are of the products fitted on, without the held-out users. None where too few users stand behind the scope.

    Args:
        counts: as of `form_scope_groups`.
        features: one row per creative, in any order; creatives may be missing.
        settings: floors of a group.
    """
    if _is_under_floor(counts, settings):
        return pd.DataFrame(columns=["scope", "cell", "taste", "num_users", "num_clicks"])
    scope = _index_scope(counts, features)
    cells = scope.counts
    columns = {
        "scope": scope.name,
        "cell": cells.cells,
        "taste": list(cell_tastes(cells)),
        "num_users": cells.cell_users,
        "num_clicks": np.bincount(cells.cell_of, cells.clicks, len(cells.cells)).astype(np.int64),
    }
    return pd.DataFrame(columns)


def _is_under_floor(counts: pd.DataFrame, settings: TreeSettings) -> bool:
    return counts.empty or counts.drop_duplicates("cell")["num_users"].sum() < settings.min_users


def _index_scope(counts: pd.DataFrame, features: pd.DataFrame) -> _Scope:
    counts = counts.sort_values(["cell", "product_id", "creative_id"], ignore_index=True)
    creatives = counts[["product_id", "creative_id"]].drop_duplicates().sort_values(["product_id", "creative_id"])
    creative_index = pd.MultiIndex.from_frame(creatives)
    creative_of = creative_index.get_indexer(pd.MultiIndex.from_frame(counts[["product_id", "creative_id"]]))
    cell_of, cells = pd.factorize(counts["cell"])
    feature_names = list(features.sort_values("creative_id")["feature_names"].iloc[0]) if len(features) else []
    design = design_creatives(
        pd.factorize(creatives["product_id"])[0],
        _feature_matrix(creatives["creative_id"], features, len(feature_names)),
    )
    is_fitted = counts["is_fitted"].to_numpy(dtype=bool)
    fitted = counts[is_fitted]
    impressions, heldout_impressions = (
        fitted[f"{name}_millis"].to_numpy(dtype=float) / 1000 for name in ("effective", "heldout")
    )
    clicks, heldout_clicks = (fitted[name].to_numpy(dtype=float) for name in ("num_clicks", "heldout_clicks"))
    return _Scope(
        name=counts["scope"].iloc[0],
        creative_ids=creatives["creative_id"].tolist(),
        feature_names=feature_names,
        cell_impressions=np.bincount(cell_of, counts["num_impressions"]).astype(np.float64),
        cell_clicks=np.bincount(cell_of, counts["num_clicks"]).astype(np.float64),
        counts=ScopeCounts(
            cells=cells.tolist(),
            cell_users=counts.groupby("cell", sort=True)["num_users"].first().to_numpy(dtype=np.int64),
            design=design,
            cell_of=cell_of[is_fitted],
            creative_of=creative_of[is_fitted],
            impressions=impressions - heldout_impressions,
            clicks=clicks - heldout_clicks,
            heldout_impressions=heldout_impressions,
            heldout_clicks=heldout_clicks,
        ),
        fitted_impressions=impressions,
        fitted_clicks=clicks,
    )


def _feature_matrix(creative_ids: pd.Series, features: pd.DataFrame, num_features: int) -> Array:
    """Features in the order of `creative_ids`, NaN where there are none, (C, d)."""
    known = {
        row.creative_id: np.asarray(row.feature_values, dtype=float)
        for row in features.itertuples()
        if row.feature_values is not None
    }
    missing = np.full(num_features, np.nan)
    rows = [known.get(creative_id, missing) for creative_id in creative_ids]
    return np.array(rows).reshape(len(rows), num_features)


def _tell_groups(scope: _Scope, grouping: Grouping) -> list[tuple[object, ...]]:
    """One row per group in the order of `_COLUMNS`, the root first."""
    counts, num_groups = scope.counts, len(grouping.rules)
    sums = [
        counts.sum_rows(v, grouping.group_of_cell, num_groups) for v in (scope.fitted_impressions, scope.fitted_clicks)
    ]
    impressions, clicks = (np.concatenate([values.sum(axis=0, keepdims=True), values]) for values in sums)
    fit = fit_preference(counts.design, impressions, clicks)
    standard_errors = fit.standard_errors
    members = [np.arange(len(counts.cells))]
    members += [np.flatnonzero(grouping.group_of_cell == group) for group in range(num_groups)]
    scope_shares = attribute_shares(counts.cells, counts.cell_users)
    report = tuple(getattr(grouping, name) for name in REPORT_COLUMNS)
    rows = []
    for index, (rule, cells) in enumerate(zip((ROOT_RULE, *grouping.rules), members, strict=True)):
        texts = [counts.cells[cell] for cell in cells]
        shares = dict.fromkeys(scope_shares, 0.0) | attribute_shares(texts, counts.cell_users[cells], scope_shares)
        preference_z = fit.preference[index] / standard_errors[index]
        rows.append(
            (
                *(scope.name, group_id(scope.name, rule), rule == ROOT_RULE, rule, texts),
                *_volume(scope, cells),
                scope.feature_names,
                (fit.preference[index] / counts.design.scale).tolist(),
                (standard_errors[index] / counts.design.scale).tolist(),
                shares,
                *pick_exemplars(counts.design, scope.creative_ids, impressions[index], clicks[index]),
                describe_group(shares, scope_shares, scope.feature_names, preference_z),
                *report,
            )
        )
    return rows


def _volume(scope: _Scope, cells: Indices) -> tuple[int, int, int]:
    """Distinct users, impressions and clicks behind these cells."""
    amounts = (scope.counts.cell_users, scope.cell_impressions, scope.cell_clicks)
    users, impressions, clicks = (int(amount[cells].sum()) for amount in amounts)
    return users, impressions, clicks
