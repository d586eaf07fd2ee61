"""Sums of an experiment's arms, against users one by one; and arms whose lift is planted."""

from __future__ import annotations

import io
from datetime import date

import numpy as np
import pytest
from rich.console import Console

from osmf_models.evaluation.ab import SUM_NAMES, sum_arm
from osmf_models.evaluation.ab_readout import ReadOut
from osmf_pipelines.cli.ab import parse_split, print_readout
from osmf_pipelines.serving.assign import EVERYONE_ELSE
from osmf_pipelines.spark.experiment_arms import (
    choose_groups_date,
    count_experiment,
    days_of_experiment,
    exposures_between,
)

DDL = """event_date date, scope string, cell string, user_id string, is_clicked boolean, experiment_id string,
    arm string, model_version string"""
DAY, NEXT = date(2026, 3, 2), date(2026, 3, 3)


def shown(user, arm, clicked, *, cell="age=young", scope="shoe", experiment="e1", day=DAY, version=None):
    return (day, scope, cell, user, clicked, experiment, arm, version)


@pytest.fixture(scope="module")
def exposures(spark):
    """Users a1 and a2 of arm a, b1 and b2 of arm b, one who changes the arm; then what does not count."""
    rows = [
        shown("a1", "a", True),
        shown("a1", "a", False),
        shown("a1", "a", True, scope="bag"),
        shown("a2", "a", False, cell="age=old", day=NEXT),
        shown("b1", "b", True, version="7"),
        shown("b1", "b", True, version="7"),
        shown("b1", "b", False, cell="age=baby", version="7"),
        shown("b2", "b", False, cell="age=old"),
        shown("both", "a", True),
        shown("both", "b", False),
        shown("c1", None, True),
        shown(None, "a", True),
        shown("a1", "a", True, experiment="e2", day=NEXT),
        shown("a1", "a", True, experiment=None),
    ]
    return spark.createDataFrame(rows, DDL)


@pytest.fixture(scope="module")
def groups(spark):
    rows = [
        ("shoe", "age=young", "g1"),
        ("shoe", "age=old", "g2"),
        ("shoe", EVERYONE_ELSE, "g0"),
        ("bag", "age=young", "h"),
    ]
    return spark.createDataFrame(rows, "scope string, cell string, group_id string")


def counted(exposures, groups, **changes):
    options = {"experiment_id": "e1", "groups_as_of": DAY, "control": "a", "planned_shares": None, "min_users": 1}
    return count_experiment(exposures, groups, **(options | changes))


def sums_of(*users):
    impressions, clicks = zip(*users, strict=True)
    return sum_arm(np.array(impressions), np.array(clicks))


def test_sums_are_those_of_users_one_by_one(exposures, groups) -> None:
    told = counted(exposures, groups)
    found = {(one.arm, one.scope, one.group_id): one.sums for one in told.counts}
    assert found == {
        ("a", None, None): sums_of((3, 2), (1, 0)),
        ("b", None, None): sums_of((3, 2), (1, 0)),
        ("a", "shoe", "g1"): sums_of((2, 1)),
        ("a", "bag", "h"): sums_of((1, 1)),
        ("a", "shoe", "g2"): sums_of((1, 0)),
        ("b", "shoe", "g1"): sums_of((2, 2)),
        ("b", "shoe", "g2"): sums_of((1, 0)),
        ("b", "shoe", "g0"): sums_of((1, 0)),  # of a cell that no rule names
    }
    assert (told.num_crossed_users, told.num_left_out_impressions) == (1, 2)
    assert told.model_versions == {"a": {"": 5}, "b": {"7": 3, "": 2}}
    assert (told.first_date, told.last_date, told.groups_as_of) == ("2026-03-02", "2026-03-03", "2026-03-02")
    assert told.planned_shares == {"a": 0.5, "b": 0.5}


