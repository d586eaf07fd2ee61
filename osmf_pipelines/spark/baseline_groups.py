"""Groups of one scope without the adaptive tree: what its groups have to beat (numpy; no Spark).

K-means itself runs in Spark's MLlib, in `kmeans_groups`; its vectors and its rules are here. What is told of groups is
the same for every way to form them, in `scope_groups`.

Shapes: `N` cells, `d` features.

Source: this project's own design (5.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osmf_pipelines.spark.grouping import Grouping, make_grouping
from osmf_pipelines.spark.preference_cuts import ScopeCounts, TreeSettings
from osmf_pipelines.spark.preference_model import Array, Indices, fit_preference, score_and_information
from osmf_pipelines.spark.preference_rules import (
    UNDIVIDED_RULE,
    Box,
    bin_cells,
    restrict_box,
    write_cell_list_rule,
    write_rule,
)

_TASTE_PRIOR_CLICKS = 10.0  # tastes vary by about 0.3 per standard deviation of a feature


def keep_one_group(counts: ScopeCounts, settings: TreeSettings) -> Grouping:
    """Returns the scope as one group, with the rule and hence the id of a scope that the tree does not cut."""
    return make_grouping(counts, np.zeros(len(counts.cells), dtype=np.int64), [UNDIVIDED_RULE])


def cross_attributes(counts: ScopeCounts, settings: TreeSettings) -> Grouping:
    """Returns crosses of attribute values, as fine as the floors let, without a look at who clicked what.

    Attributes are taken in alphabetical order; each divides every group so far into its values. Within a group, values
    under a floor share one part; if still under a floor, that part joins the sibling with the fewest users. A group
    with fewer than two parts is not divided by this attribute. The floors are `min_users` and as many impressions as
    bring `min_clicks` at the click rate of the whole scope.
    """
    attributes = bin_cells(counts.cells, counts.cell_users.astype(np.float64), settings.max_values)
    shown = np.bincount(counts.cell_of, counts.impressions, len(counts.cells))
    amounts = np.stack([counts.cell_users, shown * counts.clicks.sum() / max(shown.sum(), 1.0)])
    floors = np.array([[settings.min_users], [settings.min_clicks]])
    groups = [_Cross(np.ones(len(counts.cells), dtype=bool), attributes.everything)]
    for attribute, codes in enumerate(attributes.codes):
        groups = [part for group in groups for part in _divide(group, attribute, codes, amounts, floors)]
    group_of_cell = np.zeros(len(counts.cells), dtype=np.int64)
    for index, group in enumerate(groups):
        group_of_cell[group.is_member] = index
    return make_grouping(counts, group_of_cell, [write_rule(attributes, [group.box]) for group in groups])


def cell_tastes(counts: ScopeCounts) -> Array:
    """Returns by how much each cell's preference vector differs from the scope's, shrunk towards 0, (N, d).

    One Newton step from the scope's preference with a prior worth 10 clicks: the covariance of the cell's clicks with
    the standardised features, relative to its level of each product, in units of that covariance's own information.
    A cell without clicks is 0.
    """
    num_cells, d = len(counts.cells), counts.design.features.shape[1]
    each = np.arange(num_cells)
    shown, clicked = (counts.sum_rows(values, each, num_cells) for values in (counts.impressions, counts.clicks))
    pooled = fit_preference(counts.design, shown.sum(0, keepdims=True), clicked.sum(0, keepdims=True)).preference
    score, information = score_and_information(counts.design, shown, clicked, pooled)
    step = np.linalg.solve(information + _TASTE_PRIOR_CLICKS * np.eye(d), score[..., None])
    return step[..., 0].astype(np.float64)


def join_small_clusters(
    clusters: Indices, vectors: Array, users: Array, clicks: Array, settings: TreeSettings
) -> Indices:
    """Returns the clusters left, numbered anew, when those under a floor have joined the nearest centroid, (N,).

    The cluster with the fewest users goes first; of equals, the one with the smaller number.

    Args:
        clusters: of each cell, (N,).
        vectors: taste of each cell, (N, d).
        users: of each cell, (N,).
        clicks: of each cell, its weight in a centroid, (N,).
        settings: the floors.
    """
    clusters = np.unique(clusters, return_inverse=True)[1]
    while clusters.max() > 0:
        users_of, clicks_of = np.bincount(clusters, users), np.bincount(clusters, clicks)
        small = np.flatnonzero((users_of < settings.min_users) | (clicks_of < settings.min_clicks))
        if len(small) == 0:
            break
        gone = small[np.argmin(users_of[small])]
        sums = np.stack([np.bincount(clusters, clicks * column) for column in vectors.T], axis=1)
        centroids = sums / np.maximum(clicks_of, 1.0)[:, None]
        distances = ((centroids - centroids[gone]) ** 2).sum(axis=1)
        distances[gone] = np.inf
        clusters = np.where(clusters == gone, distances.argmin(), clusters)
        clusters = np.unique(clusters, return_inverse=True)[1]
    return clusters


def group_clusters(counts: ScopeCounts, cluster_of_cell: Indices) -> Grouping:
    """Returns the groups that are these clusters of cells.

    Args:
        counts: of the scope.
        cluster_of_cell: any number for each cell, (N,); the same clusters numbered otherwise are the same groups.
    """
    clusters, group_of_cell = np.unique(cluster_of_cell, return_inverse=True)
    if len(clusters) == 1:
        rules = [UNDIVIDED_RULE]
    else:
        members = [np.flatnonzero(group_of_cell == group) for group in range(len(clusters))]
        rules = [write_cell_list_rule([counts.cells[cell] for cell in cells]) for cells in members]
    return make_grouping(counts, group_of_cell, rules)


@dataclass(frozen=True)
class _Cross:
    is_member: NDArray[np.bool_]  # (N,)
    box: Box


def _divide(group: _Cross, attribute: int, codes: Indices, amounts: Array, floors: Array) -> list[_Cross]:
    """The parts of a group by one attribute, or the group itself.

    Args:
        group: to divide.
        attribute: its index.
        codes: bin of each cell in that attribute, (N,).
        amounts: users and expected clicks of each cell, (2, N).
        floors: of both, (2, 1).
    """
    sums = np.stack([np.bincount(codes, amount * group.is_member) for amount in amounts])
    enough = set(np.flatnonzero((sums >= floors).all(axis=0)).tolist())
    parts = [{code} for code in sorted(group.box[attribute] & enough)]
    rest = set(group.box[attribute] - enough)
    if rest and parts and (sums[:, sorted(rest)].sum(axis=1, keepdims=True) < floors).any():
        smallest = min(parts, key=lambda part: (sums[0, min(part)], min(part)))
        smallest |= rest
    elif rest:
        parts.append(rest)
    if len(parts) < 2:
        return [group]
    return [
        _Cross(group.is_member & np.isin(codes, sorted(part)), restrict_box(group.box, attribute, frozenset(part)))
        for part in parts
    ]
