"""The simulated market's users: attributes with marginals and correlations, missing values, activity.

A user is an index; everything about it is a draw keyed by that index, so that forty million of them need no memory.
Which segment a user belongs to belongs in `segments.py`.

Shapes: `N` users asked for, `A` attributes, `M` combinations of attribute values.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.draws import Draws, Index
from osmf_models.simulator.shapes import Array

UNKNOWN = "unknown"
NUM_ACTIVITY_LEVELS = 64
MAX_USERS = 1_000_000_000  # ids have nine digits
_TAIL = 1.6  # exponent of the Pareto law of activity; its top level is 8 times the mean
_NUM_FACTOR_LEVELS = 8
_MAX_ATTEMPTS = 64


@dataclass(frozen=True)
class Attribute:
    """One user attribute.

    Attributes:
        name: of the attribute.
        values: its bins.
        parent: an attribute before it that its distribution depends on, or None.
        probabilities: one row per value of the parent (one row without a parent), one entry per bin.
        missing_share: of the users whose value the shop does not know.
    """

    name: str
    values: tuple[str, ...]
    parent: str | None
    probabilities: tuple[tuple[float, ...], ...]
    missing_share: float = 0.0


@dataclass(frozen=True)
class Population:
    """Who there is.

    Attributes:
        seed: of the draws.
        num_users: user indices run below it.
        attributes: a parent before its children.
        is_heavy_tailed: whether activity follows a Pareto law; else everyone is as active.
        factor_spread: of the log-normal law whose quantiles users' click rates are multiplied by, mean 1.
        activity: (attribute, how active users with each of its values are, relative to each other); factors of several
            attributes multiply.
    """

    seed: int
    num_users: int
    attributes: tuple[Attribute, ...]
    is_heavy_tailed: bool
    factor_spread: float
    activity: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def values(self, users: Index) -> NDArray[np.int64]:
        """Returns the bin of each attribute, (N, A)."""
        draws, places = Draws(self.seed), {one.name: place for place, one in enumerate(self.attributes)}
        bins = np.zeros((len(self.attributes), len(users)), np.int64)
        for place, attribute in enumerate(self.attributes):
            draw = draws.uniform(attribute.name, users)
            bounds = np.cumsum(attribute.probabilities, axis=1)[:, :-1]
            row = 0 if attribute.parent is None else bins[places[attribute.parent]]
            for column in bounds.T:
                bins[place] += draw >= column[row]
        return bins.T

    def is_missing(self, users: Index) -> NDArray[np.bool_]:
        """Returns which values the shop does not know, (N, A)."""
        draws = Draws(self.seed)
        return np.stack(
            [draws.some(f"missing {one.name}", users, one.missing_share) for one in self.attributes], axis=1
        )

    def combination(self, users: Index) -> Index:
        """Returns the place of each user's values in `combinations`, (N,)."""
        sizes = [len(attribute.values) for attribute in self.attributes]
        return np.ravel_multi_index(tuple(self.values(users).T), sizes).astype(np.int64)

    def active_users(self, draws: Draws, numbers: Index) -> Index:
        """Returns which user is behind each impression number: heavy-tailed, where the population is.

        Where attributes make active, a user is drawn again until one comes that is active enough, at most 64 times.
        """
        users, places = self._any_users(draws, numbers, ""), np.arange(len(numbers) if self.activity else 0)
        for attempt in range(_MAX_ATTEMPTS):
            is_idle = draws.uniform(f"idle {attempt}", numbers[places]) >= self._relative_activity(users[places])
            places = places[is_idle]
            if len(places) == 0:
                break
            users[places] = self._any_users(draws, numbers[places], f" {attempt + 1}")
        return users

    def _any_users(self, draws: Draws, numbers: Index, attempt: str) -> Index:
        """Returns users, whatever their attributes."""
        if not self.is_heavy_tailed:
            return draws.index(f"user{attempt}", numbers, self.num_users)
        weights = self._sizes * self._activity
        level = draws.choice(f"activity{attempt}", numbers, np.cumsum(weights / weights.sum()))
        return level + NUM_ACTIVITY_LEVELS * draws.index(f"user{attempt}", numbers, self._sizes[level])

    def _relative_activity(self, users: Index) -> Array:
        """Returns how active each user's attributes make it, against the most active, (N,) in (0, 1]."""
        names, values = [one.name for one in self.attributes], self.values(users)
        active = np.ones(len(users))
        for name, factors in self.activity:
            active *= np.asarray(factors)[values[:, names.index(name)]] / max(factors)
        return active

    def click_factors(self, users: Index) -> Array:
        """Returns what each user's click rates are multiplied by, mean 1 over impressions, (N,)."""
        return self._factors[(users // NUM_ACTIVITY_LEVELS) % _NUM_FACTOR_LEVELS]

    @property
    def _sizes(self) -> Index:
        """How many users there are of each activity level: every 64th has the same."""
        return (self.num_users + NUM_ACTIVITY_LEVELS - 1 - np.arange(NUM_ACTIVITY_LEVELS)) // NUM_ACTIVITY_LEVELS

    @property
    def _activity(self) -> Array:
        """How active a user of each level is: quantiles of a Pareto law, or all the same."""
        shares = (np.arange(NUM_ACTIVITY_LEVELS) + 0.5) / NUM_ACTIVITY_LEVELS
        return (1 - shares) ** (-1 / _TAIL) if self.is_heavy_tailed else np.ones(NUM_ACTIVITY_LEVELS)

    @property
    def _factors(self) -> Array:
        """Quantiles of a log-normal law, over its mean among the impressions of these very users."""
        levels = np.arange(_NUM_FACTOR_LEVELS)
        shares = (levels + 0.5) / _NUM_FACTOR_LEVELS
        factors = np.exp(self.factor_spread * np.array([NormalDist().inv_cdf(share) for share in shares]))
        num_users = (self._sizes[:, None] + _NUM_FACTOR_LEVELS - 1 - levels) // _NUM_FACTOR_LEVELS
        weights = self._activity @ num_users
        return factors / np.average(factors, weights=weights)


@lru_cache(maxsize=16)
def combinations(attributes: tuple[Attribute, ...]) -> NDArray[np.int64]:
    """Returns every combination of bins, the last attribute counting fastest, (M, A)."""
    found = np.array(list(itertools.product(*(range(len(attribute.values)) for attribute in attributes))))
    found.setflags(write=False)
    return found


@lru_cache(maxsize=16)
def combination_shares(attributes: tuple[Attribute, ...]) -> Array:
    """Returns the share of users with each combination, known or not, (M,)."""
    bins = combinations(attributes)
    places = {attribute.name: place for place, attribute in enumerate(attributes)}
    shares = np.ones(len(bins))
    for place, attribute in enumerate(attributes):
        row = 0 if attribute.parent is None else bins[:, places[attribute.parent]]
        shares = shares * np.asarray(attribute.probabilities)[row, bins[:, place]]
    shares.setflags(write=False)
    return shares


def cell_values(attributes: tuple[Attribute, ...], cell: str) -> tuple[str, ...]:
    """Returns the values that a cell (`name=value` joined by bars) names, in the order of `attributes`.

    Raises:
        ValueError: when the cell does not name each attribute with one of its values or `unknown`.
    """
    named = dict(part.split("=", 1) for part in cell.split("|") if "=" in part)
    if set(named) != {attribute.name for attribute in attributes}:
        raise ValueError(f"{cell!r} is no cell of this market: it should name {[one.name for one in attributes]}.")
    for attribute in attributes:
        if named[attribute.name] not in (*attribute.values, UNKNOWN):
            raise ValueError(f"{cell!r} is no cell of this market: {attribute.name} has {attribute.values}.")
    return tuple(named[attribute.name] for attribute in attributes)


def check_population(population: Population) -> None:
    """Checks that there is somebody and that probabilities are such.

    Raises:
        ValueError: when they are not.
    """
    if not 1 <= population.num_users <= MAX_USERS:
        raise ValueError(f"num_users is {population.num_users}: a market has 1 to {MAX_USERS:,} users.")
    if population.seed < 0 or not 0 <= population.factor_spread < 10:
        raise ValueError(
            f"seed is {population.seed} and factor_spread {population.factor_spread}: they must not be negative."
        )
    num_values: dict[str | None, int] = {None: 1}
    for attribute in population.attributes:
        if len(attribute.probabilities) != num_values.get(attribute.parent):
            raise ValueError(
                f"{attribute.name} has {len(attribute.probabilities)} rows of probabilities: it needs one for each "
                f"value of its parent {attribute.parent}, which must come before it."
            )
        num_values[attribute.name] = len(attribute.values)
        sums = [sum(row) for row in attribute.probabilities]
        if min(map(min, attribute.probabilities)) < 0 or max(abs(total - 1) for total in sums) > 1e-9:
            raise ValueError(f"the probabilities of {attribute.name} add up to {sums}: they must add up to 1.")
        if not 0 <= attribute.missing_share < 1:
            raise ValueError(f"missing_share of {attribute.name} is {attribute.missing_share}: it must be in [0, 1).")
    for name, factors in population.activity:
        if len(factors) != num_values.get(name) or not 0 < min(factors) <= max(factors) < float("inf"):
            raise ValueError(f"activity of {name} is {factors}: an attribute and a positive factor for each value.")
