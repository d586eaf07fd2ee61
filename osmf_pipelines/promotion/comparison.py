"""The difference between two models on the same cases, overall and in the worst group, with intervals.

What follows from it belongs in `gate.py`.

Shapes: `P` products, `G` groups, `R` resamples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from osmf_models.evaluation.resampling import Estimate, product_weights

Case = tuple[str, str, str]  # scope, group_id, product_id


@dataclass(frozen=True)
class Comparison:
    """The differences of two models.

    Attributes:
        overall: of the means over groups.
        worst_group: of the figures of each one's own worst group.
    """

    overall: Estimate
    worst_group: Estimate


def compare(challenger: Mapping[Case, float], champion: Mapping[Case, float]) -> Comparison:
    """Returns how two models differ.

    A group's figure is the mean over its products, and groups count the same. Products are resampled inside their
    scope, both models and all groups together, as in an evaluation; a scope with one product adds no width.

    Args:
        challenger: figure by case; every product of a scope is there for each of its groups.
        champion: the same cases.

    Raises:
        ValueError: when the cases differ or are incomplete.
    """
    if set(challenger) != set(champion) or not challenger or not is_complete(challenger):
        raise ValueError("two models compare on the same cases, each product of a scope for each of its groups.")
    own: list[NDArray[np.float64]] = []
    other: list[NDArray[np.float64]] = []
    for scope in sorted({case[0] for case in challenger}):
        tables = [_table(figures, scope) for figures in (challenger, champion)]
        weights = product_weights([scope] * len(tables[0]), f"comparison {scope}") / len(tables[0])  # (R + 1, P)
        for kept, table in zip((own, other), tables, strict=True):
            kept.append(weights @ table)
    ours, theirs = np.concatenate(own, axis=1), np.concatenate(other, axis=1)  # (R + 1, G)
    return Comparison(Estimate.of(ours.mean(1) - theirs.mean(1)), Estimate.of(ours.min(1) - theirs.min(1)))


def is_complete(cases: Collection[Case]) -> bool:
    """Returns whether every product of a scope is there for each of the scope's groups."""
    products, groups = defaultdict(set), defaultdict(set)
    for scope, group_id, product_id in cases:
        products[scope].add(product_id)
        groups[scope].add(group_id)
    return len(set(cases)) == sum(len(products[scope]) * len(groups[scope]) for scope in products)


def wilson_interval(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the ends of the interval of a share among `count` cases.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    return middle - half, middle + half


def _table(figures: Mapping[Case, float], scope: str) -> NDArray[np.float64]:
    """Returns the figures of one scope, (P, G)."""
    own = {(product, group): value for (one, group, product), value in figures.items() if one == scope}
    products, groups = (sorted({key[i] for key in own}) for i in (0, 1))
    return np.array([[own[product, group] for group in groups] for product in products])
