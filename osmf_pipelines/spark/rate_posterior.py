"""Click rates of creatives in groups: Gamma posteriors whose priors use no click twice (numpy; no Spark).

Rate of creative c in group g ~ Gamma. Prior mean: what the *other* groups say of c, times the group's general activity;
prior variance: that estimate's own, plus the between-group variance of the scope. What the other groups say of c rests
in turn on the product's other creatives, with the between-creative variance. Comparing two rates belongs in `pairs`.

Shapes: `G` groups, `C` creatives sorted by product.

Source: this project's own design (5.2); empirical Bayes for Gamma-Poisson counts, moments as in Robbins (1956).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NUM_MOMENT_STEPS = 10
_NUM_GROUP_STEPS = 6
_FIRST_VARIANCE = 0.05


@dataclass(frozen=True)
class ScopeRates:
    """The counts of one scope.

    Attributes:
        impressions: effective impressions, (G, C).
        clicks: (G, C).
        product_starts: index of each product's first creative, (P,).
        product_of: index of each creative's product, ascending, (C,).
        is_fitted: creatives that the variances may be estimated on, (C,).
    """

    impressions: Array
    clicks: Array
    product_starts: NDArray[np.int64]
    product_of: NDArray[np.int64]
    is_fitted: NDArray[np.bool_]


@dataclass(frozen=True)
class GammaRates:
    """Gamma posteriors: mean = shape / rate; `rate` is in effective impressions. Both of any one shape."""

    shape: Array
    rate: Array


@dataclass(frozen=True)
class _Prior:
    """A prior by its mean and its squared coefficient of variation."""

    mean: Array
    squared_cv: Array

    def update(self, impressions: Array, clicks: Array) -> GammaRates:
        shape = 1 / self.squared_cv
        return GammaRates(shape + clicks, shape / self.mean + impressions)


def root_posterior(scope: ScopeRates) -> GammaRates:
    """Returns the posterior rate of each creative for everyone, from the product-level prior alone, (1, C)."""
    impressions, clicks = _pool(scope.impressions), _pool(scope.clicks)
    variance = _between_creative_variance(scope, group_variance=0.0)
    return _product_prior(scope, impressions, clicks, variance).update(impressions, clicks)


def group_posterior(scope: ScopeRates) -> GammaRates:
    """Returns the posterior rate of each creative in each group, (G, C); with one group that of the root."""
    if len(scope.clicks) == 1:
        return root_posterior(scope)
    group_variance = _FIRST_VARIANCE
    for _ in range(_NUM_GROUP_STEPS):
        others = _others_prior(scope, group_variance)
        group_variance = excess_variance(
            scope.clicks[:, scope.is_fitted],
            (scope.impressions * others.mean)[:, scope.is_fitted],
            others.squared_cv[:, scope.is_fitted],
            np.ones(()),
        )
    return _Prior(others.mean, group_variance + others.squared_cv).update(scope.impressions, scope.clicks)


def _others_prior(scope: ScopeRates, group_variance: float) -> _Prior:
    """What the other groups say of each creative, at each group's own activity; without the between-group variance.

    The other groups, being few and different, say less of a creative than as many clicks of one group would: their
    counts are discounted so that counting error and between-group variance together keep their weight.
    """
    impressions, clicks, squares = (
        np.maximum(_pool(values) - values, 0.0) for values in (scope.impressions, scope.clicks, scope.impressions**2)
    )
    prior = _product_prior(scope, impressions, clicks, _between_creative_variance(scope, group_variance))
    discount = 1 / (1 + group_variance * prior.mean * _ratio(squares, impressions))
    posterior = prior.update(discount * impressions, discount * clicks)
    mean = posterior.shape / posterior.rate
    expected = (scope.impressions * mean).sum(axis=1, keepdims=True)
    activity = (scope.clicks.sum(axis=1, keepdims=True) + 1) / (expected + 1)
    return _Prior(mean * activity, 1 / posterior.shape)


def excess_variance(clicks: Array, expected: Array, own_variance: Array, factor: Array) -> float:
    """Returns s^2 >= 0 such that E[(clicks - expected)^2] = expected + expected^2 (s^2 * factor + own_variance).

    Weighted moments, the weights being the inverse variance of each square, taken again at each new s^2.

    Args:
        clicks: observed counts, any shape.
        expected: predicted counts, the same shape.
        own_variance: squared coefficient of variation of the prediction itself.
        factor: how often s^2 enters.
    """
    variance = _FIRST_VARIANCE
    surplus = (clicks - expected) ** 2 - expected - expected**2 * own_variance
    slope = expected**2 * factor
    for _ in range(_NUM_MOMENT_STEPS):
        spread = expected + slope * variance + expected**2 * own_variance
        weights = _ratio(np.ones_like(spread), spread**2)
        norm = (weights * slope**2).sum()
        variance = max(float((weights * slope * surplus).sum() / norm), 0.0) if norm > 0 else 0.0
    return variance


def _between_creative_variance(scope: ScopeRates, group_variance: float) -> float:
    """How much rates of creatives of one product differ, as a squared coefficient of variation.

    What differs between groups, and does not average out over those that saw the creative, is taken out.
    """
    impressions, clicks = _pool(scope.impressions), _pool(scope.clicks)
    mean, own_variance, factor = _product_rate(scope, impressions, clicks)
    own_variance = own_variance + group_variance * _ratio(_pool(scope.impressions**2), impressions**2)
    fitted = scope.is_fitted
    return excess_variance(
        clicks[:, fitted], (impressions * mean)[:, fitted], own_variance[:, fitted], factor[:, fitted]
    )


def _product_prior(scope: ScopeRates, impressions: Array, clicks: Array, creative_variance: float) -> _Prior:
    mean, own_variance, factor = _product_rate(scope, impressions, clicks)
    return _Prior(mean, creative_variance * factor + own_variance)


def _product_rate(scope: ScopeRates, impressions: Array, clicks: Array) -> tuple[Array, Array, Array]:
    """The rate of each creative's product without the creative, one pseudo-click at the overall rate added, (S, C).

    Returns:
        mean; its squared coefficient of variation from counting clicks; how often the between-creative variance enters
        when a creative is predicted from it (once for the creative, and for the others by their weights).
    """
    base = (clicks.sum(axis=1, keepdims=True) + 0.5) / (impressions.sum(axis=1, keepdims=True) + 1)
    others_impressions, others_clicks, squares = (
        np.maximum(np.add.reduceat(values, scope.product_starts, axis=1)[:, scope.product_of] - values, 0.0)
        for values in (impressions, clicks, impressions**2)
    )
    mean = (others_clicks + 1) / (others_impressions + 1 / base)
    weights = _ratio(squares, others_impressions**2)
    return mean, 1 / (others_clicks + 1), 1 + np.minimum(weights, 1.0)


def _pool(values: Array) -> Array:
    return values.sum(axis=0, keepdims=True)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The ratio, 0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
