from itertools import pairwise

import numpy as np
import pytest

from osmf_pipelines.spark.pairs import better_probability
from osmf_pipelines.spark.rate_posterior import ScopeRates, group_posterior, mean_trend, root_posterior, variance_trend

PER_PRODUCT = 6
BINS = (0.5, 0.7, 0.9, 0.97, 0.995, 1.0 + 1e-9)


def _gamma(rng, spread, size):
    return rng.gamma(1 / spread**2, spread**2, size) if spread else np.ones(size)


def _draw(
    seed, *, groups, between_creatives, between_groups, impressions, products, activity=1.0, follows=0.0, favourite=0.0
):
    """Counts whose rates are Gamma around product levels, and those rates, (G, C).

    A creative is shown as its rate to the power of `follows`; each product's best gets the share `favourite` besides.
    """
    rng = np.random.default_rng(seed)
    product_of = np.repeat(np.arange(products), PER_PRODUCT)
    level = 0.03 * rng.lognormal(0, 0.4, products)[product_of] * _gamma(rng, between_creatives, len(product_of))
    active = np.exp(rng.uniform(0, np.log(activity), (groups, 1))) if activity > 1 else 1.0
    rates = level * active * _gamma(rng, between_groups, (groups, len(product_of)))
    shown = impressions * rng.lognormal(0, 0.7, rates.shape) * (rates / (level * active)) ** follows
    if favourite:
        by_product = rates.reshape(groups, products, PER_PRODUCT)
        is_best = by_product == by_product.max(axis=-1, keepdims=True)
        shown = impressions * ((1 - favourite) + favourite * PER_PRODUCT * is_best).reshape(rates.shape)
    clicks = rng.poisson(shown * rates).astype(float)
    starts = np.arange(0, len(product_of), PER_PRODUCT)
    return ScopeRates(shown, clicks, starts, product_of, np.ones(len(product_of), dtype=bool)), rates


def _claimed_and_true(posterior, rates):
    """Claimed probability of the more probable order of each two creatives, and whether that order is right."""
    claimed, is_right = [], []
    for a in range(PER_PRODUCT):
        for b in range(a + 1, PER_PRODUCT):
            first, second = (slice(offset, None, PER_PRODUCT) for offset in (a, b))
            p = better_probability(
                posterior.shape[:, first],
                posterior.rate[:, first],
                posterior.shape[:, second],
                posterior.rate[:, second],
            ).ravel()
            is_better = (rates[:, first] > rates[:, second]).ravel()
            claimed.append(np.maximum(p, 1 - p))
            is_right.append(np.where(p >= 0.5, is_better, ~is_better))
    return np.concatenate(claimed), np.concatenate(is_right)


@pytest.mark.parametrize(
    "market",
    [
        {"groups": 1, "between_creatives": 0.25, "between_groups": 0.0, "impressions": 1000, "products": 2000},
        {"groups": 6, "between_creatives": 0.25, "between_groups": 0.25, "impressions": 600, "products": 800},
        {"groups": 6, "between_creatives": 0.25, "between_groups": 0.0, "impressions": 600, "products": 800},
        {"groups": 6, "between_creatives": 0.1, "between_groups": 0.1, "impressions": 600, "products": 800},
        {"groups": 2, "between_creatives": 0.25, "between_groups": 0.25, "impressions": 600, "products": 1500},
        {"groups": 30, "between_creatives": 0.25, "between_groups": 0.3, "impressions": 300, "products": 150},
        {
            "groups": 6,
            "between_creatives": 0.25,
            "between_groups": 0.25,
            "impressions": 600,
            "products": 800,
            "activity": 4.0,
        },
        {
            "groups": 1,
            "between_creatives": 0.25,
            "between_groups": 0.0,
            "impressions": 1000,
            "products": 2000,
            "follows": 4.0,
        },
        {
            "groups": 6,
            "between_creatives": 0.25,
            "between_groups": 0.25,
            "impressions": 300,
            "products": 800,
            "follows": 4.0,
        },
    ],
    ids=[
        "one group",
        "groups differ",
        "groups agree",
        "small effects",
        "two groups",
        "thin groups",
        "activity differs",
        "shown as clicked",
        "shown as clicked, by group",
    ],
)
def test_probabilities_hold(market):
    scope, rates = _draw(1, **market)

    claimed, is_right = _claimed_and_true(group_posterior(scope), rates)

    for low, high in pairwise(BINS):
        inside = (claimed >= low) & (claimed < high)
        # pairs share creatives and groups share products: about 15 pairs per product are worth 3 independent ones
        sampling_error = np.sqrt(claimed[inside].mean() * (1 - claimed[inside].mean()) / (inside.sum() / 5))
        assert abs(claimed[inside].mean() - is_right[inside].mean()) < 3 * sampling_error + 0.01


