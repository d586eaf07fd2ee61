"""Click rates of arms: by hand, against users one by one, and whether intervals hold what they should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from osmf_models.evaluation.ab import (
    MIN_CLICKS,
    ArmSums,
    compare_arms,
    holm,
    sample_ratio_p_value,
    sum_arm,
    users_for_lift,
)


def test_a_rate_and_its_variance_by_hand() -> None:
    """Three users with 1 of 2, 0 of 4, 2 of 4 clicks: r = 3/10; residuals 0.4, -1.2, 0.8; squares 2.24."""
    sums = sum_arm(np.array([2, 4, 0, 4]), np.array([1, 0, 0, 2]))
    assert sums == ArmSums(3, 10, 3, 36, 10, 5)
    assert sums.click_rate == 0.3
    assert sums.rate_variance == pytest.approx(3 / 2 * 2.24 / 100)
    assert sums.rate_interval is None  # three clicks


def test_users_with_one_impression_each_are_the_textbook_share() -> None:
    arm, control = (sum_arm(np.ones(1000, int), (np.arange(1000) < clicks).astype(int)) for clicks in (150, 100))
    found = compare_arms(arm, control)
    assert arm.rate_variance == pytest.approx(0.15 * 0.85 / 999)
    error = math.sqrt((0.15 * 0.85 + 0.1 * 0.9) / 999)
    assert found.difference == pytest.approx(0.05)
    assert (found.difference_low, found.difference_high) == pytest.approx(
        (0.05 - 1.96 * error, 0.05 + 1.96 * error), rel=1e-4
    )
    # z = 0.05 / error = 3.3887: twice the normal law's tail beyond it, 0.00035122.
    assert found.p_value == pytest.approx(2 * 0.00035122, rel=1e-4)
    log_error = math.sqrt(0.85 / 0.15 / 999 + 0.9 / 0.1 / 999)
    assert found.lift == pytest.approx(0.5)
    assert found.lift_low == pytest.approx(1.5 * math.exp(-1.96 * log_error) - 1, rel=1e-4)
    assert found.lift_high == pytest.approx(1.5 * math.exp(1.96 * log_error) - 1, rel=1e-4)
    assert found.detectable_difference == pytest.approx((1.959964 + 0.841621) * error)
    assert found.detectable_lift == pytest.approx(10 * (1.959964 + 0.841621) * error)


def test_nine_copies_of_a_users_impressions_say_no_more() -> None:
    rng = np.random.default_rng(1)
    clicks = (rng.random(500) < 0.3).astype(int)
    once, nine = sum_arm(np.ones(500, int), clicks), sum_arm(np.full(500, 9), 9 * clicks)
    assert nine.rate_variance == pytest.approx(once.rate_variance)


def simulated_users(rng, shape, spread=1.0, rate=0.05):
    """Users who differ in how often they come and in how often they click, log-normal both: overdispersed."""
    n = 1 + rng.poisson(np.exp(rng.normal(1.5, 0.8, shape)))
    rates = np.minimum(rate * np.exp(rng.normal(-(spread**2) / 2, spread, shape)), 0.95)
    return n, rng.binomial(n, rates)


def test_intervals_hold_the_difference_where_users_differ_and_those_of_impressions_do_not() -> None:
    """600 tests of users of one law: the difference is 0, and so is the lift."""
    rng = np.random.default_rng(7)
    n, k = simulated_users(rng, (600, 2, 800))
    held = {"difference": 0, "lift": 0, "as impressions": 0}
    for users, clicks in zip(n, k, strict=True):
        arm, control = (sum_arm(*one) for one in zip(users, clicks, strict=True))
        found = compare_arms(arm, control)
        held["difference"] += found.difference_low <= 0 <= found.difference_high
        held["lift"] += found.lift_low <= 0 <= found.lift_high
        rates = [one.click_rate * (1 - one.click_rate) / one.num_impressions for one in (arm, control)]
        held["as impressions"] += abs(found.difference) <= 1.96 * math.sqrt(sum(rates))
    # Two and a half standard errors of 95% of 600; impressions taken for independent hold it far too seldom.
    assert held["difference"] / 600 == pytest.approx(0.95, abs=0.023)
    assert held["lift"] / 600 == pytest.approx(0.95, abs=0.023)
    assert held["as impressions"] / 600 < 0.88


def test_the_users_told_find_the_lift_in_four_of_five_tests() -> None:
    rng = np.random.default_rng(3)
    pilot = sum_arm(*simulated_users(rng, 100_000))
    needed = users_for_lift(pilot, 0.15)
    assert needed is not None
    found = 0
    for _ in range(400):
        control, arm = (sum_arm(*simulated_users(rng, needed, rate=rate)) for rate in (0.05, 0.0575))
        p_value = compare_arms(arm, control).p_value
        assert p_value is not None
        found += p_value < 0.05
    assert found / 400 == pytest.approx(0.8, abs=0.06)  # three standard errors


def test_users_of_a_lift_by_hand() -> None:
    """A variance of 0.09 a user; twice the clicks have four times the variance: 5 · 0.09 · (2.8016 / 0.1)²."""
    control = sum_arm(np.ones(10_001, int), (np.arange(10_001) < 1000).astype(int))
    assert users_for_lift(control, 1.0) == pytest.approx(5 * 0.09 * (2.801585 / 0.1) ** 2, rel=5e-3)
    for impossible in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="cannot be looked for"):
            users_for_lift(control, impossible)


def test_too_few_clicks_or_users_have_no_interval() -> None:
    many = sum_arm(np.ones(1000, int), (np.arange(1000) < 100).astype(int))
    few = sum_arm(np.ones(1000, int), (np.arange(1000) < MIN_CLICKS - 1).astype(int))
    found = compare_arms(few, many)
    assert (found.difference, found.lift) == pytest.approx((-0.091, -0.91))
    assert {found.difference_low, found.p_value, found.lift_high, found.detectable_lift} == {None}
    lonely = sum_arm(np.array([100]), np.array([50]))
    assert math.isnan(lonely.rate_variance)
    assert compare_arms(many, lonely).p_value is None
    assert users_for_lift(few, 0.1) is None
    nothing = sum_arm(np.ones(5, int), np.zeros(5, int))
    assert compare_arms(many, nothing).lift is None


def test_the_sample_ratio_by_hand() -> None:
    """5,100 and 4,900 of 10,000: χ² = 4 with one degree of freedom, twice the normal law's tail beyond 2."""
    assert sample_ratio_p_value([5100, 4900], [0.5, 0.5]) == pytest.approx(math.erfc(2 / math.sqrt(2)))
    assert sample_ratio_p_value([900, 100], [9, 1]) == pytest.approx(1.0)
    # Two degrees of freedom: exp(-χ²/2), χ² = (100² + 100²) / 1000.
    assert sample_ratio_p_value([1100, 900, 1000], [1, 1, 1]) == pytest.approx(math.exp(-10))
    for users, shares in (([1], [1]), ([1, 2], [1, 0]), ([0, 0], [1, 1]), ([1, 2], [1, 1, 1])):
        with pytest.raises(ValueError, match="two arms or more"):
            sample_ratio_p_value(users, shares)


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; never falling: 0.04, 0.06, 0.06, 0.06."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    "sums",
    [
        (0, 0, 0, 0, 0, 0),
        (3, 10, 11, 36, 10, 5),  # more clicks than impressions
        (3, 10, 3, 30, 10, 5),  # 3 · 30 < 10²
        (3, 10, 3, 36, 14, 5),  # 36 · 5 < 14²
        (3, 10, 3, 36, 10, 2),
        (3, -10, 3, 36, 10, 5),
    ],
)
def test_sums_that_no_users_have_are_refused(sums) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        ArmSums(*sums)


def test_a_user_with_more_clicks_than_impressions_is_refused() -> None:
    with pytest.raises(ValueError, match="more clicks than impressions"):
        sum_arm(np.array([1, 2]), np.array([2, 0]))
