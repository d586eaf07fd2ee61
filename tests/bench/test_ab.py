"""A simulated experiment: exact rates are those of many clicks, intervals hold them, and every key is documented."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from osmf_models.evaluation.ab_readout import ReadOut
from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import Market, segment_shares_of
from osmf_pipelines.bench.ab import (
    AGAIN,
    Design,
    judge,
    replicate,
    replicate_same,
    run_once,
    sample_ratio_alarms,
)
from osmf_pipelines.bench.ab_market import (
    CONTROL,
    PER_GROUP,
    Arm,
    Crowd,
    assign_arms,
    crowd_of,
    exact_rates,
    logged_arms,
    run_experiment,
)
from osmf_pipelines.bench.ab_report import FORMAT, plot, summarise
from osmf_pipelines.bench.market_counts import cell_texts
from osmf_pipelines.bench.policy_market import LOGGING_POLICIES, choose

DOCS = Path(__file__).resolve().parents[2] / "docs" / "ab.md"
HALVES = {CONTROL: 0.5, PER_GROUP: 0.5}
DESIGN = Design(num_users=1_000, impressions=20_000, num_replications=150, seed=3, min_users=50)


def planted_groups(market: Market) -> dict[str, list[list[str]]]:
    """Cells of each segment, by scope: easy segments lie along the attributes."""
    found: dict[str, list[list[str]]] = {}
    for scope in market.scopes:
        of_cell = {cell: set(segment_shares_of(market, scope.name, cell)) for cell in cell_texts(market.population)}
        found[scope.name] = [[cell for cell in of_cell if of_cell[cell] == {one.name}] for one in scope.segments]
    return found


@pytest.fixture(scope="module")
def logged() -> tuple[Crowd, list[Arm]]:
    """The logged best for all and the best in each planted segment."""
    market = easy_market(2, num_products_per_scope=2, num_creatives_per_product=4, num_users=2_000)
    choices, truth = choose(market, LOGGING_POLICIES["uniform"], 2, 40_000, planted_groups(market))
    crowd, arms = crowd_of(truth, choices, market), logged_arms(truth, choices)
    for arm, policy in zip(arms, (arms_policy(choices, 0), arms_policy(choices, 1)), strict=True):
        assert exact_rates(crowd, arm)[arm.name, None, None] == pytest.approx(truth.value(policy))
    return crowd, arms


def arms_policy(choices, place):
    """The policies that `Truth.value` values: an independent sum over the same users."""
    num_groups = choices.rates.shape[1]
    return (np.repeat(choices.best_for_all[:, None], num_groups, axis=1), choices.best_per_group)[place]


def test_exact_rates_are_those_of_many_clicks_everyone_and_in_groups(logged) -> None:
    crowd, arms = logged
    counts = run_experiment(crowd, arms, HALVES, num_users=60_000, impressions=1_200_000, key=1, min_users=50)
    exact = exact_rates(crowd, arms[0]) | exact_rates(crowd, arms[1])
    told = [one for one in counts.counts if one.sums.is_enough]
    away = [
        (one.sums.click_rate - exact[one.arm, one.scope, one.group_id]) / math.sqrt(one.sums.rate_variance)
        for one in told
    ]
    assert len(told) == 2 * (1 + 11)
    assert max(map(abs, away)) < 4.5
    assert np.std(away) < 1.6
    everyone = {one.arm: one.sums.num_users for one in counts.counts if one.group_id is None}
    assert everyone[CONTROL] == pytest.approx(everyone[PER_GROUP], rel=0.03)
    assert ReadOut(counts).is_sound


def test_intervals_hold_the_exact_difference_and_nothing_is_found_between_the_same(logged) -> None:
    crowd, arms = logged
    rows = replicate(crowd, arms, HALVES, DESIGN)
    everyone = judge(rows[rows.group_id.isna()])
    assert everyone["num_read_outs"] == 150
    assert everyone["covered_share"] == pytest.approx(0.95, abs=0.05)
    assert everyone["lift_covered_share"] == pytest.approx(0.95, abs=0.05)
    assert everyone["significant_share"] == pytest.approx(everyone["expected_significant_share"], abs=0.12)
    assert judge(rows[rows.group_id.notna()])["covered_share"] > 0.9
    same = replicate_same(crowd, arms[0], DESIGN)
    assert set(same.arm) == {AGAIN}
    found = judge(same[same.group_id.isna()])
    assert (found["true_difference"], found["true_lift"]) == (0.0, 0.0)
    assert found["significant_share"] < 0.11


def test_the_sample_ratio_check_sees_lost_users_and_little_else() -> None:
    design = Design(20_000, 400_000, 200, 1, 50)
    alarms = sample_ratio_alarms({"a": 0.8, "b": 0.2}, design)
    assert alarms["alarm_share"] < 0.02
    assert alarms["alarm_share_when_lost"] > 0.9
    assert alarms["lost_share"] == 0.1


def test_a_users_arm_hangs_on_the_user_and_the_key_alone() -> None:
    shares = {"a": 0.7, "b": 0.2, "c": 0.1}
    few, many = assign_arms(100, shares, 5), assign_arms(50_000, shares, 5)
    assert (many[:100] == few).all()
    assert np.bincount(many) / 50_000 == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    other = assign_arms(50_000, shares, 6)
    # Independent of another experiment's: the share of the same arm is Σ share².
    assert (many == other).mean() == pytest.approx(0.54, abs=0.012)


def test_the_report_is_as_documented(logged, tmp_path) -> None:
    crowd, arms = logged
    design = Design(400, 4_000, 2, 3, 50)
    rows, same = replicate(crowd, arms, HALVES, design), replicate_same(crowd, arms[0], design)
    exact = exact_rates(crowd, arms[0])
    readout = run_once(crowd, arms, HALVES, design, 0)
    report = summarise(
        readout, rows, same, sample_ratio_alarms(HALVES, design), exact=exact, settings=vars(design) | {"lift": 0.05}
    )
    json.dumps(report, allow_nan=False)
    text = DOCS.read_text()
    assert FORMAT in text
    named = {key for part in ("exact_rates", "against_truth", "replications") for row in report[part] for key in row}
    named |= {*report, *report["sample_ratio"]}
    assert sorted(key for key in named if f"`{key}`" not in text) == []
    found = {row["group_id"]: row for row in report["against_truth"]}
    assert found[None]["difference"] == readout.overall[0].found.difference
    plot(report, tmp_path / "ab.png")
    assert (tmp_path / "ab.png").stat().st_size > 10_000
