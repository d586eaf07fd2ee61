"""Comparisons are those of a refresh; the truth beside them, CAIG's filter and the report by hand."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F
from rich.console import Console
from scipy.stats import gamma

from osmf_models.simulator.segments import Taste
from osmf_pipelines.bench.comparisons import compare, true_rates
from osmf_pipelines.bench.grouping_score import PlantedScope
from osmf_pipelines.bench.pair_quality import PAIR_CONDITIONS, CaseFrames, PairCase, judge_case
from osmf_pipelines.bench.pair_quality_report import (
    bootstrap_mean,
    calibrate,
    compare_with_caig,
    judge_kept,
    summarise,
)
from osmf_pipelines.bench.run_pair_quality import run_pair_bench
from osmf_pipelines.spark.pairs import preference_pairs
from osmf_pipelines.spark.preference_cuts import TreeSettings

DAY = date(2026, 3, 1)


def rated_of(rows: list[tuple[str, str, float, float, int, int, float]]) -> pd.DataFrame:
    names = ["group_id", "creative_id", "posterior_shape", "posterior_rate", "num_impressions", "num_clicks"]
    return pd.DataFrame(rows, columns=[*names, "true_rate"]).assign(product_id="p")


RATED = rated_of(
    [
        ("g", "a", 30.0, 1_000.0, 1_200, 36, 0.03),
        ("g", "b", 20.0, 1_000.0, 1_100, 30, 0.04),
        ("g", "c", 2.0, 1_000.0, 900, 27, 0.001),
        ("h", "a", 40.0, 1_000.0, 2_000, 40, 0.05),
        ("h", "b", 80.0, 1_000.0, 2_000, 46, 0.02),
    ]
)


def test_comparisons_are_those_of_a_refresh(spark):
    rng = np.random.default_rng(3)
    rows = [
        (group, f"c{n}", float(rng.uniform(5, 90)), float(rng.uniform(500, 2_000)), 1_000, 30, 0.03)
        for group in "gh"
        for n in range(6)
    ]
    rated = rated_of(rows)
    found = compare(rated)
    kept = found[(found.probability >= 0.8) & (found.log_rate_ratio > 0)]
    told = rated.assign(as_of_date=DAY, scope="s", is_scope_root=False, effective_impressions=1_000.0)
    splits = spark.createDataFrame([("p", "train")], "product_id string, split string")
    pairs = preference_pairs(
        spark.createDataFrame(told.drop(columns="true_rate")).withColumn("as_of_date", F.lit(DAY)),
        splits,
        as_of_date=DAY,
        min_probability=0.8,
    ).toPandas()
    assert len(kept) == len(pairs) > 10
    for name, ours in (("chosen_better_probability", "probability"), ("log_rate_ratio", "log_rate_ratio")):
        np.testing.assert_allclose(np.sort(pairs[name]), np.sort(kept[ours]), rtol=1e-9)


def test_right_is_what_the_truth_says():
    found = compare(RATED)
    # In g a looks better than b and is not; a and b both beat c, rightly; in h b looks better and is not.
    assert sorted(found.is_right) == [False, False, True, True]
    # By drawing both rates.
    draws = [gamma.rvs(shape, scale=1e-3, size=200_000, random_state=n) for n, shape in enumerate((30.0, 20.0))]
    assert found.probability[0] == pytest.approx((draws[0] > draws[1]).mean(), abs=0.005)


def test_caigs_filter_by_hand():
    # In g: a and b were shown more than 1,000 times, 3.0% against 2.73%: kept, a wins, wrongly. c was shown too seldom.
    # In h: 2.0% against 2.3%: kept, b wins, wrongly.
    found = compare(RATED)
    assert found.is_caig_pair.sum() == 2
    assert not found[found.is_caig_pair].is_caig_right.any()
    close = RATED.assign(num_clicks=[36, 33, 27, 40, 41])
    assert compare(close).is_caig_pair.sum() == 0  # 3.0% against 3.0%, 2.0% against 2.05%
    far = RATED.assign(num_clicks=[36, 26, 27, 40, 49])
    assert compare(far).is_caig_pair.sum() == 0  # 3.0% against 2.36%, 2.0% against 2.45%
    never = RATED.assign(num_clicks=0)
    assert compare(never).is_caig_pair.sum() == 0


def test_a_groups_true_rate_is_the_mean_over_its_cells_by_impressions():
    shares = {"x": np.array([1.0, 0.0]), "y": np.array([0.5, 0.5]), "z": np.array([0.0, 1.0])}
    rates = np.array([[0.04, 0.02], [0.01, 0.03]])
    planted = PlantedScope("s", "strong", shares, np.array(["a", "b"], dtype=object), np.array([0, 0]), rates)
    groups = ["g", "g", "g", "h"]
    cells = pd.DataFrame({"cell": ["x", "x", "y", "z"], "group_id": groups, "num_impressions": [100, 100, 200, 700]})
    found = true_rates(planted, cells)
    assert list(found) == ["g", "h"]
    np.testing.assert_allclose(found["g"], [(300 * 0.04 + 100 * 0.02) / 400, (300 * 0.01 + 100 * 0.03) / 400])


def test_a_scaled_taste_makes_as_much_less_of_every_difference():
    taste = Taste(0.3, (0.5,) * 9, (0.2,) * 9, ((0, 3, 0.4),), (0.1,) * 9)
    styles = np.random.default_rng(0).uniform(-1, 1, (5, 9))
    np.testing.assert_allclose(taste.scaled(0.3).log_lift(styles, 40.0), 0.3 * taste.log_lift(styles, 40.0))


def comparisons_of(probability: list[float], is_right: list[bool]) -> pd.DataFrame:
    keys = {"market": "easy", "condition": "even", "seed": 1, "impressions_per_arm": 300, "scope": "s"}
    frame = pd.DataFrame({"probability": probability, "is_right": is_right, "log_rate_ratio": 0.1, **keys})
    return frame.assign(product=[f"p{n // 2}" for n in range(len(frame))], is_caig_pair=False, is_caig_right=False)


def test_calibration_and_wrong_shares_by_hand():
    frame = comparisons_of([0.55, 0.95, 0.97, 0.98, 1.0, 0.92], [False, True, True, False, True, True])
    bins = {row["probability_from"]: row for row in calibrate(frame)}
    assert set(bins) == {0.5, 0.9, 0.95, 0.999}
    assert (bins[0.95]["num_pairs"], bins[0.95]["right"]) == (3, pytest.approx(2 / 3))
    assert bins[0.95]["claimed"] == pytest.approx((0.95 + 0.97 + 0.98) / 3)
    assert bins[0.95]["gap_by_seed"] == [pytest.approx(2 / 3 - (0.95 + 0.97 + 0.98) / 3)]
    kept = judge_kept(frame.assign(is_kept=frame.probability >= 0.9))
    assert (kept["num_pairs"], kept["num_insufficient"]) == (5, 1)
    assert kept["wrong_share"] == pytest.approx(0.2)
    assert kept["expected_wrong_share"] == pytest.approx((0.05 + 0.03 + 0.02 + 0.0 + 0.08) / 5)
    frame["is_caig_pair"] = [True, True, False, False, False, False]
    frame["is_caig_right"] = [True, False, False, False, False, False]
    # By our probabilities the first of CAIG's two pairs, ordered the other way round, is wrong with 0.55, the second,
    # ordered the other way round too, with 0.95. As many of ours: those of 1.0 and 0.98.
    assert compare_with_caig(frame) == {
        "num_pairs": 2,
        "caig_wrong_share": 0.5,
        "caig_expected_wrong_share": pytest.approx((0.55 + 0.95) / 2),
        "wrong_share": 0.5,
    }
    nothing = compare_with_caig(frame.assign(is_caig_pair=False))
    assert (nothing["num_pairs"], nothing["wrong_share"]) == (0, None)
    nothing = judge_kept(frame.assign(is_kept=False))
    assert (nothing["num_pairs"], nothing["wrong_share"]) == (0, None)


def test_as_many_pairs_as_caig_keeps_are_taken_at_each_level_of_impressions():
    few = comparisons_of([0.6, 0.7], [False, True]).assign(is_caig_pair=[True, False], impressions_per_arm=300)
    many = comparisons_of([0.99, 0.98, 0.97], [True, True, True]).assign(impressions_per_arm=1_000)
    found = compare_with_caig(pd.concat([few, many.assign(is_caig_pair=[True, False, False])]))
    assert found["num_pairs"] == 2
    assert found["wrong_share"] == 0.0  # 0.7 of the few, 0.99 of the many; not the two most probable of all
    wrong = compare_with_caig(pd.concat([few.assign(is_right=False), many.assign(is_caig_pair=[True, False, False])]))
    assert wrong["wrong_share"] == 0.5


def test_the_bootstrap_draws_whole_products():
    rng = np.random.default_rng(0)
    of_product = rng.normal(size=400).repeat(25)
    frame = comparisons_of([0.9] * 10_000, [True] * 10_000)
    low, high = bootstrap_mean(frame.assign(product=np.arange(400).repeat(25), gap=of_product), "gap")
    assert (high - low) / 2 == pytest.approx(1.96 / np.sqrt(400), rel=0.15)  # not 1.96 / sqrt(10,000)
    # The same products with more impressions are no further products.
    levels = frame.assign(product=np.arange(400).repeat(25), gap=of_product)
    twice = pd.concat([levels, levels.assign(impressions_per_arm=1_000)])
    low, high = bootstrap_mean(twice, "gap")
    assert (high - low) / 2 == pytest.approx(1.96 / np.sqrt(400), rel=0.15)


def test_the_bias_that_is_taken_away_by_hand():
    keys = {"market": "easy", "condition": "biased positions"}
    bias = pd.DataFrame(
        [{**keys, "with_correction": 0.03, "without": 0.5}, {**keys, "with_correction": 0.01, "without": 0.3}]
    )
    of_seed = {**keys, "what": "group_ctr", "num_cases": 50}
    intervals = pd.DataFrame([{**of_seed, "seed": 1, "num_covered": 49}, {**of_seed, "seed": 2, "num_covered": 47}])
    frame = comparisons_of([0.95, 0.6], [True, True])
    report = summarise(frame, intervals, bias, 0.9, {})
    assert report["position_bias"][0]["share_removed"] == pytest.approx(0.95)
    assert report["position_bias"][0]["log_bias_corrected_spread"] == pytest.approx(0.01 * np.sqrt(2))
    assert report["coverage"][0]["covered_share"] == 0.96
    assert report["coverage"][0]["covered_share_by_seed"] == [0.98, 0.94]
    assert report["recall"][0]["kept_and_right_share"] == 0.5


@pytest.mark.parametrize("condition", ["even", "biased positions"])
def test_probabilities_hold_and_positions_are_corrected_on_the_easy_market(condition):
    found = judge_case(PairCase("easy", condition, 105, 1_000), TreeSettings())
    for row in calibrate(found.comparisons.assign(seed=105)):
        if row["num_pairs"] >= 1_000:
            assert row["gap_low"] - 0.01 <= 0 <= row["gap_high"] + 0.01
    rates = found.intervals[found.intervals.what == "group_ctr"]
    assert 0.93 <= rates.num_covered.sum() / rates.num_cases.sum() <= 0.97
    biased, corrected = found.bias["without"].mean(), found.bias["with_correction"].mean()
    if PAIR_CONDITIONS[condition].policy.position_bias:
        assert biased > 0.3
        assert abs(corrected) < 0.1 * biased
    else:
        assert abs(corrected) < 0.05
    again = CaseFrames.unpacked(found.packed())
    pd.testing.assert_frame_equal(again.comparisons, found.comparisons)


def test_without_a_bias_there_is_nothing_to_take_away():
    keys = {"market": "easy", "condition": "even"}
    bias = pd.DataFrame([{**keys, "with_correction": 0.03, "without": 0.02}])
    intervals = pd.DataFrame([{**keys, "seed": 1, "what": "group_ctr", "num_cases": 50, "num_covered": 48}])
    report = summarise(comparisons_of([0.95, 0.6], [True, True]), intervals, bias, 0.9, {})
    assert report["position_bias"][0]["share_removed"] is None


@pytest.mark.parametrize(
    ("seeds", "impressions", "message"),
    [
        ([], [300], "different seeds"),
        ([-1], [300], "different seeds"),
        ([1, 1], [300], "different seeds"),
        ([1], [], "different levels of 50 and more"),
        ([1], [49], "different levels of 50 and more"),
        ([1], [300, 300], "different levels of 50 and more"),
    ],
)
def test_an_impossible_plan_is_refused_before_anything_runs(settings, tmp_path, seeds, impressions, message):
    with pytest.raises(ValueError, match=message):
        run_pair_bench(
            settings, tmp_path / "out", markets=["easy"], seeds=seeds, impressions=impressions, console=Console()
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_report_has_its_documented_keys(spark, settings, tmp_path):
    run_pair_bench(settings, tmp_path, markets=["easy"], seeds=[107], impressions=[300], console=Console(quiet=True))
    report = json.loads((tmp_path / "pair_quality.json").read_text())
    assert set(report) == {
        *("format", "settings", "calibration", "kept", "caig", "recall", "coverage", "position_bias")
    }
    assert len(report["kept"]) == len(PAIR_CONDITIONS)
    assert {row["what"] for row in report["coverage"]} == {"group_ctr", "preference"}
    assert (tmp_path / "pair_quality.png").stat().st_size > 10_000
