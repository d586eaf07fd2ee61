"""Estimators: by hand, in expectation over every outcome, and what resampling users is worth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from osmf_models.evaluation.off_policy import (
    ESTIMATORS,
    PolicySums,
    Ratio,
    clipped_share,
    dr,
    draw_users,
    effective_clicks,
    effective_impressions,
    ips,
    mean_weight,
    on_policy,
    snips,
    studentized_interval,
    sum_by_user,
)


def sums_of(weights, clicks, expected=0.0, expected_of_logged=0.0, user=None, **options):
    weights = np.asarray(weights, dtype=float)
    user = np.arange(len(weights)) if user is None else np.asarray(user)
    wide = [np.broadcast_to(np.asarray(one, dtype=float), weights.shape) for one in (expected, expected_of_logged)]
    return sum_by_user(user, np.asarray(clicks, dtype=bool), weights, *wide, num_users=user.max() + 1, **options)


def test_estimates_of_four_impressions_by_hand() -> None:
    """Weights 2, 0, 4, 2 with clicks on the first two: Σ w = 8, Σ w² = 24, Σ w·r = 2."""
    sums = sums_of(
        [2, 0, 4, 2], [1, 1, 0, 0], expected=[0.1, 0.2, 0.3, 0.4], expected_of_logged=0.25, user=[0, 0, 1, 2]
    )
    assert on_policy(sums).value == 2 / 4
    assert ips(sums).value == 2 / 4
    assert snips(sums).value == 2 / 8
    assert dr(sums).value == pytest.approx((1.0 + 2 - 8 * 0.25) / 4)
    assert effective_impressions(sums) == pytest.approx(64 / 24)
    assert effective_clicks(sums) == 1.0
    assert mean_weight(sums) == 2.0
    assert sums.weights.tolist() == [2, 4, 2]


def test_the_logs_own_policy_earns_what_it_earned_by_every_estimator() -> None:
    sums = sums_of(np.ones(10), [1, 0, 0, 1, 0, 0, 0, 0, 1, 0], expected=0.2, expected_of_logged=0.2)
    assert [estimator(sums).value for estimator in ESTIMATORS.values()] == pytest.approx([0.3] * 3)


@pytest.mark.parametrize("predicted", [(0.0, 0.0, 0.0), (0.9, 0.1, 0.4)])
def test_ips_and_dr_are_right_on_average_over_every_outcome_whatever_is_predicted(predicted) -> None:
    """Three creatives with rates q under propensities p: the mean over all (creative, click) is Σ π·q exactly."""
    p, q, policy = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.1]), np.array([0.1, 0.2, 0.7])
    expected = float(policy @ np.asarray(predicted))
    means = np.zeros(2)
    for creative, click in itertools.product(range(3), (0, 1)):
        chance = p[creative] * (q[creative] if click else 1 - q[creative])
        one = sums_of([policy[creative] / p[creative]], [click], expected, predicted[creative])
        means += chance * np.array([ips(one).value, dr(one).value])
    assert means == pytest.approx([policy @ q] * 2)


def test_dr_is_right_with_wrong_propensities_where_predictions_are_right() -> None:
    """Whoever clicks is predicted to, so that what weights multiply is 0."""
    sums = sums_of([7.0, 0.3], [1, 0], expected=[0.6, 0.2], expected_of_logged=[1.0, 0.0])
    assert dr(sums).value == pytest.approx(0.4)
    assert ips(sums).value != pytest.approx(0.4)


def test_weights_are_clipped_and_counted() -> None:
    sums = sums_of([1, 50, 10], [1, 1, 1], max_weight=10.0)
    assert sums.weights.tolist() == [1, 10, 10]
    assert clipped_share(sums) == pytest.approx(1 / 3)


@pytest.mark.parametrize("weights", [[-1.0], [np.inf], [np.nan]])
def test_impossible_weights_are_refused(weights) -> None:
    with pytest.raises(ValueError, match="propensities must lie in"):
        sums_of(weights, [0])


def test_a_policy_that_logs_never_show_has_no_snips() -> None:
    sums = sums_of([0.0, 0.0], [1, 0])
    assert np.isnan(snips(sums).value)
    assert (effective_impressions(sums), effective_clicks(sums)) == (0.0, 0.0)
    assert np.isnan(studentized_interval(snips(sums), draw_users(2, 100))).all()


def test_an_interval_by_hand() -> None:
    """Clicks of three users 1, 0, 2 on 2, 2, 4 impressions: 3/8; each adds (clicks - 3/8 impressions) / 8 to it.

    A replication that draws the first user alone has no spread, and its distance is unknown; one that draws each once
    is 0 away; one without the third is at 1/4, where two users add (clicks - 1/4 impressions) / 4.
    """
    ratio = Ratio(np.array([1.0, 0.0, 2.0]), np.array([2.0, 2.0, 4.0]))
    assert np.isnan(studentized_interval(ratio, np.array([[1.0, 0, 0], [1, 1, 1]]))).all()
    assert studentized_interval(ratio, np.ones((2, 3))) == pytest.approx((3 / 8, 3 / 8))
    counts = np.array([[1.0, 1, 0]] * 2)
    value, error = 1 / 4, np.sqrt((1 - 2 / 4) ** 2 + (0 - 2 / 4) ** 2) / 4
    own_error = np.sqrt((1 - 6 / 8) ** 2 + (0 - 6 / 8) ** 2 + (2 - 12 / 8) ** 2) / 8
    expected = 3 / 8 - (value - 3 / 8) / error * own_error
    assert studentized_interval(ratio, counts) == pytest.approx((expected, expected))


def test_two_policies_that_are_the_same_differ_by_nothing() -> None:
    same = ips(sums_of([2, 0, 4], [1, 0, 1]))
    assert studentized_interval(same, draw_users(3, 100), same) == (0.0, 0.0)


def test_two_estimates_of_the_same_users_are_compared_as_pairs() -> None:
    """What is the same in both cancels: half of each click is left, as of an estimate of its own."""
    rng = np.random.default_rng(3)
    clicks, shown = rng.poisson(3.0, 200).astype(float), np.full(200, 10.0)
    counts = draw_users(200, 400)
    difference = studentized_interval(Ratio(clicks, shown), counts, Ratio(0.5 * clicks, shown))
    assert difference == pytest.approx(studentized_interval(Ratio(0.5 * clicks, shown), counts))


def test_intervals_of_skewed_sums_hold_the_truth() -> None:
    """Users whose impressions are log-normal: 19 of 20 intervals hold the rate, percentiles' would be fewer."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        shown = rng.poisson(20 * np.exp(rng.standard_normal(300))) + 1.0
        rates = np.minimum(0.02 * np.exp(rng.standard_normal(300) - 0.5), 1.0)
        clicks = rng.poisson(rates * shown).astype(float)
        low, high = studentized_interval(Ratio(clicks, shown), draw_users(300, 400, int(rng.integers(2**31))))
        held += low <= 0.02 <= high
    assert 0.92 <= held / 400 <= 0.98


