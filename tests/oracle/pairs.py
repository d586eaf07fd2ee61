"""Preference pairs from Gamma posteriors, by dictionaries.

Written from the documented rules of the pipeline, not from its code.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

from tests.oracle.special import regularised_incomplete_beta


@dataclass(frozen=True)
class Comparison:
    """Two creatives of a product in a group (None: the scope's root), the more probably better one chosen."""

    scope: str
    group_id: str | None
    product_id: str
    chosen_creative_id: str
    rejected_creative_id: str
    chosen_better_probability: float
    log_rate_ratio: float


def compare_creatives(
    scope: str, posterior_of: dict[tuple[str | None, str], tuple[float, float]], product_of: dict[str, str]
) -> list[Comparison]:
    """Returns every two creatives of a product that a group was shown.

    Args:
        scope: the scope.
        posterior_of: (shape, rate) of each (group, creative) shown.
        product_of: product of each creative.
    """
    shown = defaultdict(list)
    for group, creative in posterior_of:
        shown[group, product_of[creative]].append(creative)
    comparisons = []
    for (group, product), creatives in shown.items():
        for first, second in combinations(sorted(creatives), 2):
            probability = better_probability(posterior_of[group, first], posterior_of[group, second])
            chosen, rejected = (first, second) if probability >= 0.5 else (second, first)
            mean_of = {name: posterior_of[group, name][0] / posterior_of[group, name][1] for name in (first, second)}
            log_ratio = math.log(mean_of[chosen] / mean_of[rejected])
            sureness = max(probability, 1 - probability)
            comparisons.append(Comparison(scope, group, product, chosen, rejected, sureness, log_ratio))
    return comparisons


def better_probability(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Returns P(x > y) of two Gammas (shape, rate): 1 - I_z(shape of x, shape of y), z = rate of x over both rates."""
    (shape, rate), (other_shape, other_rate) = first, second
    return 1 - regularised_incomplete_beta(shape, other_shape, rate / (rate + other_rate))


def is_kept(comparison: Comparison, min_probability: float) -> bool:
    """Whether the order is sure enough, and the means stand in it too."""
    return comparison.chosen_better_probability >= min_probability and comparison.log_rate_ratio > 0


def find_contradictions(kept: list[Comparison]) -> set[Comparison]:
    """Returns the pairs whose two creatives stand the other way round in another group of the scope; never a root's."""
    orders = {(pair.scope, pair.chosen_creative_id, pair.rejected_creative_id) for pair in kept if pair.group_id}
    return {
        pair
        for pair in kept
        if pair.group_id and (pair.scope, pair.rejected_creative_id, pair.chosen_creative_id) in orders
    }
