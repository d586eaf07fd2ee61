"""What the files of a day tell, by hand: lifts, calibration, verdict, curves; and what is broken is said."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from osmf_models.evaluation.evaluation_record import EvaluationRecord, JudgedCase, write_records
from osmf_models.evaluation.gallery import GALLERY_COLUMNS, GALLERY_NAME
from osmf_pipelines.bench.ablation_figures import FIGURES
from osmf_pipelines.bench.ablation_report import FORMAT
from osmf_pipelines.promotion.audit import Aliases, Entry
from osmf_pipelines.report.facts import (
    AblationFacts,
    EvaluationFacts,
    ImplicitRewardFacts,
    Missing,
    TrainingLog,
    VerdictFacts,
)
from osmf_pipelines.report.read import (
    calibration_of,
    lifts_of,
    read_ablation,
    read_evaluation,
    read_implicit_rewards,
    read_training,
    unless_broken,
    verdict_of,
)


def record(rates: dict[str, float], lift: float | None = None, *, is_known: bool = True) -> EvaluationRecord:
    """Two products of one scope, a group's rate on both the same: intervals over products are points."""
    cases = tuple(
        JudgedCase("shoe", group, product, rate if is_known else None, 0.9 if is_known else None, lift, 1.0)
        for group, rate in rates.items()
        for product in ("p", "q")
    )
    return EvaluationRecord("a", "s", None, {}, cases)


RECORDS = {
    "pretrained": record({"g": 0.03, "h": 0.05}),
    "global_dpo": record({"g": 0.06, "h": 0.04}),
    "group_dpo": record({"g": 0.08, "h": 0.01}),
}


def test_a_group_gains_the_difference_of_its_rates() -> None:
    lifts = lifts_of(RECORDS, "true_ctr_rate")
    assert list(lifts) == ["global_dpo", "pretrained"]
    gain, loss = lifts["global_dpo"]
    assert (gain.group_id, gain.own, gain.other, gain.is_lifted) == (
        "g",
        pytest.approx(0.08),
        pytest.approx(0.06),
        True,
    )
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.02, 0.02, 0.02))
    assert (loss.group_id, loss.value, loss.is_lifted, loss.is_lowered) == ("h", pytest.approx(-0.03), False, True)


def test_a_model_alone_has_no_lift() -> None:
    assert lifts_of({"group_dpo": RECORDS["group_dpo"]}, "true_ctr_rate") == {}
    assert lifts_of({"pretrained": RECORDS["pretrained"]}, "true_ctr_rate") == {}
    assert lifts_of(RECORDS, "predicted_log_lift") == {}


def test_an_evaluation_tells_its_arms_in_order_and_whether_the_truth_is_known(tmp_path: Path) -> None:
    write_records(tmp_path / "evaluation_records.json", RECORDS)
    metrics = {f"{arm}/mean_ctr": 0.1 for arm in ("oracle", "group_dpo", "chosen_only", "pretrained", "random")}
    metrics["group_dpo_minus_pretrained/mean_ctr"] = 0.0
    (tmp_path / "run.json").write_text(json.dumps({"metrics": metrics}))
    facts = read_evaluation(tmp_path)
    assert isinstance(facts, EvaluationFacts)
    assert (facts.is_truth_known, facts.num_products) == (True, 2)
    assert facts.arms == ["random", "pretrained", "chosen_only", "group_dpo", "oracle"]
    assert isinstance(facts.gallery, Missing)
    assert "gallery.parquet holds no gallery" in facts.gallery.why
    assert isinstance(facts.implicit_rewards, Missing)


