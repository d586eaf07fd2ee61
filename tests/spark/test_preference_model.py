import numpy as np
import pytest
from scipy.stats import chi2, kstest

from osmf_pipelines.spark.preference_model import (
    PreferenceFit,
    design_creatives,
    difference_test,
    fit_preference,
    log_likelihood,
    one_step_shift,
    score_and_information,
)


def test_two_creatives_give_the_log_ratio_of_their_rates_whatever_the_level():
    design = design_creatives(np.array([0, 0]), np.array([[0.0], [1.0]]))
    shown, clicked = np.array([[1000.0, 500.0]]), np.array([[100.0, 200.0]])

    fit = fit_preference(design, shown, clicked)

    assert fit.preference[0, 0] / design.scale[0] == pytest.approx(np.log((200 / 500) / (100 / 1000)), rel=1e-3)
    standard_error = fit.standard_errors[0, 0] / design.scale[0]
    assert standard_error == pytest.approx(np.sqrt(1 / 100 + 1 / 200), rel=1e-2)
    assert fit_preference(design, 7 * shown, clicked).preference == pytest.approx(fit.preference)


def test_score_and_information_are_the_derivatives_of_the_likelihood():
    rng = np.random.default_rng(0)
    design = design_creatives(np.repeat([0, 1, 2], 4), rng.normal(size=(12, 3)))
    shown, clicked = rng.uniform(10, 50, (1, 12)), rng.poisson(3, (1, 12)).astype(float)
    at, step = rng.normal(size=(1, 3)), 1e-5

    score, information = score_and_information(design, shown, clicked, at)

    for i, shift in enumerate(step * np.eye(3)):
        up, down = (log_likelihood(design, shown, clicked, at + sign * shift)[0] for sign in (1, -1))
        assert score[0, i] == pytest.approx((up - down) / (2 * step), rel=1e-4)
        up, down = (score_and_information(design, shown, clicked, at + sign * shift)[0][0] for sign in (1, -1))
        assert information[0, i] == pytest.approx((down - up) / (2 * step), rel=1e-4)


def test_what_says_nothing_becomes_zero_with_a_finite_error():
    features = np.array([[1.0, np.nan, 0.1], [1.0, np.nan, 0.1], [2.0, np.nan, 0.1], [2.0, np.nan, 0.1]])
    design = design_creatives(np.array([0, 0, 1, 1]), features)

    fit = fit_preference(design, np.full((1, 4), 100.0), np.array([[5.0, 1.0, 3.0, 0.0]]))

    assert np.all(design.features == 0)
    assert np.all(fit.preference == 0)
    assert np.all(np.isfinite(fit.standard_errors))


def test_separated_clicks_and_no_clicks_stay_finite():
    design = design_creatives(np.array([0, 0]), np.array([[0.0], [1.0]]))

    fit = fit_preference(design, np.full((2, 2), 100.0), np.array([[0.0, 300.0], [0.0, 0.0]]))

    assert np.all(np.isfinite(fit.preference))
    assert fit.preference[0, 0] > 1
    assert fit.preference[1, 0] == 0


def test_unsorted_creatives_are_refused():
    with pytest.raises(ValueError, match="sorted by product"):
        design_creatives(np.array([1, 0]), np.zeros((2, 1)))


def test_difference_test_is_the_limit_where_a_side_does_not_see_a_direction():
    blind, seeing = np.array([[[4.0, 0.0], [0.0, 0.0]]]), np.array([[[2.0, 1.0], [1.0, 2.0]]])
    left, right = (np.array([values]) for values in ((1.0, 0.0), (0.0, 5.0)))

    log_p, statistic = difference_test(PreferenceFit(left, blind), PreferenceFit(right, seeing))

    variance = 1 / 4 + np.linalg.inv(seeing[0])[0, 0]
    assert statistic[0] == pytest.approx(1 / variance)
    assert log_p[0] == pytest.approx(chi2.logsf(1 / variance, 1))


def test_p_values_are_uniform_where_tastes_agree_and_activity_and_exposure_differ():
    rng = np.random.default_rng(1)
    design = design_creatives(np.repeat(np.arange(20), 5), rng.normal(size=(100, 4)))
    taste = np.exp(design.features @ [0.4, -0.3, 0.2, 0.0])
    shown = rng.uniform(50, 2000, (2, 1, 100)) * np.stack([np.ones_like(taste), taste])[:, None]
    clicks = rng.poisson(shown * taste * np.array([0.01, 0.03])[:, None, None], (400, 2, 1, 100)).astype(float)

    log_p_values = []
    for left, right in clicks:
        pooled = fit_preference(design, shown.sum(0), left + right).preference
        sides = []
        for n, k in zip(shown, (left, right), strict=True):
            score, information = score_and_information(design, n, k, pooled)
            sides.append(PreferenceFit(one_step_shift(score, information), information))
        log_p_values.append(difference_test(*sides)[0][0])

    assert kstest(np.exp(log_p_values), "uniform").pvalue > 0.001