def test_the_prior_of_a_group_does_not_see_its_own_clicks():
    scope, _ = _draw(2, groups=3, between_creatives=0.25, between_groups=0.25, impressions=600, products=50)
    more = scope.clicks.copy()
    more[0, 0] += 40

    before = group_posterior(scope)
    after = group_posterior(
        ScopeRates(scope.impressions, more, scope.product_starts, scope.product_of, scope.is_fitted)
    )

    prior_shape_before, prior_shape_after = before.shape[0, 0] - scope.clicks[0, 0], after.shape[0, 0] - more[0, 0]
    assert prior_shape_after == pytest.approx(prior_shape_before, rel=0.15)  # only through the scope's variances
    assert after.shape[1, 0] / after.rate[1, 0] > before.shape[1, 0] / before.rate[1, 0]


@pytest.mark.parametrize("groups", [1, 6])
def test_probabilities_are_not_too_sure_where_the_shop_shows_its_favourites(groups):
    between_groups = 0.25 if groups > 1 else 0.0
    market = {"groups": groups, "between_creatives": 0.25, "between_groups": between_groups, "impressions": 300}
    scope, rates = _draw(4, **market, products=1000, favourite=0.7)
    claimed, is_right = _claimed_and_true(group_posterior(scope), rates)
    for low, high in pairwise(BINS):
        inside = (claimed >= low) & (claimed < high)
        assert is_right[inside].mean() > claimed[inside].mean() - 0.015


def test_few_clicks_do_not_make_a_trend():
    """One product of 34 creatives and 100 clicks, shown regardless of their rates: hardly anything is sure."""
    claimed, is_right = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rates = 0.005 * _gamma(rng, 0.25, 34)
        shown = rng.lognormal(0, 0.6, 34)
        shown *= 100 / (shown * rates).sum()
        scope = ScopeRates(
            shown[None], rng.poisson(shown * rates)[None] * 1.0, np.array([0]), np.zeros(34, int), np.ones(34, bool)
        )
        posterior = group_posterior(scope)
        a, b = np.triu_indices(34, 1)
        shape, rate = posterior.shape[0], posterior.rate[0]
        p = better_probability(shape[a], rate[a], shape[b], rate[b])
        claimed.append(np.maximum(p, 1 - p))
        is_right.append((rates[a] > rates[b]) == (p >= 0.5))
    claimed, is_right = np.concatenate(claimed), np.concatenate(is_right)
    assert (claimed >= 0.9).mean() < 0.02
    assert is_right.mean() > claimed.mean() - 0.02


def test_a_trend_of_the_mean_is_recovered():
    rng = np.random.default_rng(5)
    predicted, goes_with = rng.uniform(5, 50, 20_000), rng.normal(0, 1, 20_000)
    trend = np.stack([np.ones(20_000), goes_with])
    rates = predicted * np.exp(-0.1 + 0.2 * goes_with)
    clicks = rng.poisson(rates * rng.gamma(1 / 0.09, 0.09, 20_000))
    found, covariance = mean_trend(clicks, predicted, np.full(20_000, 0.09), trend, np.zeros(2))
    error = (found - [-0.1, 0.2]) / np.sqrt(np.diagonal(covariance))
    np.testing.assert_array_less(np.abs(error), 3)
    np.testing.assert_array_less(np.sqrt(np.diagonal(covariance)), 0.005)


def test_a_trend_of_the_variance_is_recovered():
    rng = np.random.default_rng(3)
    expected, goes_with = rng.uniform(20, 80, 40_000), rng.uniform(-1, 1, 40_000)
    trend, nothing, once = np.stack([np.ones(40_000), goes_with]), np.zeros(40_000), np.ones(40_000)
    variance = 0.09 + 0.05 * goes_with
    overdispersed = rng.poisson(expected * rng.gamma(1 / variance, variance))
    np.testing.assert_allclose(variance_trend(overdispersed, expected, nothing, once, trend), [0.09, 0.05], atol=0.006)
    poisson = rng.poisson(expected)
    np.testing.assert_allclose(variance_trend(poisson, expected, nothing, once, trend), [0.0, 0.0], atol=0.002)


@pytest.mark.parametrize("clicks", [[[0.0, 0.0, 0.0]], [[5.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [3.0, 1.0, 0.0]]])
def test_few_clicks_and_lone_creatives_give_proper_posteriors(clicks):
    clicks = np.array(clicks)
    scope = ScopeRates(
        np.full(clicks.shape, 100.0), clicks, np.array([0, 2]), np.array([0, 0, 1]), np.zeros(3, dtype=bool)
    )

    for posterior in (root_posterior(scope), group_posterior(scope)):
        assert np.all(np.isfinite(posterior.shape))
        assert np.all(posterior.shape > 0)
        assert np.all(posterior.rate > 0)