def test_what_cannot_be_compared_is_told_with_what_there_is(exposures) -> None:
    with pytest.raises(ValueError, match=r"'e9'; there are: e1 \(2026-03-02 to 2026-03-03, 12 impressions\), e2 \("):
        counted(exposures, None, experiment_id="e9")
    with pytest.raises(ValueError, match=r"no arm called control: name .*--control ARM. It has a, b"):
        counted(exposures, None, control=None)
    with pytest.raises(ValueError, match=r"arms of fewer than 3 users \(a 2, b 2\)"):
        counted(exposures, None, min_users=3)
    other = counted(exposures_between(exposures, NEXT, None), None, experiment_id="e2", control=None)
    assert (other.first_date, other.groups_as_of, other.control) == ("2026-03-03", None, "a")
    with pytest.raises(ValueError, match=r"'e2' has one arm only \(a\)"):
        ReadOut(other)
    with pytest.raises(ValueError, match="there are: e1"):
        days_of_experiment(exposures_between(exposures, None, DAY), "e2")


def test_groups_are_those_of_the_last_day_before_the_experiment() -> None:
    days = [date(2026, 3, day) for day in (1, 4, 2)]
    assert choose_groups_date(days, date(2026, 3, 3)) == date(2026, 3, 2)
    assert choose_groups_date(days, date(2026, 3, 1)) == date(2026, 3, 1)
    assert choose_groups_date([], DAY) is None


def test_splits_are_shares() -> None:
    assert parse_split([]) is None
    assert parse_split(["a=9", "x=y=1"]) == {"a": 0.9, "x=y": 0.1}
    for wrong in (["a"], ["a=0"], ["=1"], ["a=nan"], ["a=1", "a=2"], ["a=-1"], ["a=inf"]):
        with pytest.raises(ValueError, match="write ARM=SHARE"):
            parse_split(wrong)


def test_planted_arms_from_exposures_to_the_table(spark) -> None:
    """Arm `b` clicks 60% more among the young, nothing more among the old; a group of few users is not told."""
    rng = np.random.default_rng(5)
    users = np.arange(2000)
    arm, cell = users % 2, np.where(users < 60, 2, rng.integers(0, 2, 2000))
    rate = 0.05 * np.exp(rng.normal(-0.125, 0.5, 2000)) * np.where((arm == 1) & (cell == 0), 1.6, 1.0)
    impressions = rng.integers(1, 41, 2000)
    clicks = rng.binomial(impressions, rate)
    columns = (np.array(["a", "b"])[arm], np.array(["age=young", "age=old", "age=few"])[cell], impressions, clicks)
    per_user = [(f"u{u}", *row) for u, row in enumerate(zip(*(column.tolist() for column in columns), strict=True))]
    frame = spark.createDataFrame(per_user, "user_id string, arm string, cell string, n int, k int").selectExpr(
        "DATE'2026-03-02' AS event_date", "'shoe' AS scope", "cell", "user_id", "'e1' AS experiment_id", "arm",
        "'[7]' AS model_version", "explode(transform(sequence(1, n), i -> i <= k)) AS is_clicked",
    )  # fmt: skip
    cells = [("shoe", "age=young", "[g]"), ("shoe", "age=old", "g2"), ("shoe", "age=few", "g3")]
    groups = spark.createDataFrame(cells, "scope string, cell string, group_id string")
    readout = ReadOut(counted(frame, groups, min_users=50))
    for name in ("a", "b"):
        of_arm = arm == "ab".index(name)
        found, expected = readout.sums_of(name), sum_arm(impressions[of_arm], clicks[of_arm])
        assert {key: getattr(found, key) for key in SUM_NAMES} == {key: getattr(expected, key) for key in SUM_NAMES}
    assert readout.sample_ratio_p_value == 1.0
    by_group = {one.group_id: one for one in readout.by_group}
    assert set(by_group) == {"[g]", "g2"}
    assert by_group["[g]"].found.lift_low < 0.6 < by_group["[g]"].found.lift_high
    assert by_group["g2"].found.lift_low < 0.0 < by_group["g2"].found.lift_high
    assert (by_group["[g]"].is_better, by_group["g2"].is_better) == (True, False)
    console = Console(file=io.StringIO(), width=180)
    print_readout(readout, console, lift=0.05)
    text = console.file.getvalue()
    assert all(part in text for part in ("Experiment e1", "[7]", "shoe [g]", "users like these in each arm"))
