"""Click rates of creatives in groups: Gamma posteriors whose priors use no click twice (numpy; no Spark).

Rate of creative c in group g ~ Gamma. Prior mean: what the *other* groups say of c, times the group's general activity;
prior variance: that estimate's own, plus the between-group variance of the scope. What the other groups say of c rests
in turn on the product's other creatives, with the between-creative variance. Comparing two rates belongs in `pairs`.

A shop shows what is clicked, so how much more a creative was shown than others says something of its rate. At both
levels the prior's mean and variance follow that, as far as this scope's clicks say so: a log-linear trend of the mean,
a linear one of the variance. Without it the seldom shown seem to differ as much as the favourites do, and probabilities
are too sure.

Shapes: `G` groups, `C` creatives sorted by product, `S` rows of counts: groups, or the root alone.

Source: this project's own design (5.2); empirical Bayes for Gamma-Poisson counts, moments as in Robbins (1956).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NUM_MOMENT_STEPS = 16
_NUM_NEWTON_STEPS = 6
_NUM_TREND_STEPS = 3
_NUM_GROUP_STEPS = 6
_FIRST_VARIANCE = 0.05
_PRIOR_IMPRESSIONS = 30.0  # as many as bring about one click
_TREND_PRECISION = 100.0  # a slope is within about 0.1 of 0
_VARIANCE_PRECISION = 400.0  # variance and its slope are within about 0.05 of 0.05 and 0
_MAX_VARIANCE = 1.0
_MAX_STEP = 1.0


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
    return _product_prior(scope, impressions, clicks, group_variance=0.0).update(impressions, clicks)


def group_posterior(scope: ScopeRates) -> GammaRates:
    """Returns the posterior rate of each creative in each group, (G, C); with one group that of the root."""
    if len(scope.clicks) == 1:
        return root_posterior(scope)
    rest = np.maximum(_pool(scope.impressions) - scope.impressions, 0.0)
    shown_more = _log_ratio(scope.impressions, _sum_product(scope, scope.impressions)) - _log_ratio(
        rest, _sum_product(scope, rest)
    )
    group_variance = _FIRST_VARIANCE
    for _ in range(_NUM_GROUP_STEPS):
        others = _others_prior(scope, group_variance)
        arms = _Arms(scope.impressions, scope.clicks, others.mean, others.squared_cv, np.ones_like(others.mean))
        trends = _fit_trends(arms, shown_more, scope.is_fitted)
        group_variance = float(trends.variance.mean())
    prior = _Prior(others.mean * trends.factor, trends.variance + trends.error + others.squared_cv)
    return prior.update(scope.impressions, scope.clicks)


def _others_prior(scope: ScopeRates, group_variance: float) -> _Prior:
    """What the other groups say of each creative, at each group's own activity; without the between-group variance.

    The other groups, being few and different, say less of a creative than as many clicks of one group would: their
    counts are discounted so that counting error and between-group variance together keep their weight.
    """
    impressions, clicks, squares = (
        np.maximum(_pool(values) - values, 0.0) for values in (scope.impressions, scope.clicks, scope.impressions**2)
    )
    prior = _product_prior(scope, impressions, clicks, group_variance)
    discount = 1 / (1 + group_variance * prior.mean * _ratio(squares, impressions))
    posterior = prior.update(discount * impressions, discount * clicks)
    mean = posterior.shape / posterior.rate
    expected = (scope.impressions * mean).sum(axis=1, keepdims=True)
    activity = (scope.clicks.sum(axis=1, keepdims=True) + 1) / (expected + 1)
    return _Prior(mean * activity, 1 / posterior.shape)


def _product_prior(scope: ScopeRates, impressions: Array, clicks: Array, group_variance: float) -> _Prior:
    """What a creative's product says of it, (S, C).

    What differs between groups, and does not average out over those that saw the creative, is no difference between
    creatives.
    """
    mean, own_variance, factor = _product_rate(scope, impressions, clicks)
    squares = _pool(scope.impressions**2) - (scope.impressions**2 if len(impressions) > 1 else 0.0)
    between_groups = group_variance * _ratio(np.maximum(squares, 0.0), impressions**2)
    arms = _Arms(impressions, clicks, mean, own_variance + between_groups, factor)
    others = _sum_product(scope, impressions) - impressions
    num_others = _sum_product(scope, np.ones_like(impressions)) - 1
    shown_more = _log_ratio(impressions, others / np.maximum(num_others, 1))
    trends = _fit_trends(arms, shown_more, scope.is_fitted)
    return _Prior(mean * trends.factor, trends.variance * factor + trends.error + own_variance)


@dataclass(frozen=True)
class _Arms:
    """Counts and what is predicted of them, all (S, C).

    Attributes:
        impressions: effective impressions.
        clicks: observed.
        mean: predicted click rate.
        own_variance: squared coefficient of variation of the prediction itself.
        factor: how often the variance between arms enters.
    """

    impressions: Array
    clicks: Array
    mean: Array
    own_variance: Array
    factor: Array


@dataclass(frozen=True)
class _Trends:
    """How rates go with how much more an arm was shown, all (S, C).

    Attributes:
        factor: on the predicted mean.
        variance: squared coefficient of variation around it.
        error: squared coefficient of variation of the factor itself.
    """

    factor: Array
    variance: Array
    error: Array


def _fit_trends(arms: _Arms, shown_more: Array, is_fitted: NDArray[np.bool_]) -> _Trends:
    """How the mean and the variance of rates around their prediction go with how much more an arm was shown.

    Args:
        arms: to predict.
        shown_more: log of how much more, (S, C).
        is_fitted: creatives that are looked at, (C,).
    """
    chosen = np.broadcast_to(is_fitted, arms.clicks.shape)
    own, factor, clicks = arms.own_variance[chosen], arms.factor[chosen], arms.clicks[chosen]
    predicted, trend = (arms.impressions * arms.mean)[chosen], np.stack([np.ones(len(clicks)), shown_more[chosen]])
    variance, slopes = np.full(len(clicks), _FIRST_VARIANCE), np.zeros(2)
    for _ in range(_NUM_TREND_STEPS):
        slopes, covariance = mean_trend(clicks, predicted, variance * factor + own, trend, slopes)
        coefficients = variance_trend(clicks, predicted * np.exp(slopes @ trend), own, factor, trend)
        variance = np.clip(coefficients @ trend, 0.0, _MAX_VARIANCE)
    within = np.clip(shown_more, trend[1].min(initial=0.0), trend[1].max(initial=0.0))
    variance = np.clip(coefficients[0] + coefficients[1] * within, 0.0, _MAX_VARIANCE)
    error = covariance[0, 0] + within * (2 * covariance[0, 1] + within * covariance[1, 1])
    return _Trends(np.exp(slopes[0] + slopes[1] * within), variance, error)


def mean_trend(clicks: Array, predicted: Array, squared_cv: Array, trend: Array, slopes: Array) -> tuple[Array, Array]:
    """Returns b such that E[clicks] = predicted * exp(b @ trend), (2,), and its covariance, (2, 2).

    By negative binomial likelihood and a weak prior.

    Args:
        clicks: observed counts, (N,).
        predicted: counts, (N,).
        squared_cv: of the rates around their prediction, (N,).
        trend: ones, and what the mean goes with, (2, N).
        slopes: to start from, (2,).
    """
    prior = _TREND_PRECISION * np.eye(2)
    for _ in range(_NUM_NEWTON_STEPS):
        expected = predicted * np.exp(slopes @ trend)
        weights = 1 / (1 + expected * squared_cv)
        information = (trend * (weights**2 * expected * (1 + clicks * squared_cv))) @ trend.T + prior
        step = np.linalg.solve(information, trend @ (weights * (clicks - expected)) - prior @ slopes)
        slopes = slopes + np.clip(step, -_MAX_STEP, _MAX_STEP)
    return slopes, np.linalg.inv(information).astype(np.float64)


def variance_trend(clicks: Array, expected: Array, own_variance: Array, factor: Array, trend: Array) -> Array:
    """Returns c such that E[(clicks - expected)^2] = expected + expected^2 (factor * c @ trend + own_variance), (2,).

    Weighted moments, the weights being the inverse variance of each square, taken again at each new c, and a weak prior
    that speaks where the counts hardly do.

    Args:
        clicks: observed counts, (N,).
        expected: predicted counts, (N,).
        own_variance: squared coefficient of variation of the prediction itself, (N,).
        factor: how often the variance enters, (N,).
        trend: ones, and what the variance goes with, (2, N).
    """
    first = np.array([_FIRST_VARIANCE, 0.0])
    prior, coefficients = _VARIANCE_PRECISION * np.eye(2), first
    surplus = (clicks - expected) ** 2 - expected - expected**2 * own_variance
    slope = expected**2 * factor
    for _ in range(_NUM_MOMENT_STEPS):
        variance = np.clip(coefficients @ trend, 0.0, _MAX_VARIANCE)
        spread = expected + slope * variance + expected**2 * own_variance
        weights = _ratio(np.ones_like(spread), spread**2)
        normal = (trend * (weights * slope**2)) @ trend.T + prior
        solved = np.linalg.solve(normal, trend @ (weights * slope * surplus) + prior @ first)
        coefficients = (coefficients + solved) / 2  # whole steps can swing between two lines
    return coefficients


def _product_rate(scope: ScopeRates, impressions: Array, clicks: Array) -> tuple[Array, Array, Array]:
    """The rate of each creative's product without the creative, one pseudo-click at the overall rate added, (S, C).

    Returns:
        mean; its squared coefficient of variation from counting clicks; how often the between-creative variance enters
        when a creative is predicted from it (once for the creative, and for the others by their weights).
    """
    base = (clicks.sum(axis=1, keepdims=True) + 0.5) / (impressions.sum(axis=1, keepdims=True) + 1)
    others_impressions, others_clicks, squares = (
        np.maximum(_sum_product(scope, values) - values, 0.0) for values in (impressions, clicks, impressions**2)
    )
    mean = (others_clicks + 1) / (others_impressions + 1 / base)
    weights = _ratio(squares, others_impressions**2)
    return mean, 1 / (others_clicks + 1), 1 + np.minimum(weights, 1.0)


def _pool(values: Array) -> Array:
    return values.sum(axis=0, keepdims=True)


def _sum_product(scope: ScopeRates, values: Array) -> Array:
    """The sum over each creative's product, in the shape of `values`, (S, C)."""
    return np.add.reduceat(values, scope.product_starts, axis=1)[:, scope.product_of]


def _log_ratio(impressions: Array, others: Array) -> Array:
    return np.log((impressions + _PRIOR_IMPRESSIONS) / (others + _PRIOR_IMPRESSIONS))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The ratio, 0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
