"""What an A/B test says, from sums over users: click rates, differences, lifts, intervals, power, the sample ratio.

Users are randomised and impressions are not, so users are what varies: a click rate is a ratio of two sums over users,
and its variance is that of the ratio (delta method), however many impressions each user has and however much users
differ. Six whole numbers an arm are all that is needed, so that no user leaves the cluster. A whole experiment, its
groups and its file belong in `ab_readout.py`, summing logs in `osmf_pipelines/spark/experiment_arms.py`.

User u of an arm has n_u impressions and k_u clicks; U users, N = Σ n, K = Σ k, r = K / N.

Sources: the variance of a ratio of sums over users, Deng, Knoblich and Lu (2018), "Applying the delta method in metric
analytics"; the sample-ratio check, Fabijan et al. (2019), "Diagnosing sample ratio mismatch in online controlled
experiments"; several comparisons, Holm (1979), "A simple sequentially rejective multiple test procedure".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

CONFIDENCE = 0.95
POWER = 0.8
# With fewer clicks in an arm the normal law says next to nothing of its rate: no interval is given.
MIN_CLICKS = 10
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
_Z_POWER = NormalDist().inv_cdf(POWER)


@dataclass(frozen=True)
class ArmSums:
    """Sums over the users of one arm, exact.

    Attributes:
        num_users: U.
        num_impressions: Σ n.
        num_clicks: Σ k.
        squared_impressions: Σ n².
        impressions_by_clicks: Σ n·k.
        squared_clicks: Σ k².

    Raises:
        ValueError: when no users can have these sums.
    """

    num_users: int
    num_impressions: int
    num_clicks: int
    squared_impressions: int
    impressions_by_clicks: int
    squared_clicks: int

    def __post_init__(self) -> None:
        users, n, k = self.num_users, self.num_impressions, self.num_clicks
        nn, nk, kk = self.squared_impressions, self.impressions_by_clicks, self.squared_clicks
        is_possible = users > 0 and users <= n and 0 <= k <= n and n <= nn and k <= kk <= nk <= nn
        if not (is_possible and users * nn >= n * n and users * kk >= k * k and nn * kk >= nk * nk):
            raise ValueError(f"{self} cannot be: no users have such impressions and clicks.")

    @property
    def click_rate(self) -> float:
        """Clicks an impression, r."""
        return self.num_clicks / self.num_impressions

    @property
    def rate_variance(self) -> float:
        """The variance of the click rate over draws of users: U / (U - 1) · Σ (k - r·n)² / N²; NaN of one user."""
        if self.num_users < 2:
            return math.nan
        n, k = self.num_impressions, self.num_clicks
        # N² · Σ (k - r·n)², in whole numbers: nothing cancels.
        squares = (
            n * n * self.squared_clicks - 2 * n * k * self.impressions_by_clicks + k * k * self.squared_impressions
        )
        return squares / n**4 * self.num_users / (self.num_users - 1)

    @property
    def rate_interval(self) -> tuple[float, float] | None:
        """The 95% interval of the click rate; None with too few clicks or users."""
        if not self.is_enough:
            return None
        half = _Z * math.sqrt(self.rate_variance)
        return max(0.0, self.click_rate - half), min(1.0, self.click_rate + half)

    @property
    def is_enough(self) -> bool:
        """Whether there are clicks and users enough for an interval."""
        return self.num_clicks >= MIN_CLICKS and self.num_users > 1


SUM_NAMES = tuple(field.name for field in fields(ArmSums))


def sum_arm(num_impressions: NDArray[np.int64], num_clicks: NDArray[np.int64]) -> ArmSums:
    """Returns the sums of an arm whose users have these impressions and clicks, (U,); who has none is not counted.

    Raises:
        ValueError: when nobody has an impression, or somebody has more clicks than impressions.
    """
    n, k = np.asarray(num_impressions, np.int64), np.asarray(num_clicks, np.int64)
    if (n < 0).any() or (k < 0).any() or (k > n).any():
        raise ValueError("a user has more clicks than impressions, or fewer than none.")
    sums = (np.count_nonzero(n), n.sum(), k.sum(), (n * n).sum(), (n * k).sum(), (k * k).sum())
    return ArmSums(*(int(value) for value in sums))


@dataclass(frozen=True)
class ArmDifference:
    """An arm against the control; whatever needs an interval is None with too few clicks or users in either.

    Attributes:
        difference: of the click rates, arm minus control, with the ends of its 95% interval.
        lift: of the click rate, relative to the control's: 0.1 is a tenth more; its interval is that of the log ratio.
        p_value: two-sided, that chance alone makes such a difference.
        detectable_difference: what so many users would find in 80% of such tests, at the 5% level.
        detectable_lift: the same, relative to the control's rate.
    """

    difference: float
    difference_low: float | None
    difference_high: float | None
    lift: float | None
    lift_low: float | None
    lift_high: float | None
    p_value: float | None
    detectable_difference: float | None
    detectable_lift: float | None


def compare_arms(arm: ArmSums, control: ArmSums) -> ArmDifference:
    """Returns how an arm's click rate differs from the control's; no user is in both."""
    difference = arm.click_rate - control.click_rate
    lift = difference / control.click_rate if control.num_clicks else None
    if not (arm.is_enough and control.is_enough) or lift is None:
        return ArmDifference(difference, None, None, lift, None, None, None, None, None)
    error = math.sqrt(arm.rate_variance + control.rate_variance)
    log_error = math.sqrt(
        arm.rate_variance / arm.click_rate**2 + control.rate_variance / control.click_rate**2
    )  # of log(r / r of the control)
    p_value = math.erfc(abs(difference) / error / math.sqrt(2)) if error else float(difference == 0)
    detectable = (_Z + _Z_POWER) * error
    return ArmDifference(
        difference,
        difference - _Z * error,
        difference + _Z * error,
        lift,
        (1 + lift) * math.exp(-_Z * log_error) - 1,
        (1 + lift) * math.exp(_Z * log_error) - 1,
        p_value,
        detectable,
        detectable / control.click_rate,
    )


def users_for_lift(control: ArmSums, lift: float) -> int | None:
    """Returns how many users each of two arms needs to find a lift in 80% of tests, at the 5% level.

    Users are taken to be like those of the control, and the lift to multiply each one's clicks; None with too few
    clicks to tell.

    Args:
        control: what is known of users now.
        lift: relative to the control's click rate, not 0.

    Raises:
        ValueError: when the lift is 0 or not above -1.
    """
    check_lift(lift)
    if not control.is_enough:
        return None
    variance_of_user = control.rate_variance * control.num_users
    both = variance_of_user * (1 + (1 + lift) ** 2)
    return math.ceil(both * ((_Z + _Z_POWER) / (lift * control.click_rate)) ** 2)


def check_lift(lift: float) -> None:
    """Checks that a lift can be looked for.

    Raises:
        ValueError: when it is 0 or not above -1.
    """
    if not (math.isfinite(lift) and lift > -1 and lift != 0):
        raise ValueError(f"a lift of {lift:g} cannot be looked for: it must be above -1 and not 0.")


def sample_ratio_p_value(num_users: Sequence[int], shares: Sequence[float]) -> float:
    """Returns the probability that chance alone makes users split so unevenly: Pearson's χ² against the planned split.

    Args:
        num_users: of each arm, two or more.
        shares: planned, positive; they need not add up to 1.

    Raises:
        ValueError: when these are no counts and shares of two arms or more.
    """
    if len(num_users) != len(shares) or len(shares) < 2 or min(shares) <= 0 or sum(num_users) <= 0:
        raise ValueError(f"users {list(num_users)}, planned {list(shares)}: two arms or more with shares are needed.")
    found = np.asarray(num_users, float)
    planned = np.asarray(shares, float) / sum(shares) * found.sum()
    return float(chdtrc(len(found) - 1, ((found - planned) ** 2 / planned).sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number, in their order: those up to a level hold together at that level."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values, float)[order] * factors), 1.0)
    return [float(value) for value in adjusted]
