from __future__ import annotations

import numpy as np
import pytest

from osmf_models.simulator.serving import UNIFORM, Policy, serve_day

NONE_YET = np.zeros((2, 4))
SHOWN = np.full((2, 4), 1_000.0)
CLICKED = np.array([[20.0, 50.0, 30.0, 10.0], [60.0, 10.0, 10.0, 59.0]])
# Of two segments: the first likes creative 2 of product 0 best, the second creative 3; both like the last of product 1.
RATES = np.array([[1, 1], [2, 4], [9, 2], [3, 5], [1, 1], [2, 2], [3, 3], [4, 4]]) / 100


def propensities_of(policy, shown, clicked):
    """Returns the probability of each creative for everyone, (P, K)."""
    serving = serve_day(policy, np.ones((shown.size, 1)), 3, shown, clicked)
    assert serving.propensities.shape == (len(shown), 1, shown.shape[1])
    return serving.propensities[:, 0]


@pytest.mark.parametrize(
    "policy", [UNIFORM, Policy("epsilon_greedy", 0.1), Policy("fixed", propensities=(0.4, 0.3, 0.2, 0.1))]
)
def test_each_product_shows_one_of_its_creatives_and_may_show_any(policy):
    for shown, clicked in ((NONE_YET, NONE_YET), (SHOWN, CLICKED)):
        propensities = propensities_of(policy, shown, clicked)
        np.testing.assert_allclose(propensities.sum(1), 1.0)
        assert propensities.min() > 0


def test_uniform_is_uniform_whatever_was_clicked():
    assert (propensities_of(UNIFORM, SHOWN, CLICKED) == 0.25).all()


def test_epsilon_greedy_is_uniform_on_the_first_day():
    assert (propensities_of(Policy("epsilon_greedy", 0.2), NONE_YET, NONE_YET) == 0.25).all()


def test_epsilon_greedy_prefers_the_creative_that_was_clicked_most():
    propensities = propensities_of(Policy("epsilon_greedy", 0.2), SHOWN, CLICKED)
    np.testing.assert_allclose(propensities, [[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]])


def test_epsilon_greedy_goes_by_rate_and_distrusts_few_impressions():
    shown, clicked = np.array([[10.0, 5_000.0, 1_000.0]]), np.array([[1.0, 200.0, 60.0]])
    assert propensities_of(Policy("epsilon_greedy"), shown, clicked)[0].argmax() == 2


def test_epsilon_one_is_uniform():
    np.testing.assert_allclose(propensities_of(Policy("epsilon_greedy", 1.0), SHOWN, CLICKED), 0.25)


def test_fixed_propensities_are_those_of_every_product():
    fixed = Policy("fixed", propensities=(0.4, 0.3, 0.2, 0.1))
    assert propensities_of(fixed, SHOWN, CLICKED).tolist() == [[0.4, 0.3, 0.2, 0.1]] * 2


def test_taste_shows_each_segment_what_it_likes_best():
    propensities = serve_day(Policy("taste", 0.2), RATES, 3, NONE_YET, NONE_YET).propensities
    np.testing.assert_allclose(propensities[0], [[0.05, 0.05, 0.85, 0.05], [0.05, 0.05, 0.05, 0.85]])
    np.testing.assert_allclose(propensities[1], [[0.05, 0.05, 0.05, 0.85]] * 2)


def test_better_creatives_have_higher_positions():
    serving = serve_day(Policy(position_bias=0.6), RATES, 2, NONE_YET, NONE_YET)
    assert serving.position_bias == 0.6
    assert serving.positions.tolist() == [2, 2, 1, 1, 2, 2, 1, 1]


@pytest.mark.parametrize("bias", [-0.1, 1.1, float("nan")])
def test_a_position_bias_that_is_no_share_is_refused(bias):
    with pytest.raises(ValueError, match=f"position_bias is {bias}"):
        Policy(position_bias=bias)


@pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.5])
def test_an_epsilon_that_leaves_creatives_out_is_refused(epsilon):
    with pytest.raises(ValueError, match=f"epsilon is {epsilon}"):
        Policy("epsilon_greedy", epsilon)


@pytest.mark.parametrize(
    ("propensities", "message"),
    [((0.5, 0.4), r"\(0\.5, 0\.4\) add up to 0\.9"), ((1.0, 0.0), "must be positive"), ((), "add up to 0")],
)
def test_what_are_no_propensities_is_refused(propensities, message):
    with pytest.raises(ValueError, match=message):
        Policy("fixed", propensities=propensities)


def test_a_wrong_number_of_propensities_is_refused():
    with pytest.raises(ValueError, match="2 propensities for 4 creatives"):
        propensities_of(Policy("fixed", propensities=(0.5, 0.5)), SHOWN, CLICKED)
