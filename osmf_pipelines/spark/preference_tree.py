"""Adaptive grouping of one scope: cuts users where tastes differ, joins leaves that do not (numpy; no Spark).

The model and its test are in `preference_model`, the text of rules in `preference_rules`, other ways to group in
`baseline_groups`, the way to and from Spark in `group`. A cut divides the values of one attribute in two. Its evidence
is the difference of taste between the sides, product levels refitted on each, so that activity and exposure are no
evidence.

Shapes: `N` cells.

Source: this project's own design (5.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osmf_pipelines.spark.grouping import Grouping, make_grouping
from osmf_pipelines.spark.preference_cuts import ScopeCounts, TreeSettings, TriedCuts, sum_bins, try_cuts
from osmf_pipelines.spark.preference_model import (
    PreferenceFit,
    difference_test,
    fit_preference,
)
from osmf_pipelines.spark.preference_rules import Box, CellAttributes, bin_cells, restrict_box, write_rule


@dataclass(frozen=True)
class _Node:
    is_member: NDArray[np.bool_]  # (N,)
    box: Box


def grow_groups(counts: ScopeCounts, settings: TreeSettings) -> Grouping:
    """Returns the groups of a scope: as many as its data can tell apart.

    One group comes out, without an error, where there is one creative a product, one cell, no click, or where the
    features are constant or missing.
    """
    weights = np.bincount(counts.cell_of, counts.impressions, len(counts.cells)).astype(np.float64)
    attributes = bin_cells(counts.cells, weights, settings.max_values)
    leaves: list[_Node] = []
    pending = [_Node(np.ones(len(counts.cells), dtype=bool), attributes.everything)]
    num_cuts_tried = 0
    while pending:
        node = pending.pop()
        sides, num_tried = _cut(counts, attributes, node, settings)
        num_cuts_tried += num_tried
        pending.extend(sides)
        if not sides:
            leaves.append(node)
    groups = _merge_leaves(counts, leaves, settings)
    group_of_cell = np.zeros(len(counts.cells), dtype=np.int64)
    for index, group in enumerate(groups):
        for leaf in group:
            group_of_cell[leaf.is_member] = index
    return make_grouping(
        counts,
        group_of_cell,
        [write_rule(attributes, [leaf.box for leaf in group]) for group in groups],
        num_cuts_tried=num_cuts_tried,
        num_cuts_accepted=len(leaves) - 1,
        num_merges=len(leaves) - len(groups),
    )


def _cut(
    counts: ScopeCounts, attributes: CellAttributes, node: _Node, settings: TreeSettings
) -> tuple[list[_Node], int]:
    """The two sides of the most significant cut of `node`, or nothing where none is; and the number of cuts tried."""
    tried = {}
    preference, num_clicks = None, 0.0
    for attribute, bins in enumerate(attributes.bins):
        sums = sum_bins(counts, np.where(node.is_member, attributes.codes[attribute], -1), len(bins))
        if preference is None:
            totals = (values.sum(axis=0, keepdims=True) for values in (sums.impressions, sums.clicks))
            preference, num_clicks = fit_preference(counts.design, *totals).preference, sums.clicks.sum()
        cuts = try_cuts(counts.design, sums, preference, settings)
        if len(cuts.statistics):
            tried[attribute] = cuts
    if not tried:
        return [], 0
    num_tried = sum(len(cuts.statistics) for cuts in tried.values())
    log_p_value, _, attribute, is_left_bin = min(
        (_best(attribute, cuts) for attribute, cuts in tried.items()), key=lambda best: best[:3]
    )
    if log_p_value + np.log(len(tried)) >= np.log(settings.level(num_clicks)):
        return [], num_tried
    is_left = is_left_bin[attributes.codes[attribute]]
    left_bins = frozenset(np.flatnonzero(is_left_bin).tolist())
    return [
        _Node(node.is_member & is_left, restrict_box(node.box, attribute, left_bins)),
        _Node(node.is_member & ~is_left, restrict_box(node.box, attribute, node.box[attribute] - left_bins)),
    ], num_tried


def _best(attribute: int, cuts: TriedCuts) -> tuple[float, float, int, NDArray[np.bool_]]:
    at = np.lexsort((-cuts.statistics, cuts.log_p_values))[0]
    return float(cuts.log_p_values[at]), -float(cuts.statistics[at]), attribute, cuts.memberships[at]


def _merge_leaves(counts: ScopeCounts, leaves: list[_Node], settings: TreeSettings) -> list[list[_Node]]:
    """Groups of leaves: the two that differ least are joined until all pairs differ."""
    groups = [[leaf] for leaf in leaves]
    leaf_of_cell = np.zeros(len(counts.cells), dtype=np.int64)
    for index, leaf in enumerate(leaves):
        leaf_of_cell[leaf.is_member] = index
    sums = [counts.sum_rows(values, leaf_of_cell, len(leaves)) for values in (counts.impressions, counts.clicks)]
    fit = fit_preference(counts.design, *sums)
    while len(groups) > 1:
        first, second = np.triu_indices(len(groups), 1)
        log_p_values, statistics = difference_test(_take(fit, first), _take(fit, second))
        at = np.lexsort((statistics, -log_p_values))[0]
        into, gone = int(first[at]), int(second[at])
        num_clicks = sums[1][[into, gone]].sum()
        if log_p_values[at] + np.log(len(first)) < np.log(settings.level(num_clicks)):
            break
        groups[into] = groups[into] + groups.pop(gone)
        for values in sums:
            values[into] += values[gone]
        sums = [np.delete(values, gone, axis=0) for values in sums]
        joined = fit_preference(counts.design, *(values[into : into + 1] for values in sums))
        preference, information = (np.delete(v, gone, axis=0) for v in (fit.preference, fit.information))
        preference[into], information[into] = joined.preference[0], joined.information[0]
        fit = PreferenceFit(preference, information)
    return groups


def _take(fit: PreferenceFit, indices: NDArray[np.intp]) -> PreferenceFit:
    return PreferenceFit(fit.preference[indices], fit.information[indices])
