"""The whole benchmark, small: planted segments are found, agreement is left whole, the report has its keys."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from osmf_models.simulator.serving import Policy
from osmf_pipelines.bench.grouping import (
    CONDITIONS,
    LEVEL_CLICKS,
    MARKETS,
    Case,
    count_case,
    plan_cases,
    score_case,
    score_unseen,
)
from osmf_pipelines.bench.grouping_report import BenchFrames, summarise
from osmf_pipelines.bench.run_grouping import run_grouping_bench
from osmf_pipelines.spark.preference_cuts import TreeSettings


def test_as_many_clicks_come_as_are_wanted():
    counts = count_case(Case("easy", "uneven", 3, 2_000, ("mug",)))
    assert counts.rows.num_clicks.sum() == pytest.approx(2_000, rel=0.1)


def test_uneven_users_differ_fourfold_in_activity_and_see_what_they_like():
    condition = CONDITIONS["uneven"]
    factors = [factor for _, values in condition.activity for factor in values]
    assert max(factors) / min(factors) == 4.0
    assert condition.policy == Policy("taste", 0.3)


def test_plans_hold_every_level_for_every_seed_and_agreeing_scopes_of_seeds_of_their_own():
    cases = plan_cases(list(MARKETS), [1, 4], [1_000, LEVEL_CLICKS], 3)
    assert len(cases) == len(MARKETS) * 2 * 2 * 2 + 2 * 3
    alone = [case for case in cases if case.scopes]
    assert {case.seed for case in alone} == {5, 6, 7}
    assert all(case.clicks_wanted == LEVEL_CLICKS for case in alone)
    assert len(set(cases)) == len(cases)


@pytest.mark.parametrize("condition", list(CONDITIONS))
def test_the_tree_finds_the_easy_markets_segments_and_no_others(condition):
    rows = score_case(Case("easy", condition, 101, LEVEL_CLICKS), TreeSettings())
    adaptive = rows[rows.method == "adaptive"].set_index("scope")
    assert (adaptive.drop("mug").adjusted_rand_index >= 0.98).all()
    assert adaptive.num_groups["mug"] == 1
    for other in ("one_group", "attribute_cross"):
        gain = rows[rows.method == other].set_index("scope").heldout_gain_per_1000
        assert (adaptive.drop("mug").heldout_gain_per_1000 > gain.drop("mug")).all()


def test_tastes_hold_on_later_days_of_products_that_were_never_seen():
    rows = score_unseen(Case("easy", "uneven", 101, LEVEL_CLICKS), TreeSettings()).set_index(["method", "scope"])
    gain = rows.unseen_gain_per_1000
    assert (gain["adaptive"].drop("mug") > 1.0).all()
    assert (gain["adaptive"].drop("mug") > gain["attribute_cross"].drop("mug")).all()
    assert gain["adaptive"]["mug"] == 0.0
    assert (gain["one_group"] == 0.0).all()
    # Three in ten products, one day.
    assert rows.unseen_impressions["adaptive"].sum() < 0.35 * 4 * LEVEL_CLICKS / 0.03


def test_gains_of_a_market_are_weighted_by_what_was_held_out():
    keys = {"market": "easy", "condition": "even", "clicks_wanted": LEVEL_CLICKS, "kind": "strong"}
    told = {"num_clicks": 1, "num_users": 1, "num_segments": 2, "num_groups": 2, "adjusted_rand_index": 0.5}
    rows = pd.DataFrame(
        [
            {**keys, **told, "seed": seed, "scope": scope, "method": "kmeans", "heldout_gain_per_1000": gain,
             "heldout_impressions": shown, "ctr_share_of_oracle": 0.9, "seconds": 1.0}
            for seed, scope, gain, shown in [(1, "a", 1.0, 100.0), (1, "b", 4.0, 300.0), (2, "a", 2.0, 50.0)]
        ]
    )  # fmt: skip
    empty = pd.DataFrame(columns=["market", "condition", "users_kept_share", "clicks_wanted", "num_days"])
    unseen = empty.assign(method=[], seed=[], unseen_impressions=[], unseen_gain_per_1000=[])
    report = summarise(BenchFrames(rows, unseen, empty, empty), {})
    assert report["methods"][0]["heldout_gain_per_1000_by_seed"] == [3.25, 2.0]
    assert report["methods"][0]["heldout_gain_per_1000_mean"] == 2.625


def test_scopes_that_are_not_divided_do_not_count_as_stable():
    keys = {"market": "easy", "condition": "even", "seed": 1}
    stability = pd.DataFrame(
        [
            {**keys, "scope": "shoe", "users_kept_share": 0.9, "num_groups": 3},
            {**keys, "scope": "mug", "users_kept_share": 1.0, "num_groups": 1},
        ]
    )
    names = ["market", "condition", "clicks_wanted", "seed", "scope", "method", "kind"]
    none = pd.DataFrame(columns=[*names, "num_groups", "num_days", "adjusted_rand_index"])
    report = summarise(BenchFrames(none, none, stability, none), {})
    assert report["stability"][0]["users_kept_share_mean"] == 0.9
    assert (report["stability"][0]["num_scopes"], report["stability"][0]["num_scopes_divided"]) == (2, 1)


@pytest.mark.parametrize(
    ("seeds", "clicks", "message"),
    [
        ([], [1_000], "different seeds"),
        ([-1], [1_000], "different seeds"),
        ([1, 1], [1_000], "different seeds"),
        ([1], [], "a scope needs 200"),
        ([1], [199], "a scope needs 200"),
    ],
)
def test_an_impossible_plan_is_refused_before_anything_runs(settings, tmp_path, seeds, clicks, message):
    with pytest.raises(ValueError, match=message):
        run_grouping_bench(
            settings, tmp_path / "out", markets=["easy"], seeds=seeds, clicks=clicks, num_agreeing=0, console=Console()
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_report_has_its_documented_keys(spark, settings, tmp_path):
    run_grouping_bench(
        settings,
        tmp_path,
        markets=["easy"],
        seeds=[103],
        clicks=[LEVEL_CLICKS],
        num_agreeing=2,
        console=Console(quiet=True),
    )
    report = json.loads((tmp_path / "grouping.json").read_text())
    assert set(report) == {
        *("format", "settings", "recovery", "agreeing", "methods", "unseen", "stability", "taste_change", "scopes")
    }
    methods = pd.DataFrame(report["methods"])
    assert set(methods.method) == {"adaptive", "one_group", "attribute_cross", "kmeans"}
    best = methods.sort_values("heldout_gain_per_1000_mean").groupby(["market", "condition"]).method.last()
    assert (best == "adaptive").all()
    assert {row["num_scopes"] for row in report["agreeing"]} == {3}
    assert np.isfinite([row["users_kept_share_min"] for row in report["stability"]]).all()
    assert (tmp_path / "grouping.png").stat().st_size > 10_000
