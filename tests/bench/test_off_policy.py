"""Exact values are those of the logs that are drawn, intervals hold them, and choosing on the same logs flatters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from osmf_models.evaluation.off_policy import on_policy, snips
from osmf_models.simulator.easy import easy_market
from osmf_pipelines.bench.off_policy import OTHER_LOGS, SAME_LOGS, replicate, sum_policy
from osmf_pipelines.bench.off_policy_report import FORMAT, judge, summarise
from osmf_pipelines.bench.policy_market import LOGGING_POLICIES, Choices, Truth, choose, draw_logs
from osmf_pipelines.bench.run_off_policy import IMPRESSIONS_PER_USER, run_off_policy_bench
from osmf_pipelines.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs" / "off_policy.md"


@pytest.fixture(scope="module", params=sorted(LOGGING_POLICIES))
def case(request: pytest.FixtureRequest) -> tuple[Choices, Truth]:
    market = easy_market(2, num_products_per_scope=2, num_creatives_per_product=4, num_users=2_000)
    return choose(market, LOGGING_POLICIES[request.param], 2, 40_000)


def test_the_exact_values_are_those_of_many_logs(case: tuple[Choices, Truth]) -> None:
    choices, truth = case
    logs = draw_logs(truth, choices, 30_000, 300_000, np.random.default_rng(0))
    sums = sum_policy(logs, choices, choices.best_per_group, 30_000)
    error = on_policy(sums).value - truth.logging_value(choices.propensities)
    assert abs(error) < 0.04 * truth.logging_value(choices.propensities)  # four standard errors of 10,000 clicks
    value = truth.value(choices.best_per_group)
    assert abs(snips(sums).value - value) < 0.08 * value
    assert value > truth.logging_value(choices.propensities)


def test_intervals_hold_the_truth_and_choosing_on_the_same_logs_flatters(case: tuple[Choices, Truth]) -> None:
    choices, truth = case
    rows = replicate(truth, choices, num_users=400, impressions=6_000, num_replications=150, seed=5)
    for (chosen_on, _, _, _), part in rows.fillna({"compared_with": ""}).groupby(
        ["chosen_on", "policy", "compared_with", "estimator"]
    ):
        told = judge(part)
        standard_error = told["error_spread"] / np.sqrt(150)
        if chosen_on == OTHER_LOGS:
            assert told["covered_share"] >= 0.85
            assert abs(told["error_mean"]) <= 4 * standard_error  # both 0: a policy against itself
        else:
            assert chosen_on == SAME_LOGS
            assert told["error_mean"] > 4 * standard_error


def test_a_replication_without_an_interval_is_counted_and_covers_nothing() -> None:
    rows = pd.DataFrame({"true_value": 0.5, "value": [0.4, 0.9, np.nan], "value_low": [0.3, 0.8, np.nan]})
    rows = rows.assign(value_high=rows["value_low"] + 0.3, effective_clicks=10.0, effective_impressions=100.0)
    told = judge(rows)
    assert (told["num_replications"], told["num_without_interval"], told["covered_share"]) == (3, 1, 0.5)
    assert told["error_mean"] == pytest.approx((-0.1 + 0.4) / 2)
    assert told["width_mean"] == pytest.approx(0.3)


def test_every_key_of_the_report_is_in_the_documentation(case: tuple[Choices, Truth]) -> None:
    choices, truth = case
    rows = replicate(truth, choices, num_users=100, impressions=2_000, num_replications=2, seed=0)
    report = summarise(rows.assign(logging_policy="uniform", impressions=2_000), None, {})
    json.dumps(report, allow_nan=False, default=np.generic.item)
    text = DOCS.read_text()
    assert FORMAT in text
    assert [key for row in report["coverage"] for key in row if f"`{key}`" not in text] == []


def test_levels_of_fewer_than_a_hundred_users_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"levels of {100 * IMPRESSIONS_PER_USER} and more"):
        run_off_policy_bench(
            Settings(home=tmp_path),
            tmp_path / "out",
            logging_policies=["uniform"],
            impressions=[100 * IMPRESSIONS_PER_USER - 1],
            num_replications=2,
            seed=0,
            has_open_bandit=False,
            console=Console(quiet=True),
        )
    assert not (tmp_path / "out").exists()
