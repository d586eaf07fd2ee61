"""An A/B read-out before the gate: what it must have won, against whom, and that it enters the trail."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from registered_versions import PAIRS, lines_of, record_of
from rich.console import Console

from osmf_models.evaluation.ab import ArmSums
from osmf_models.evaluation.ab_readout import ArmCounts, ExperimentCounts, ReadOut, write_readout
from osmf_pipelines.cli.promotion import run_promote
from osmf_pipelines.promotion.promote import PromotionRefusedError, Promotions, trail_path
from osmf_pipelines.promotion.readout import Evidence, judge_readout, names_of
from osmf_pipelines.promotion.registry import RegisteredVersion

OWN, CHAMPION = frozenset({"2", "shop/2"}), frozenset({"1", "shop/1"})


def users(number: int, clicks: int) -> ArmSums:
    """Users with one impression each."""
    return ArmSums(number, number, clicks, number, clicks, clicks)


def experiment(new: int = 600, *, g1: int = 300, g2: int = 300, **changes) -> ExperimentCounts:
    """Of 10,000 users an arm 500 click in the control, `new` in the other; 250 in each of two groups' controls."""
    counts = (
        ArmCounts("control", None, None, users(10_000, 500)),
        ArmCounts("new", None, None, users(10_000, new)),
        *(ArmCounts("control", "shoe", group, users(5_000, 250)) for group in ("g1", "g2")),
        ArmCounts("new", "shoe", "g1", users(5_000, g1)),
        ArmCounts("new", "shoe", "g2", users(5_000, g2)),
    )
    versions = {"control": {"1": 10_000}, "new": {"2": 9_000, "": 1_000}}
    shares = {"control": 0.5, "new": 0.5}
    told = ExperimentCounts("e1", "2026-06-01", "2026-06-14", "2026-05-31", "control", shares, counts, versions)
    return replace(told, **changes)


def judged(told: ExperimentCounts, champion=CHAMPION):
    return judge_readout(ReadOut(told), OWN, champion)


def test_an_arm_that_won_everywhere_passes_with_its_figures() -> None:
    verdict = judged(experiment())
    assert verdict.reasons == ()
    assert verdict.figures["ab_lift"] == pytest.approx(0.2)
    assert 0 < verdict.figures["ab_lift_low"] < 0.2 < verdict.figures["ab_lift_high"]
    assert verdict.figures["ab_worst_group_lift"] == pytest.approx(0.2)
    assert verdict.figures["ab_p_value"] < 0.05


REFUSED = {
    "no difference": (experiment(510), "not above the control by more than chance explains: lift .2.00%"),
    "worse": (experiment(400), "not above the control"),
    "a group lost": (experiment(g1=420, g2=180), r"below the control in 1 of 2 groups: shoe g2 \(-28.0%\)"),
    "too few clicks": (experiment(9, g1=9, g2=9), "too few clicks"),
    "control of another": (
        experiment(model_versions={"control": {"3": 1}, "new": {"2": 1}}),
        "control of experiment e1 shows what 3 drew, and not the champion: .*model_version 1",
    ),
    "control of no model": (experiment(model_versions={"control": {"": 1}, "new": {"2": 1}}), "what no model drew"),
    "another's arm": (
        experiment(model_versions={"control": {"1": 1}, "new": {"3": 1}}),
        "no arm beside the control that it drew .*new: 3",
    ),
    "a mixed arm": (
        experiment(model_versions={"control": {"1": 1}, "new": {"2": 1, "3": 1}}),
        "arm new of experiment e1 shows what other versions drew too: 3",
    ),
    "users lost": (experiment(planned_shares={"control": 0.6, "new": 0.4}), "not sound: users do not split as planned"),
    "users crossed": (experiment(num_crossed_users=900), "not sound: 900 users"),
}


@pytest.mark.parametrize("harm", REFUSED)
def test_what_is_refused_and_why(harm) -> None:
    told, reason = REFUSED[harm]
    assert not judged(told).is_passed
    assert any(re.search(reason, one) for one in judged(told).reasons), judged(told).reasons


def test_without_a_champion_any_control_will_do() -> None:
    told = experiment(model_versions={"control": {"": 1}, "new": {"shop/2": 1}})
    assert judged(told, champion=None).is_passed


def test_fewer_clicks_never_turn_a_refusal_into_a_pass() -> None:
    passed = [judged(experiment(new)).is_passed for new in range(400, 700, 4)]
    assert passed == sorted(passed)
    assert (passed[0], passed[-1]) == (False, True)
    # A group that wins less does not hide one that loses.
    hidden = [judged(experiment(g1=number, g2=200)).is_passed for number in range(440, 240, -4)]
    assert hidden == sorted(hidden, reverse=True)
    in_group = [judged(experiment(g1=420, g2=number)).is_passed for number in range(150, 260, 4)]
    assert in_group == sorted(in_group)
    assert (in_group[0], in_group[-1]) == (False, True)


def test_a_version_is_named_by_number_uri_or_hash() -> None:
    version = RegisteredVersion(7, "file:///x", "a" * 64, "")
    assert names_of("shop", version) == {"7", "shop/7", "models:/shop/7", "a" * 64}
    assert "" not in names_of("shop", replace(version, artifact_sha256=""))


def test_a_won_test_makes_a_champion_and_stands_in_the_trail(registry, home, tmp_path) -> None:
    """Without a truth: the first version becomes champion by a test against logged pictures, the second against it."""
    promotions, console = Promotions(home), Console(file=io.StringIO(), width=200)
    record = record_of(None, lift=0.3, pairs=PAIRS)
    for label in ("first", "second"):
        promotions.register(registry.add(label, record, first=record), by="asset")
    path = tmp_path / "readout.json"
    versions = {"control": {"": 10_000}, "new": {"shop/1": 10_000}}
    write_readout(path, ReadOut(experiment(model_versions=versions)), lift=0.05)
    run_promote(home, console, 1, "", "", path)
    assert registry.aliases() == {"champion": 1, "challenger": 2}

    write_readout(path, ReadOut(experiment(510)), lift=0.05)
    with pytest.raises(PromotionRefusedError, match=r"version 2 is refused: in experiment e1 it is not above"):
        run_promote(home, console, None, "", "", path)
    write_readout(path, ReadOut(experiment()), lift=0.05)
    run_promote(home, console, None, "", "", path)
    assert registry.aliases() == {"champion": 2}
    text = console.file.getvalue()
    assert "shop version 2 is champion" in text
    assert "ab_lift_low" in text
    grounds = lines_of(trail_path(home))[-1]["grounds"]
    assert grounds["readout"] == {
        "sha256": Evidence.read(path).sha256,
        "experiment_id": "e1",
        "first_date": "2026-06-01",
        "last_date": "2026-06-14",
        "control": "control",
    }
    assert grounds["figures"]["ab_lift"] == pytest.approx(0.2)


def test_a_won_test_does_not_stand_in_for_the_gate(registry, home, tmp_path) -> None:
    registry.add("blurred", record_of(None, lift=0.3, pairs=PAIRS, fidelity=0.5))
    path: Path = tmp_path / "readout.json"
    write_readout(path, ReadOut(experiment(model_versions={"control": {}, "new": {"1": 1}})), lift=0.05)
    with pytest.raises(PromotionRefusedError, match="product_fidelity"):
        Promotions(home).promote(1, by="ada", evidence=Evidence.read(path))
    with pytest.raises(ValueError, match="holds no read-out"):
        run_promote(home, Console(file=io.StringIO()), 1, "", "", tmp_path / "none.json")
    assert registry.aliases() == {}
