"""The groups of a scope, whichever way they were formed (numpy; no Spark).

The adaptive way is in `preference_tree`, the baselines are in `baseline_groups`; what is told of groups belongs in
`scope_groups`.

Shapes: `N` cells, `G` groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from osmf_pipelines.spark.preference_cuts import ScopeCounts
from osmf_pipelines.spark.preference_model import Indices, fit_preference, log_likelihood

GroupingMethod = Literal["adaptive", "one_group", "attribute_cross", "kmeans"]


@dataclass(frozen=True)
class Grouping:
    """The groups of a scope.

    Attributes:
        group_of_cell: index of each cell's group, (N,).
        rules: text of each group's rule, sorted, (G,).
        num_cuts_tried, num_cuts_accepted, num_merges: how the adaptive groups came about; 0 in a baseline.
        heldout_gain_per_1000: log-likelihood per 1000 effective impressions of held-out users, tastes of their groups
            against one taste for the scope; 0 where there is one group or nobody is held out.
    """

    group_of_cell: Indices
    rules: tuple[str, ...]
    num_cuts_tried: int
    num_cuts_accepted: int
    num_merges: int
    heldout_gain_per_1000: float


def make_grouping(
    counts: ScopeCounts,
    group_of_cell: Indices,
    rules: list[str],
    *,
    num_cuts_tried: int = 0,
    num_cuts_accepted: int = 0,
    num_merges: int = 0,
) -> Grouping:
    """Returns the groups in the order of their rules, judged on the held-out users.

    Args:
        counts: of the scope.
        group_of_cell: index into `rules` of each cell's group, (N,).
        rules: text of each group's rule, in any order, (G,).
        num_cuts_tried: cuts tested.
        num_cuts_accepted: cuts made.
        num_merges: leaves joined again.
    """
    order = sorted(range(len(rules)), key=lambda group: rules[group])
    position = np.empty(len(rules), dtype=np.int64)
    position[order] = np.arange(len(rules))
    return Grouping(
        position[group_of_cell],
        tuple(rules[group] for group in order),
        num_cuts_tried,
        num_cuts_accepted,
        num_merges,
        heldout_gain_per_1000=_heldout_gain(counts, position[group_of_cell], len(rules)),
    )


def _heldout_gain(counts: ScopeCounts, group_of_cell: Indices, num_groups: int) -> float:
    """Gain of the groups' tastes over one taste, on held-out users, per 1000 effective impressions."""
    if num_groups == 1 or not counts.heldout_impressions.any():
        return 0.0
    shown, clicked = (counts.sum_rows(v, group_of_cell, num_groups) for v in (counts.impressions, counts.clicks))
    heldout_shown, heldout_clicked = (
        counts.sum_rows(v, group_of_cell, num_groups) for v in (counts.heldout_impressions, counts.heldout_clicks)
    )
    own = fit_preference(counts.design, shown, clicked).preference
    shared = fit_preference(counts.design, shown.sum(0, keepdims=True), clicked.sum(0, keepdims=True)).preference
    gain = log_likelihood(counts.design, heldout_shown, heldout_clicked, own) - log_likelihood(
        counts.design, heldout_shown, heldout_clicked, shared
    )
    return float(gain.sum() * 1000 / heldout_shown.sum())
