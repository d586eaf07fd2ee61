"""What a policy would earn, estimated from the logs of another: IPS, SNIPS and DR, with intervals by resampling users.

Sums per user in, estimates out (numpy only). The sums are all that is needed: an interval costs the users, never the
impressions, and users may be put together in random buckets first. Which policies there are, and how logs are summed,
belong in `osmf_pipelines.spark`.

An impression has a context x (group, product, position), the creative a that was logged, the propensity p with which
the logging policy chose it, and a click r in {0, 1}; the policy valued chooses a with probability π(a|x). Its weight is
w = min(π(a|x) / p, M); q(x, a) predicts the click, from other logs than these.

Shapes: `U` users or buckets of them, `B` replications.

Sources: IPS, Horvitz and Thompson (1952), and for logged clicks Bottou et al. (2013), "Counterfactual reasoning and
learning systems"; SNIPS, Swaminathan and Joachims (2015), "The self-normalized estimator for counterfactual learning";
DR, Dudík, Langford and Li (2011), "Doubly robust policy evaluation and learning"; clipped weights, Ionides (2008),
"Truncated importance sampling"; effective sample size, Kong (1992).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MAX_WEIGHT = 100.0
NUM_REPLICATIONS = 1_000
# With fewer, resampling clicks says next to nothing of those that did not happen: no interval is given.
MIN_EFFECTIVE_CLICKS = 10.0
_LEVEL = 0.95


@dataclass(frozen=True)
class PolicySums:
    """Sums over impressions, of one policy on one log: per user, (U,), per replication, (B,), or over everyone, ().

    Attributes:
        num_impressions: Σ 1.
        num_clicks: Σ r.
        weights: Σ w.
        squared_weights: Σ w².
        weighted_clicks: Σ w·r.
        squared_weighted_clicks: Σ w²·r.
        expected_clicks: Σ over impressions of Σ over creatives of π(a|x)·q(x, a).
        weighted_expected_clicks: Σ w·q(x, a).
        num_clipped: impressions whose weight was above M.
    """

    num_impressions: Array
    num_clicks: Array
    weights: Array
    squared_weights: Array
    weighted_clicks: Array
    squared_weighted_clicks: Array
    expected_clicks: Array
    weighted_expected_clicks: Array
    num_clipped: Array

    @classmethod
    def from_mapping(cls, columns: Mapping[str, Array]) -> PolicySums:
        """Returns the sums of a mapping that has each of them by its name, a data frame for instance."""
        return cls(*(np.asarray(columns[name], dtype=np.float64) for name in SUM_NAMES))

    @property
    def total(self) -> PolicySums:
        """Returns the sums over everyone."""
        return PolicySums(*(np.asarray(getattr(self, name).sum()) for name in SUM_NAMES))

    def resampled(self, counts: Array) -> PolicySums:
        """Returns the sums of each replication.

        Args:
            counts: how often each user is drawn, (B, U).
        """
        return PolicySums(*(counts @ np.stack([getattr(self, name) for name in SUM_NAMES], axis=1)).T)


SUM_NAMES = tuple(field.name for field in fields(PolicySums))


def sum_by_user(
    user: NDArray[np.int64],
    is_clicked: NDArray[np.bool_],
    weights: Array,
    expected: Array,
    expected_of_logged: Array,
    *,
    num_users: int,
    max_weight: float = MAX_WEIGHT,
) -> PolicySums:
    """Returns the sums of each user; the arguments are (N,), one entry an impression.

    Args:
        user: in 0 .. num_users - 1.
        is_clicked: r.
        weights: π(a|x) / p of the creative logged, not clipped.
        expected: Σ over creatives of π(a|x)·q(x, a).
        expected_of_logged: q(x, a) of the creative logged; of no account where the weight is 0.
        num_users: users there are.
        max_weight: M.

    Raises:
        ValueError: when a weight is negative or not finite, or `max_weight` is not positive.
    """
    if max_weight <= 0:
        raise ValueError(f"max_weight is {max_weight}: it must be positive.")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("a weight is negative or not finite: propensities must lie in (0, 1].")
    w, r = np.minimum(weights, max_weight), is_clicked.astype(np.float64)
    terms = (np.ones(len(w)), r, w, w**2, w * r, w**2 * r, expected, w * expected_of_logged, weights > max_weight)
    return PolicySums(*(np.bincount(user, term, num_users).astype(np.float64) for term in terms))


def on_policy_value(sums: PolicySums) -> Array:
    """Returns Σ r / Σ 1: what the logging policy earned."""
    return _ratio(sums.num_clicks, sums.num_impressions)


def ips_value(sums: PolicySums) -> Array:
    """Returns Σ w·r / Σ 1: inverse propensity scoring."""
    return _ratio(sums.weighted_clicks, sums.num_impressions)


def snips_value(sums: PolicySums) -> Array:
    """Returns Σ w·r / Σ w: self-normalised; NaN where no weight is above 0."""
    return _ratio(sums.weighted_clicks, sums.weights)


def dr_value(sums: PolicySums) -> Array:
    """Returns Σ (Σ_a π·q + w·(r - q)) / Σ 1: doubly robust, right where the propensities are or the predictions are."""
    corrected = sums.expected_clicks + sums.weighted_clicks - sums.weighted_expected_clicks
    return _ratio(corrected, sums.num_impressions)


ESTIMATORS = {"ips": ips_value, "snips": snips_value, "dr": dr_value}


def effective_impressions(sums: PolicySums) -> float:
    """Returns the effective sample size (Σ w)² / Σ w²: as many impressions of the policy's own would be as precise."""
    return float(np.nan_to_num(_ratio(sums.total.weights**2, sums.total.squared_weights)))


def effective_clicks(sums: PolicySums) -> float:
    """Returns (Σ w·r)² / Σ w²·r, the same of clicks."""
    return float(np.nan_to_num(_ratio(sums.total.weighted_clicks**2, sums.total.squared_weighted_clicks)))


def mean_weight(sums: PolicySums) -> float:
    """Returns Σ w / Σ 1: 1 but for chance where the propensities are right and every choice could be logged."""
    return float(_ratio(sums.total.weights, sums.total.num_impressions))


def clipped_share(sums: PolicySums) -> float:
    """Returns the share of impressions whose weight was clipped."""
    return float(_ratio(sums.total.num_clipped, sums.total.num_impressions))


def draw_users(num_users: int, num_replications: int = NUM_REPLICATIONS, seed: int = 0) -> Array:
    """Returns how often each user is drawn in each replication, Poisson with mean 1, (B, U).

    One draw for all policies and estimators, so that differences between them are resampled as pairs. The number of
    users varies too, of no account to estimates that are ratios of sums.

    Source: Chamandy, Muralidharan, Najmi and Naidu (2012), "Estimating uncertainty for massive data streams".
    """
    return np.random.default_rng(seed).poisson(1.0, (num_replications, num_users)).astype(np.float64)


def percentile_interval(replicates: Array) -> tuple[float, float]:
    """Returns the ends of the 95% interval, (NaN, NaN) when a replication in twenty has no value.

    Source: Efron and Tibshirani (1993), "An introduction to the bootstrap", chapter 13.
    """
    known = replicates[np.isfinite(replicates)]
    if len(known) < _LEVEL * len(replicates):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The ratio, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)