def width(sums: PolicySums) -> float:
    low, high = studentized_interval(ips(sums), draw_users(len(sums.weights), 2_000))
    return high - low


def test_users_are_resampled_whole() -> None:
    """Nine copies of each impression say no more: as impressions they would make the interval three times narrower."""
    rng = np.random.default_rng(1)
    clicks = rng.random(400) < 0.3
    once = width(sums_of(np.ones(400), clicks))
    as_users = width(sums_of(np.ones(3600), np.repeat(clicks, 9), user=np.repeat(np.arange(400), 9)))
    as_impressions = width(sums_of(np.ones(3600), np.repeat(clicks, 9)))
    assert as_users == pytest.approx(once)
    assert once / as_impressions == pytest.approx(3, rel=0.15)


def test_the_width_is_that_of_the_textbook() -> None:
    """1.96 · 2 standard errors of a share of 0.3 among 2,000."""
    clicks = np.arange(2_000) % 10 < 3
    assert width(sums_of(np.ones(2_000), clicks)) == pytest.approx(3.92 * np.sqrt(0.3 * 0.7 / 2_000), rel=0.06)


def test_users_put_together_in_buckets_give_the_same_interval() -> None:
    rng = np.random.default_rng(2)
    weights, clicks, bucket = (
        8.0 * (rng.random(20_000) < 1 / 8),
        rng.random(20_000) < 0.1,
        rng.integers(0, 1_000, 20_000),
    )
    assert width(sums_of(weights, clicks, user=bucket)) == pytest.approx(width(sums_of(weights, clicks)), rel=0.1)