def test_what_pairs_say_is_read_by_model(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    one_bin = {"claimed_from": 0.9, "num_pairs": 7, "mean_claimed": 0.95, "mean_right": 0.9}
    told = {"pretrained": None, "group_dpo": {"pair_accuracy": 0.8, "calibration": [one_bin]}}
    path.write_text(json.dumps({"rows": [], "implicit_reward": told}))
    own = ImplicitRewardFacts({"pair_accuracy": 0.8}, [(0.95, 0.9, 7)])
    assert read_implicit_rewards(path) == {"pretrained": None, "group_dpo": own}
    path.write_text('{"rows": []}')
    with pytest.raises(ValueError, match="says nothing of held-out pairs"):
        read_implicit_rewards(path)


def test_a_broken_picture_costs_the_gallery_and_no_more(tmp_path: Path) -> None:
    write_records(tmp_path / "evaluation_records.json", RECORDS)
    (tmp_path / "run.json").write_text(json.dumps({"metrics": {"group_dpo/mean_ctr": 0.1}, "mlflow_run_id": "r"}))
    row = ("group_dpo", "shoe", "../p", "shoe", "g", "words", 0.1, b"<svg onload=alert(1)>")
    pd.DataFrame([row], columns=list(GALLERY_COLUMNS)).to_parquet(tmp_path / GALLERY_NAME)
    facts = read_evaluation(tmp_path)
    assert (facts.mlflow_run_id, facts.arms) == ("r", ["group_dpo"])
    assert isinstance(facts.gallery, Missing)
    assert "picture of group_dpo of ../p is no readable PNG" in facts.gallery.why


def test_without_a_truth_predictions_are_told(tmp_path: Path) -> None:
    records = {
        "group_dpo": record({"g": 0.0}, 0.2, is_known=False),
        "pretrained": record({"g": 0.0}, 0.1, is_known=False),
    }
    write_records(tmp_path / "evaluation_records.json", records)
    (tmp_path / "run.json").write_text(json.dumps({"metrics": {"group_dpo/predicted_log_lift": 0.2}}))
    facts = read_evaluation(tmp_path)
    assert (facts.is_truth_known, facts.arms) == (False, ["group_dpo"])
    assert facts.predicted["group_dpo", "g", "p"] == 0.2
    assert facts.lifts["pretrained"][0].value == pytest.approx(0.1)


def test_calibration_is_pooled_over_scopes_by_comparisons() -> None:
    """100 right of 0.9 and 300 of 0.5: (90 + 150) / 400."""

    def row(measure: str, start: float | None, value: float, num_cases: int) -> dict:
        return {"measure": measure, "probability_from": start, "value": value, "num_cases": num_cases}

    rows = [
        row("right_share", 0.5, 0.9, 100),
        row("right_share", 0.5, 0.5, 300),
        row("claimed_right_share", 0.5, 0.7, 100),
        row("claimed_right_share", 0.5, 0.6, 300),
        row("wrong_share", None, 0.1, 10),
        row("wrong_share", None, 0.0, 30),
        row("num_groups", None, 4.0, 1000),
    ]
    wrong, bins = calibration_of(rows)
    assert wrong == pytest.approx(0.025)
    assert bins == [(pytest.approx(0.625), pytest.approx(0.6), 400)]
    assert calibration_of([]) == (None, [])


def test_the_verdict_is_that_of_the_registration() -> None:
    row = {"model_name": "m", "model_version": 2, "alias": "none"}
    before = Aliases(champion=1)
    other = Entry("register", "done", "x", 1, Aliases(), Aliases(champion=1))
    refused = Entry(
        "register", "refused", "x", 2, before, before, ("too blurred",), {"figures": {"picture_quality": 0.5}}
    )
    later = Entry("promote", "refused", "x", 2, before, before, ("again",))
    assert verdict_of(row, [other, refused, later]) == VerdictFacts(
        "m", 2, "none", ("too blurred",), {"picture_quality": 0.5}, 1
    )
    assert verdict_of(row, [other]) == VerdictFacts("m", 2, "none")


def test_curves_are_read_without_what_is_not_finite(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/loss": NaN}\n')
    folders = {"pretrained": tmp_path, "group_dpo": tmp_path / "none"}
    assert read_training(folders) == [TrainingLog("pretrained", [{"step": 1, "train/loss": 2.0}, {"step": 2}])]
    assert isinstance(read_training({}), Missing)


def test_what_is_broken_is_said_and_what_is_absent_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ablation.json"
    assert "osmf ablate" in read_ablation(path).why  # type: ignore[union-attr]
    path.write_text('{"format": "other/9"}')
    told = unless_broken(lambda: read_ablation(path), "The ablation")
    assert isinstance(told, Missing)
    assert told.why.startswith("The ablation cannot be read: ")
    assert "other/9" in told.why
    for broken in (
        "{",
        "[]",
        f'{{"format": "{FORMAT}"}}',
        f'{{"format": "{FORMAT}", "settings": {{}}, "arms": [{{}}]}}',
    ):
        path.write_text(broken)
        assert isinstance(unless_broken(lambda: read_ablation(path), "The ablation"), Missing), broken


def test_an_ablation_is_told_by_its_table(tmp_path: Path) -> None:
    figures = [*FIGURES, "groups_lifted_share", "groups_lowered_share"]
    arm = {**dict.fromkeys(figures), "arm": "no_anchor", "changes": {"anchor_weight": 0}, "mean_ctr": 0.04}
    settings = {"recipe": "demo", "seeds": [0, 1], "markets": [{"market": "m", "day": "2026-03-04"}]}
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps({"format": FORMAT, "settings": settings, "arms": [arm]}))
    told = read_ablation(path)
    assert isinstance(told, AblationFacts)
    assert (told.recipe, told.seeds, told.markets) == ("demo", "0, 1", "m as of 2026-03-04")
    assert told.rows[0][:3] == ["no anchor", "anchor_weight=0", "4.00%"]
