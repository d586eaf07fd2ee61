"""Read-outs: which comparisons are told, what makes an experiment unsound, and a file that claims no more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from osmf_models.evaluation.ab import ArmSums, compare_arms, sum_arm
from osmf_models.evaluation.ab_readout import (
    ArmCounts,
    ExperimentCounts,
    ReadOut,
    as_json,
    read_readout,
    write_readout,
)

DOCS = Path(__file__).resolve().parents[2] / "docs" / "ab.md"


def users(number: int, clicks: int) -> ArmSums:
    """Users with two impressions each, of whom `clicks` click once."""
    return sum_arm(np.full(number, 2), (np.arange(number) < clicks).astype(int))


def experiment(*counts: ArmCounts, **changes) -> ExperimentCounts:
    everyone = [ArmCounts("control", None, None, users(2000, 200)), ArmCounts("new", None, None, users(2000, 300))]
    told = ExperimentCounts(
        "e1",
        "2026-03-02",
        "2026-03-08",
        "2026-03-01",
        "control",
        {"control": 0.5, "new": 0.5},
        (*everyone, *counts),
        {"control": {"": 4000}, "new": {"7": 3900, "": 100}},
    )
    return replace(told, **changes)


def in_group(arm: str, group: str, number: int, clicks: int) -> ArmCounts:
    return ArmCounts(arm, "shoe", group, users(number, clicks))


GROUPS = (
    in_group("control", "g1", 500, 50),
    in_group("new", "g1", 500, 90),
    in_group("control", "g2", 500, 50),
    in_group("new", "g2", 500, 49),
    in_group("control", "g3", 60, 20),  # the other arm is below the floor
    in_group("control", "g4", 100, 20),
    in_group("new", "g4", 100, 3),
)


def test_everyone_and_each_group_that_both_arms_tell_of() -> None:
    readout = ReadOut(experiment(*GROUPS))
    (overall,) = readout.overall
    assert overall.found == compare_arms(users(2000, 300), users(2000, 200))
    assert overall.holm_p_value == overall.found.p_value
    assert overall.is_better
    assert [one.group_id for one in readout.by_group] == ["g1", "g2", "g4"]
    first, second, fourth = readout.by_group
    # Two groups have a p-value: the smaller one counts twice.
    assert first.holm_p_value == pytest.approx(2 * first.found.p_value)
    assert second.holm_p_value == pytest.approx(second.found.p_value)
    assert (first.is_better, second.is_better) == (True, False)
    assert fourth.holm_p_value is None  # three clicks
    assert readout.groups == [("shoe", "g1"), ("shoe", "g2"), ("shoe", "g3"), ("shoe", "g4")]


def test_several_arms_are_corrected_for_their_number() -> None:
    third = ArmCounts("third", None, None, users(2000, 170))
    readout = ReadOut(experiment(third, planned_shares=dict.fromkeys(("control", "new", "third"), 1 / 3)))
    new, other = readout.overall
    assert new.holm_p_value == pytest.approx(2 * new.found.p_value)
    assert other.holm_p_value == pytest.approx(other.found.p_value)


def test_a_broken_sample_ratio_tells_no_lift() -> None:
    """2,000 and 1,750 users: χ² = 16.7, p = 0.00004; planned so, it is nothing."""
    counts = (ArmCounts("control", None, None, users(2000, 200)), ArmCounts("new", None, None, users(1750, 300)))
    broken = ReadOut(experiment(counts=counts))
    assert broken.sample_ratio_p_value == pytest.approx(4.5e-5, rel=0.02)
    assert (broken.overall, broken.by_group) == ((), ())
    assert "do not split as planned: control 2,000 (0.5 planned), new 1,750 (0.5 planned)" in broken.faults[0]
    planned = ReadOut(experiment(counts=counts, planned_shares={"control": 8 / 15, "new": 7 / 15}))
    assert planned.is_sound
    assert len(planned.overall) == 1


def test_users_of_two_arms_are_a_fault_when_they_are_many() -> None:
    assert ReadOut(experiment(num_crossed_users=40)).is_sound  # of 4,040
    crossed = ReadOut(experiment(num_crossed_users=41))
    assert crossed.faults == ("41 users (1.0%) were shown more than one arm: find out why their arm changes",)
    assert crossed.overall == ()


def test_an_experiment_that_cannot_be_compared_is_named() -> None:
    wrong = {
        "one arm only (control)": {"counts": (ArmCounts("control", None, None, users(9, 1)),)},
        "no arm 'old' to hold others against: it has control, new": {"control": "old"},
        "positive share for each of control, new": {"planned_shares": {"control": 1.0}},
        "together 1": {"planned_shares": {"control": 0.5, "new": 0.6}},
        "counts an arm of a group twice": {"counts": experiment(GROUPS[0], GROUPS[0]).counts},
    }
    for message, changes in wrong.items():
        with pytest.raises(ValueError, match="experiment 'e1'") as told:
            ReadOut(experiment(**changes))
        assert message in str(told.value).replace("\n", " ")


def test_a_file_is_read_as_it_was_written_and_its_figures_are_computed_anew(tmp_path: Path) -> None:
    path = tmp_path / "new" / "readout.json"
    readout = ReadOut(experiment(*GROUPS, num_crossed_users=3))
    write_readout(path, readout, lift=0.1)
    assert read_readout(path) == readout
    told = json.loads(path.read_text())
    told["overall"][0] |= {"difference": 0.9, "holm_p_value": 0.0}
    told["faults"] = ["nothing"]
    path.write_text(json.dumps(told))
    assert read_readout(path).overall == readout.overall
    told["experiment"]["counts"][0]["num_clicks"] *= 100
    path.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"readout.json holds no read-out .*cannot be: no users"):
        read_readout(path)
    for content in ("", "[]", '{"format": "osmf-ab-readout/0"}'):
        path.write_text(content)
        with pytest.raises(ValueError, match="osmf ab --output"):
            read_readout(path)
    with pytest.raises(ValueError, match="holds no read-out"):
        read_readout(tmp_path / "none.json")


def keys_of(content: object) -> set[str]:
    if isinstance(content, list):
        return {key for one in content for key in keys_of(one)}
    if not isinstance(content, dict):
        return set()
    own = {key for key in content if key not in ("control", "new", "7", "")}  # arms and versions
    return own | {key for value in content.values() for key in keys_of(value)}


def test_every_key_of_the_file_is_in_the_documentation() -> None:
    text = DOCS.read_text()
    keys = keys_of(as_json(ReadOut(experiment(*GROUPS)), lift=0.1))
    assert len(keys) > 30
    assert sorted(key for key in keys if f"`{key}`" not in text) == []
