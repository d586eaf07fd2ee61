from itertools import pairwise

import numpy as np
import pytest

from osmf_pipelines.spark.pairs import better_probability
from osmf_pipelines.spark.rate_posterior import ScopeRates, excess_variance, group_posterior, root_posterior

PER_PRODUCT = 6
BINS = (0.5, 0.7, 0.9, 0.97, 0.995, 1.0 + 1e-9)


def _gamma(rng, spread, size):
    return rng.gamma(1 / spread**2, spread**2, size) if spread else np.ones(size)


def _draw(seed, *, groups, between_creatives, between_groups, impressions, products, activity=1.0):
    """Counts whose rates are Gamma around product levels, and those rates, (G, C)."""
    rng = np.random.default_rng(seed)
    product_of = np.repeat(np.arange(products), PER_PRODUCT)
    level = 0.03 * rng.lognormal(0, 0.4, products)[product_of] * _gamma(rng, between_creatives, len(product_of))
    active = np.exp(rng.uniform(0, np.log(activity), (groups, 1))) if activity > 1 else 1.0
    rates = level * active * _gamma(rng, between_groups, (groups, len(product_of)))
    shown = impressions * rng.lognormal(0, 0.7, rates.shape)
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
    ],
    ids=[
        "one group",
        "groups differ",
        "groups agree",
        "small effects",
        "two groups",
        "thin groups",
        "activity differs",
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


def _learn(seed, *, groups, impressions_per_day, late_share, num_products=300, num_days=7, random_share=0.2):
    """Counts of a shop that shows what was clicked most on the days before, and the true rates, (G, C).

    Of the creatives but each product's first, `late_share` come on a later day.
    """
    rng = np.random.default_rng(seed)
    product_of = np.repeat(np.arange(num_products), PER_PRODUCT)
    level = 0.03 * rng.lognormal(0, 0.3, num_products)[product_of] * _gamma(rng, 0.25, len(product_of))
    rates = level * _gamma(rng, 0.25 if groups > 1 else 0.0, (groups, len(product_of)))
    first_day = np.where(rng.random(len(product_of)) < late_share, rng.integers(1, num_days, len(product_of)), 0)
    first_day[::PER_PRODUCT] = 0
    shown, clicks = np.zeros((2, *rates.shape))
    for day in range(num_days):
        is_there = (first_day <= day).reshape(num_products, PER_PRODUCT)
        pooled_shown, pooled_clicks = (v.sum(0).reshape(num_products, PER_PRODUCT) for v in (shown, clicks))
        looks = np.where(is_there, (pooled_clicks + 3) / (pooled_shown + 100), -1)
        is_best = looks == looks.max(axis=1, keepdims=True)
        even = is_there / is_there.sum(axis=1, keepdims=True)
        shares = random_share * even + (1 - random_share) * is_best / is_best.sum(axis=1, keepdims=True)
        today = rng.poisson(impressions_per_day * PER_PRODUCT * shares.ravel(), rates.shape)
        shown += today
        clicks += rng.binomial(today, np.minimum(rates, 1.0))
    starts = np.arange(0, len(product_of), PER_PRODUCT)
    return ScopeRates(shown, clicks, starts, product_of, np.ones(len(product_of), dtype=bool)), rates


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("late_share", [0.0, 0.3], ids=["all from the start", "some late"])
def test_probabilities_hold_where_a_shop_learns_from_the_same_clicks(groups, late_share):
    """What is shown then follows from the clicks, and says nothing more of a rate than they do."""
    scope, rates = _learn(6, groups=groups, impressions_per_day=60, late_share=late_share)
    claimed, is_right = _claimed_and_true(group_posterior(scope), rates)
    for low, high in pairwise(BINS):
        inside = (claimed >= low) & (claimed < high)
        share = claimed[inside].mean()
        sampling_error = np.sqrt(share * (1 - share) / (inside.sum() / 5))
        assert is_right[inside].mean() > share - 3 * sampling_error - 0.01


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


def test_excess_variance_is_recovered_and_never_negative():
    rng = np.random.default_rng(3)
    expected = rng.uniform(5, 50, 20_000)

    overdispersed = rng.poisson(expected * rng.gamma(1 / 0.09, 0.09, expected.shape))
    poisson = rng.poisson(expected)

    nothing = np.zeros_like(expected)
    assert excess_variance(overdispersed, expected, nothing, np.ones(())) == pytest.approx(0.09, rel=0.1)
    assert 0 <= excess_variance(poisson, expected, nothing, np.ones(())) < 0.003
    assert excess_variance(expected, expected, nothing, np.ones(())) == 0


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
