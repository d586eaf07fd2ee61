"""Planted segments: which users of a scope share a taste, and what that taste is.

What pictures measure and what a click is worth belong in `truth.py`, the two markets in `easy.py` and `realistic.py`.

Shapes: `B` pictures, `M` combinations of attribute values, `S` segments of a scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.scene_features import STYLE_NAMES
from osmf_models.simulator.shapes import Array
from osmf_models.simulator.users import UNKNOWN, Attribute, cell_values, combination_shares, combinations

Kind = Literal["strong", "mild", "agreeing"]
_DRIFT_DAYS = 180.0


@dataclass(frozen=True)
class Taste:
    """Log click rate as a function of the nine styles s, in [-1, 1] each, in the order of `STYLE_NAMES`.

    log lift = offset + (linear + drift · sin(2π t / 180 days)) · s - ½ Σ curvature s² + Σ weight s_i s_j

    Attributes:
        offset: such that creatives drawn at random have a mean lift of about 1.
        linear: slope at the middle of the range.
        curvature: 0 where more is always better or worse; else the taste peaks at linear / curvature.
        interactions: (style, other style, weight).
        drift: how far the slopes swing within half a year.
    """

    offset: float
    linear: tuple[float, ...]
    curvature: tuple[float, ...]
    interactions: tuple[tuple[int, int, float], ...] = ()
    drift: tuple[float, ...] = (0.0,) * len(STYLE_NAMES)

    def scaled(self, factor: float) -> Taste:
        """Returns a taste that makes `factor` times as much of every difference."""
        return Taste(
            factor * self.offset,
            tuple(factor * weight for weight in self.linear),
            tuple(factor * weight for weight in self.curvature),
            tuple((one, other, factor * weight) for one, other, weight in self.interactions),
            tuple(factor * weight for weight in self.drift),
        )

    def log_lift(self, styles: Array, days: float = 0.0) -> Array:
        """Returns the log lift of pictures, (B,), from their styles, (B, 9), `days` after the market's first."""
        linear = np.asarray(self.linear) + np.asarray(self.drift) * np.sin(2 * np.pi * days / _DRIFT_DAYS)
        lift = self.offset + styles @ linear - 0.5 * (styles**2 @ np.asarray(self.curvature))
        for one, other, weight in self.interactions:
            lift = lift + weight * styles[:, one] * styles[:, other]
        return lift


@dataclass(frozen=True)
class Segment:
    """Users of one scope who share a taste.

    Attributes:
        name: of the segment, unique in its scope.
        conditions: (attribute, allowed values) that must all hold.
        taste: of its users.
        score: (attribute, points of each of its values): a rule oblique to the attributes; empty for none.
        min_score: points that a user needs at least.
    """

    name: str
    conditions: tuple[tuple[str, tuple[str, ...]], ...]
    taste: Taste
    score: tuple[tuple[str, tuple[float, ...]], ...] = ()
    min_score: float = 0.0


@dataclass(frozen=True)
class Scope:
    """One product category and the segments of its users.

    Attributes:
        name: of the category.
        kind: how much its segments disagree.
        segments: a user belongs to the first whose rule fits; the last fits everyone.
        softness: share of the users who belong to a segment drawn at random instead.
    """

    name: str
    kind: Kind
    segments: tuple[Segment, ...]
    softness: float = 0.0


@lru_cache(maxsize=64)
def segment_of_combination(scope: Scope, attributes: tuple[Attribute, ...]) -> NDArray[np.int64]:
    """Returns the segment that the rules give to each combination of values, (M,).

    Raises:
        ValueError: when a rule names what is no attribute or value, or no segment fits a combination.
    """
    found = np.full(len(combinations(attributes)), -1)
    for place, segment in enumerate(scope.segments):
        found = np.where((found < 0) & _fits(segment, attributes), place, found)
    if found.min() < 0:
        raise ValueError(f"no segment of scope {scope.name!r} takes every user: let the last have no condition.")
    found.setflags(write=False)
    return found


@lru_cache(maxsize=65_536)
def segment_shares_of_cell(scope: Scope, attributes: tuple[Attribute, ...], cell: str) -> tuple[float, ...]:
    """Returns the expected share of each segment among the users of a cell, (S,).

    A cell is what the shop knows of a user; an `unknown` value stands for all that it may be.

    Raises:
        ValueError: when the cell is not one of this market's.
    """
    fits = np.ones(len(combinations(attributes)), dtype=bool)
    bins = combinations(attributes)
    for place, value in enumerate(cell_values(attributes, cell)):
        if value != UNKNOWN:
            fits &= bins[:, place] == attributes[place].values.index(value)
    weights = combination_shares(attributes) * fits
    num_segments = len(scope.segments)
    shares = np.bincount(segment_of_combination(scope, attributes), weights, num_segments) / weights.sum()
    return tuple(((1 - scope.softness) * shares + scope.softness / num_segments).tolist())


def _fits(segment: Segment, attributes: tuple[Attribute, ...]) -> NDArray[np.bool_]:
    bins = combinations(attributes)
    places = {attribute.name: place for place, attribute in enumerate(attributes)}
    named = [name for name, _ in (*segment.conditions, *segment.score)]
    for name in named:
        if name not in places:
            raise ValueError(f"segment {segment.name!r} has a rule over {name!r}, which is no attribute.")
    fits = np.ones(len(bins), dtype=bool)
    for name, allowed in segment.conditions:
        known = attributes[places[name]].values
        if not set(allowed) <= set(known):
            raise ValueError(f"segment {segment.name!r} has a rule over {name} {allowed}, which has values {known}.")
        fits &= np.isin(bins[:, places[name]], [known.index(value) for value in allowed])
    if segment.score:
        points = [np.asarray(points)[bins[:, places[name]]] for name, points in segment.score]
        fits &= np.sum(points, axis=0) >= segment.min_score - 1e-9
    return fits
