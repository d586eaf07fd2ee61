"""What a policy would earn, estimated from the logs of another: IPS, SNIPS and DR, with intervals by resampling users.

Sums per user in, estimates out (numpy only). The sums are all that is needed: an interval costs the users, never the
impressions, and users may be put together in random buckets first. Which policies there are, and how logs are summed,
belong in `osmf_pipelines.spark`.

An impression has a context x (group, product, position), the creative a that was logged, the propensity p with which
the logging policy chose it, and a click r in {0, 1}; the policy valued chooses a with probability π(a|x). Its weight is
w = min(π(a|x) / p, M); q(x, a) predicts the click, from other logs than these.

Every estimate is a ratio of two such sums, of which an interval needs what each user adds to either.

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
    """Sums over impressions, of one policy on one log: per user, (U,), or over everyone, ().

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


@dataclass(frozen=True)
class Ratio:
    """An estimate: the sum of the numerators over that of the denominators, each (U,)."""

    numerators: Array
    denominators: Array

    @property
    def value(self) -> float:
        """Returns the estimate; NaN where nothing was shown."""
        return float(_ratio(self.numerators.sum(), self.denominators.sum()))


def on_policy(sums: PolicySums) -> Ratio:
    """Returns Σ r / Σ 1: what the logging policy earned."""
    return Ratio(sums.num_clicks, sums.num_impressions)


def ips(sums: PolicySums) -> Ratio:
    """Returns Σ w·r / Σ 1: inverse propensity scoring."""
    return Ratio(sums.weighted_clicks, sums.num_impressions)


def snips(sums: PolicySums) -> Ratio:
    """Returns Σ w·r / Σ w: self-normalised; NaN where no weight is above 0."""
    return Ratio(sums.weighted_clicks, sums.weights)


def dr(sums: PolicySums) -> Ratio:
    """Returns Σ (Σ_a π·q + w·(r - q)) / Σ 1: doubly robust, right where the propensities are or the predictions are."""
    corrected = sums.expected_clicks + sums.weighted_clicks - sums.weighted_expected_clicks
    return Ratio(corrected, sums.num_impressions)


ESTIMATORS = {"ips": ips, "snips": snips, "dr": dr}


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


def studentized_interval(one: Ratio, counts: Array, other: Ratio | None = None) -> tuple[float, float]:
    """Returns the ends of the 95% interval of an estimate, or of what it differs from another one by.

    Bootstrap-t: sums over users are skewed, some being shown much more than others, so that percentiles of the estimate
    hold the truth too seldom. Resampled is its distance in standard errors, the error estimated anew each time. (NaN,
    NaN) when a replication in twenty has no value.

    Args:
        one: the estimate.
        counts: how often each user is drawn, (B, U).
        other: what it is compared with, on the same users.

    Sources: Efron and Tibshirani (1993), "An introduction to the bootstrap", chapter 12; standard error of a ratio by
    its linear terms, Cochran (1977), "Sampling techniques", chapter 2.
    """
    ratios = [one] if other is None else [one, other]
    added = np.stack([part for ratio in ratios for part in (ratio.numerators, ratio.denominators)], axis=1)
    products = (added[:, :, None] * added[:, None, :]).reshape(len(added), -1)
    estimate, error = _estimates(added.sum(axis=0, keepdims=True), products.sum(axis=0, keepdims=True))
    estimates, errors = _estimates(counts @ added, counts @ products)
    distances = np.where(estimates == estimate, 0.0, _ratio(estimates - estimate, errors))
    known = distances[np.isfinite(distances)]
    if len(known) < _LEVEL * len(distances):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(estimate[0] - high * error[0]), float(estimate[0] - low * error[0])


def _estimates(sums: Array, products: Array) -> tuple[Array, Array]:
    """Returns the estimate, or the difference of two, and its standard error for each sample of users, (B,).

    Args:
        sums: of numerator and denominator of each ratio, (B, 2) or (B, 4).
        products: sums of the products of any two of them, (B, 4) or (B, 16).
    """
    values = _ratio(sums[:, ::2], sums[:, 1::2])  # (B, 1) or (B, 2)
    signs = np.array([1.0, -1.0])[: values.shape[1]]
    # What a user adds to a ratio, to first order: (numerator - value * denominator) / sum of denominators.
    per_numerator = _ratio(np.broadcast_to(signs, values.shape), sums[:, 1::2])
    linear = np.stack([per_numerator, -values * per_numerator], axis=2).reshape(len(sums), -1)
    variance = np.einsum("bi,bij,bj->b", linear, products.reshape(len(sums), linear.shape[1], -1), linear)
    return values @ signs, np.sqrt(np.maximum(variance, 0.0))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The ratio, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)
