"""Which groups an arm lifts or lowers against another, with a correction for their number.

Where the resamples come from belongs in `resampling.py`, the correction in `ab.py`.

Source: the added one of a resampled p-value, Davison & Hinkley, Bootstrap Methods and their Application, 1997,
section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from osmf_models.evaluation.ab import holm
from osmf_models.evaluation.resampling import Array, Estimate, GroupMeans, RunKey, over_runs

LEVEL = 0.05
LIFTED_SHARE = 0.95  # of groups, from which on "every group" is said to be lifted


@dataclass(frozen=True)
class GroupLift:
    """What an arm adds to another's click rate in one group.

    Attributes:
        market, scope, group_id: which group.
        lift: difference of click rates at position 1, with its 95% interval.
        p_value: two-sided, of no difference.
        holm_p_value: the same corrected for the number of groups.
    """

    market: str
    scope: str
    group_id: str
    lift: Estimate
    p_value: float
    holm_p_value: float

    @property
    def is_lifted(self) -> bool:
        """Whether the interval lies above 0, after correction."""
        return self.lift.low > 0.0 and self.holm_p_value <= LEVEL

    @property
    def is_lowered(self) -> bool:
        """Whether the interval lies below 0; without correction, which would hide harm."""
        return self.lift.high < 0.0


@dataclass(frozen=True)
class LiftClaims:
    """Shares of groups lifted and lowered, and whether that is "every group": 95% lifted and none lowered."""

    num_groups: int
    lifted_share: float
    lowered_share: float
    is_every_group_lifted: bool

    @classmethod
    def of(cls, lifts: Sequence[GroupLift]) -> LiftClaims:
        """Returns what the lifts of all groups amount to.

        Raises:
            ValueError: when there is no group.
        """
        if not lifts:
            raise ValueError("no group was judged: there is nothing to claim.")
        lifted, lowered = (np.mean([getattr(one, name) for one in lifts]) for name in ("is_lifted", "is_lowered"))
        return cls(len(lifts), float(lifted), float(lowered), bool(lifted >= LIFTED_SHARE and lowered == 0.0))


def resampled_p_value(differences: Array) -> float:
    """Returns the two-sided p-value of no difference, from resamples of one, (R + 1,); at least 2 / (R + 1)."""
    resampled = differences[1:]
    fewer = min(int((resampled <= 0.0).sum()), int((resampled >= 0.0).sum()))
    return min(1.0, 2.0 * (1 + fewer) / (len(resampled) + 1))


def group_lifts(means: Mapping[RunKey, GroupMeans], arm: str, baseline: str) -> list[GroupLift]:
    """Returns the lift of every group of every market, over the seeds of its market.

    Args:
        means: of the true click rate, by run; all runs of a market with the same groups.
        arm: whose lift.
        baseline: over which other arm.

    Raises:
        ValueError: when two runs of a market were judged on other groups.
    """
    found: list[tuple[str, str, str, Array]] = []
    for market in sorted({key.market for key in means}):
        runs = {key: one for key, one in means.items() if key.market == market}
        first = next(iter(runs.values()))
        if any(one.group_ids != first.group_ids for one in runs.values()):
            raise ValueError(f"{market}: its runs were judged on different groups.")
        differences = over_runs({key: one.values[arm] - one.values[baseline] for key, one in runs.items()})
        groups = zip(first.scopes, first.group_ids, differences.T, strict=True)
        found += [(market, scope, group_id, column) for scope, group_id, column in groups]
    p_values = [resampled_p_value(column) for *_, column in found]
    return [
        GroupLift(market, scope, group_id, Estimate.of(column), p_value, corrected)
        for (market, scope, group_id, column), p_value, corrected in zip(found, p_values, holm(p_values), strict=True)
    ]
