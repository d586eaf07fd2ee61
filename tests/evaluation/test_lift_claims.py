"""Intervals over products, seeds and markets, and which groups are said to be lifted."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from osmf_models.evaluation import ab, lift_claims
from osmf_models.evaluation.lift_claims import GroupLift, LiftClaims, group_lifts, resampled_p_value
from osmf_models.evaluation.resampling import (
    NUM_RESAMPLES,
    Estimate,
    GroupMeans,
    RunKey,
    over_runs,
    product_weights,
    resampled_group_means,
)
from osmf_models.evaluation.summary import JUDGEMENT_COLUMNS


def judged(rates: dict[str, dict[tuple[str, str], float]]) -> pd.DataFrame:
    rows = [
        (arm, "s", group, product, 2, rate, 1.0, np.nan)
        for arm, cases in rates.items()
        for (group, product), rate in cases.items()
    ]
    return pd.DataFrame(rows, columns=list(JUDGEMENT_COLUMNS))


def flat(value: float) -> np.ndarray:
    return np.full(NUM_RESAMPLES + 1, value)


def test_weights_of_a_scope_average_to_one_and_are_the_market_s_own():
    weights = product_weights(["a", "b", "a", "a"], "m")
    assert (weights[0] == 1.0).all()
    np.testing.assert_allclose(weights[:, [0, 2, 3]].mean(1), 1.0)
    assert (weights[:, 1] == 1.0).all()
    assert (weights == product_weights(["a", "b", "a", "a"], "m")).all()
    assert (weights != product_weights(["a", "b", "a", "a"], "other")).any()


def test_interval_of_two_products_by_hand():
    """Drawn: both once, or one twice; the mean 0.04 then moves by 0.02, stretched by the root of 2 / 1."""
    judgements = judged({"a": {("g", "p1"): 0.02, ("g", "p2"): 0.06}})
    estimate = Estimate.of(resampled_group_means(judgements, "m", "true_ctr_rate").values["a"][:, 0])
    width = 0.02 * math.sqrt(2)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.04, 0.04 - width, 0.04 + width))


def test_spread_of_a_mean_is_that_of_its_unbiased_estimate():
    values = np.random.default_rng(0).normal(size=5)
    judgements = judged({"a": {("g", f"p{number}"): value for number, value in enumerate(values)}})
    resampled = resampled_group_means(judgements, "m", "true_ctr_rate").values["a"][1:, 0]
    assert resampled.std() == pytest.approx(values.std(ddof=1) / math.sqrt(5), rel=0.05)


def test_arms_are_paired_by_product():
    judgements = judged(
        {
            "a": {("g", f"p{number}"): 0.1 * number + 0.01 for number in range(4)},
            "b": {("g", f"p{number}"): 0.1 * number for number in range(4)},
        }
    )
    means = resampled_group_means(judgements, "m", "true_ctr_rate").values
    np.testing.assert_allclose(means["a"] - means["b"], 0.01)


def test_an_arm_that_was_not_judged_on_a_product_is_refused():
    judgements = judged({"a": {("g", "p1"): 0.1, ("g", "p2"): 0.1}, "b": {("g", "p1"): 0.1}})
    with pytest.raises(ValueError, match="arm b was not judged on every product"):
        resampled_group_means(judgements, "m", "true_ctr_rate")


def test_two_seeds_by_hand():
    """Drawn: both, or one twice; the mean 2 then moves by 1, stretched by the root of 2 / 1."""
    values = over_runs({RunKey("m", 0): flat(1.0), RunKey("m", 1): flat(3.0)})
    assert values[0] == 2.0
    assert set(np.round(values[1:], 6)) == {round(2 + move, 6) for move in (-math.sqrt(2), 0.0, math.sqrt(2))}
    assert ((values[1:] - 2.0) == 0.0).mean() == pytest.approx(0.5, abs=0.03)


def test_markets_weigh_the_same_whatever_their_number_of_seeds():
    keys = [RunKey("m", 0), RunKey("m", 1), RunKey("n", 0)]
    values = over_runs(dict(zip(keys, (flat(1.0), flat(1.0), flat(4.0)), strict=True)))
    assert values[0] == 2.5


def test_seeds_of_a_market_share_their_products_and_markets_do_not():
    noise = np.random.default_rng(0).normal(size=NUM_RESAMPLES + 1)
    seeds = over_runs({RunKey("m", 0): noise, RunKey("m", 1): noise})
    np.testing.assert_allclose(seeds, noise)
    markets = over_runs({RunKey("m", 0): noise, RunKey("n", 0): noise})
    assert markets[1:].std() < 0.95 * noise[1:].std()


def test_figures_over_runs_stay_paired():
    rng = np.random.default_rng(0)
    first = {RunKey(m, s): rng.normal(size=NUM_RESAMPLES + 1) for m in "mn" for s in (0, 1, 2)}
    second = {key: values - 0.3 for key, values in first.items()}
    np.testing.assert_allclose(over_runs(first) - over_runs(second), 0.3)


def test_groups_are_corrected_as_the_arms_of_an_ab_test_are():
    assert lift_claims.holm is ab.holm


def test_p_value_by_hand():
    """Of 999 resamples 24 are at or below 0: 2 (1 + 24) / 1000."""
    resampled = np.concatenate([[0.5], np.full(24, -1.0), np.full(975, 1.0)])
    assert resampled_p_value(resampled) == pytest.approx(0.05)
    assert resampled_p_value(np.ones(1000)) == pytest.approx(0.002)
    assert resampled_p_value(np.zeros(1000)) == 1.0


def lift_of(low: float, high: float, p_value: float) -> GroupLift:
    return GroupLift("m", "s", "g", Estimate((low + high) / 2, low, high), p_value, p_value)


def test_every_group_means_95_percent_lifted_and_none_lowered():
    up, open_, down = lift_of(0.01, 0.03, 0.001), lift_of(-0.01, 0.03, 0.3), lift_of(-0.03, -0.01, 0.3)
    assert LiftClaims.of([up] * 19 + [open_]) == LiftClaims(20, 0.95, 0.0, True)
    assert not LiftClaims.of([up] * 18 + [open_] * 2).is_every_group_lifted
    assert LiftClaims.of([up] * 19 + [down]) == LiftClaims(20, 0.95, 0.05, False)
    with pytest.raises(ValueError, match="no group"):
        LiftClaims.of([])


def test_an_interval_above_zero_is_no_claim_once_corrected():
    assert not lift_of(0.01, 0.03, 0.2).is_lifted


def test_lifts_of_groups_come_with_a_correction_over_all_markets():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(NUM_RESAMPLES + 1, 2)) * 0.001
    noise[0] = 0.0
    values = {"a": noise + np.array([0.02, 0.0]), "b": np.zeros_like(noise)}
    means = {RunKey(market, 0): GroupMeans(("s", "s"), ("g", "h"), values) for market in "mn"}
    lifts = group_lifts(means, "a", "b")
    assert [(one.market, one.group_id, one.is_lifted) for one in lifts] == [
        ("m", "g", True),
        ("m", "h", False),
        ("n", "g", True),
        ("n", "h", False),
    ]
    assert lifts[0].holm_p_value == pytest.approx(4 * 2 / (NUM_RESAMPLES + 1))
    assert lifts[0].lift.value == pytest.approx(0.02)


def test_a_group_that_no_arm_lifts_is_seldom_said_to_be():
    rng, claims = np.random.default_rng(1), 0
    for number in range(60):
        cases = {("g", f"p{place}"): value for place, value in enumerate(rng.normal(0.0, 0.02, 10))}
        judgements = judged({"a": cases, "b": dict.fromkeys(cases, 0.0)})
        means = {RunKey(f"m{number}", 0): resampled_group_means(judgements, f"m{number}", "true_ctr_rate")}
        claims += group_lifts(means, "a", "b")[0].is_lifted
    assert claims <= 6
