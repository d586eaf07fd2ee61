"""The cuts of one attribute that a node may try, and the evidence for each (numpy).

Which cut wins, and what becomes of the sides, belongs in `preference_tree`.

Shapes: `N` cells, `R` rows of counts, `C` creatives, `V` bins of an attribute, `S` cuts.

Source: this project's own design (5.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from osmf_pipelines.spark.preference_model import (
    Array,
    CreativeDesign,
    Indices,
    PreferenceFit,
    difference_test,
    one_step_shift,
    score_and_information,
)

_MAX_VALUES_FOR_ALL_SUBSETS = 6


@dataclass(frozen=True)
class TreeSettings:
    """When a cut counts.

    Attributes:
        min_users: distinct users on each side; also the privacy floor.
        min_clicks: clicks on each side.
        max_p_value: after correction for the cuts tried; `level` says what becomes of it where there are more clicks.
        max_values: bins of an attribute; rarer values share the last one.
    """

    min_users: int = 50
    min_clicks: int = 200
    max_p_value: float = 0.001
    max_values: int = 32

    def level(self, clicks: Array | float) -> Array:
        """Returns the p-value, corrected, below which two sides with that many clicks together differ.

        It is `max_p_value`, but never more than one in the number of clicks. At a fixed level one segment in a thousand
        would be cut for no reason however much is known of it; one that falls with the evidence, as in information
        criteria (Schwarz 1978), finds the segments there are, and sides that differ are as good as never missed for it.
        """
        return np.minimum(self.max_p_value, 1.0 / np.maximum(clicks, 1.0))


@dataclass(frozen=True)
class ScopeCounts:
    """The evidence of one scope.

    Attributes:
        cells: texts of the cells, sorted, (N,).
        cell_users: users of each cell; they add up over cells, (N,).
        design: the creatives.
        cell_of, creative_of: indices of each row, (R,).
        impressions, clicks: effective impressions and clicks to fit on, (R,).
        heldout_impressions, heldout_clicks: the same of held-out users, to judge the groups by, (R,).
    """

    cells: list[str]
    cell_users: Indices
    design: CreativeDesign
    cell_of: Indices
    creative_of: Indices
    impressions: Array
    clicks: Array
    heldout_impressions: Array
    heldout_clicks: Array

    def sum_rows(self, values: Array, side_of_cell: Indices, num_sides: int) -> Array:
        """Returns the sums of row values per side of its cell and creative, (S, C); side -1 is left out."""
        num_creatives = len(self.design.product_of)
        sides = side_of_cell[self.cell_of]
        is_in = sides >= 0
        flat = sides[is_in] * num_creatives + self.creative_of[is_in]
        sums = np.bincount(flat, weights=values[is_in], minlength=num_sides * num_creatives)
        return sums.astype(np.float64).reshape(num_sides, num_creatives)


@dataclass(frozen=True)
class BinSums:
    """What a node knows of the bins of one attribute: effective impressions and clicks (V, C), users (V,)."""

    impressions: Array
    clicks: Array
    users: Array


@dataclass(frozen=True)
class TriedCuts:
    """The cuts of one attribute that leave enough users and clicks on both sides.

    Attributes:
        log_p_values: of "both sides have the same taste", corrected for the cuts of this attribute, (S,).
        statistics: of the test, to tell p-values of 0 apart, (S,).
        memberships: bins on the left, (S, V).
    """

    log_p_values: Array
    statistics: Array
    memberships: NDArray[np.bool_]


def sum_bins(counts: ScopeCounts, bin_of_cell: Indices, num_bins: int) -> BinSums:
    """Returns the sums per bin; cells with bin -1 are not in the node."""
    is_member = bin_of_cell >= 0
    return BinSums(
        counts.sum_rows(counts.impressions, bin_of_cell, num_bins),
        counts.sum_rows(counts.clicks, bin_of_cell, num_bins),
        np.bincount(bin_of_cell[is_member], counts.cell_users[is_member], num_bins).astype(np.float64),
    )


def try_cuts(design: CreativeDesign, sums: BinSums, preference: Array, settings: TreeSettings) -> TriedCuts:
    """Returns the admissible cuts of one attribute with their evidence; none (S = 0) where no cut is admissible.

    Up to 6 bins with clicks: every division in two. Above: each bin against the rest, and prefixes of an order read
    from the data; since such a prefix was chosen from all divisions, the correction counts all 2^(V-1) - 1 of them.

    Args:
        design: the creatives.
        sums: of the node, by bin of the attribute.
        preference: of the node, (1, d); both sides take one step from it.
        settings: floors of users and clicks.
    """
    active = np.flatnonzero(sums.clicks.sum(axis=1) > 0)
    if len(active) <= _MAX_VALUES_FOR_ALL_SUBSETS:
        memberships = _all_subsets(active, len(sums.users))
    else:
        memberships = _ordered_subsets(design, sums, preference, active)
    clicks_of_bin = sums.clicks.sum(axis=1)
    is_admissible = _smaller_side(memberships, sums.users) >= settings.min_users
    is_admissible &= _smaller_side(memberships, clicks_of_bin) >= settings.min_clicks
    memberships = memberships[is_admissible]
    sides = [
        _step(design, chosen @ sums.impressions, chosen @ sums.clicks, preference)
        for chosen in (memberships.astype(np.float64), (~memberships).astype(np.float64))
    ]
    log_p_values, statistics = difference_test(*sides)
    num_possible = max(2.0 ** (len(active) - 1) - 1, 1.0)
    return TriedCuts(log_p_values + np.log(num_possible), statistics, memberships)


def _smaller_side(memberships: NDArray[np.bool_], amounts: Array) -> Array:
    left = memberships @ amounts
    return np.minimum(left, amounts.sum() - left)


def _step(design: CreativeDesign, impressions: Array, clicks: Array, preference: Array) -> PreferenceFit:
    """One Newton step of each side from the preference of their node."""
    score, information = score_and_information(design, impressions, clicks, preference)
    return PreferenceFit(one_step_shift(score, information), information)


def _all_subsets(active: Indices, num_bins: int) -> NDArray[np.bool_]:
    """Every division of the active bins in two, (S, V); the first active bin and inactive ones stay on the right."""
    others = active[1:]
    picks = [pick for size in range(1, len(others) + 1) for pick in combinations(others.tolist(), size)]
    memberships = np.zeros((len(picks), num_bins), dtype=bool)
    for row, pick in enumerate(picks):
        memberships[row, list(pick)] = True
    return memberships


def _ordered_subsets(design: CreativeDesign, sums: BinSums, preference: Array, active: Indices) -> NDArray[np.bool_]:
    """Each active bin against the rest, and the prefixes of the bins ordered along their main difference, (S, V).

    The order is that of each bin's own step, in units of the node's information, along the principal direction.
    """
    num_bins, num_active = len(sums.users), len(active)
    impressions, clicks = sums.impressions[active], sums.clicks[active]
    score, information = score_and_information(design, impressions, clicks, preference)
    values, vectors = np.linalg.eigh(information.sum(axis=0))
    steps = one_step_shift(score, information) @ vectors * np.sqrt(np.maximum(values, 0.0))
    shares = clicks.sum(axis=1, keepdims=True) / clicks.sum()
    centred = steps - (shares * steps).sum(axis=0)
    _, directions = np.linalg.eigh(centred.T @ (shares * centred))
    order = active[np.argsort(centred @ directions[:, -1], kind="stable")]
    memberships = np.zeros((2 * num_active - 1, num_bins), dtype=bool)
    for row in range(num_active):
        memberships[row, active[row]] = True
    for length in range(1, num_active):
        memberships[num_active + length - 1, order[:length]] = True
    return np.unique(memberships, axis=0)
