from __future__ import annotations

import json
import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export
from osmf_models.evaluation.arms import DrawnCase, logged_pictures
from osmf_models.evaluation.evaluation_record import read_records
from osmf_models.evaluation.predicted_lift import RewardJudge, agreement, lifts_by_group, predicted_lifts
from osmf_models.evaluation.simulated_ctr import evaluation_set, found_groups, read_group_cells
from osmf_models.evaluation.summary import JUDGEMENT_COLUMNS
from osmf_models.model.group_reward import GroupReward
from osmf_models.stages import evaluate

CASES = [("g1", "p1"), ("g1", "p2"), ("g2", "p1"), ("g2", "p2")]


def judged(arms: dict[str, tuple[list[float], list[float]]]) -> pd.DataFrame:
    """Arm to its true rates and predicted log rates by case."""
    rows = [
        (arm, "s", *case, 1, rate, 1.0, predicted)
        for arm, (rates, log_rates) in arms.items()
        for case, rate, predicted in zip(CASES, rates, log_rates, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(JUDGEMENT_COLUMNS))


# Predictions are right up to a constant of each case: 5, 6, 7, 8.
RANDOM = ([0.02, 0.02, 0.04, 0.04], [5.0, 6.0, 7.0, 8.0])
TWICE = ([0.04, 0.04, 0.08, 0.08], [one + math.log(2) for one in RANDOM[1]])
HALF = ([0.01, 0.01, 0.02, 0.02], [one - math.log(2) for one in RANDOM[1]])
BEST = ([0.08, 0.08, 0.16, 0.16], [one + math.log(4) for one in RANDOM[1]])


def test_a_right_prediction_by_hand():
    judgements = judged({"random": RANDOM, "a": TWICE, "b": HALF, "oracle": BEST})
    predicted, true = predicted_lifts(judgements, ["a", "b"]), agreement(judgements, ["a", "b"])
    for arm, lift in (("a", math.log(2)), ("b", -math.log(2))):
        assert true[f"{arm}/true_log_lift"] == pytest.approx(lift)
        assert predicted[f"{arm}/predicted_log_lift"] == pytest.approx(lift)
        assert predicted[f"{arm}/predicted_log_lift_low"] == pytest.approx(lift)
    assert predicted["b_minus_a/predicted_log_lift"] == pytest.approx(-math.log(4))
    assert true["reward/lift_correlation"] == pytest.approx(1.0)
    assert true["reward/is_right_choice"] == 1.0
    assert true["reward/lost_log_lift"] == 0.0


def test_a_wrong_prediction_costs_what_the_better_model_had():
    misjudged = judged({"random": RANDOM, "a": (TWICE[0], HALF[1]), "b": (HALF[0], TWICE[1]), "oracle": BEST})
    metrics = agreement(misjudged, ["a", "b"])
    assert metrics["reward/is_right_choice"] == 0.0
    assert metrics["reward/lost_log_lift"] == pytest.approx(math.log(4))
    assert metrics["reward/lift_correlation"] == pytest.approx(-1.0)


def test_a_reward_without_opinion_correlates_with_nothing():
    judgements = judged({"random": (RANDOM[0], [0.0] * 4), "a": (TWICE[0], [0.0] * 4)})
    assert agreement(judgements, ["a"])["reward/lift_correlation"] == 0.0
    assert predicted_lifts(judgements, ["a"])["a/predicted_log_lift"] == 0.0


def test_products_without_logged_pictures_have_no_lift():
    """What the second product of the arm would say is left out: there is nothing to compare it with."""
    judgements = judged({"random": RANDOM, "a": TWICE})
    known = judgements[(judgements.arm != "random") | (judgements.product_id != "p2")]
    known = known.assign(predicted_log_rate=known.predicted_log_rate.where(known.product_id != "p2", 1e6))
    assert predicted_lifts(known, ["a"])["a/predicted_log_lift"] == pytest.approx(math.log(2))


def test_pictures_that_nobody_clicks_have_a_finite_lift():
    lifts = lifts_by_group(judged({"random": RANDOM, "a": ([0.0] * 4, RANDOM[1]), "oracle": BEST}))
    broken = lifts[lifts.arm == "a"].true_log_lift
    assert list(broken) == pytest.approx([math.log(1e-4 / 0.02), math.log(1e-4 / 0.04)])


@pytest.fixture(scope="module")
def export(folders):
    return load_export(folders["export"], DataConfig())


@pytest.fixture(scope="module")
def reward_folder(export, tmp_path_factory):
    """A model with an opinion that it has not learned: the market's export holds no pairs."""
    folder, manifest = tmp_path_factory.mktemp("reward"), export.manifest
    torch.manual_seed(0)
    names, mean, scale = manifest.group_feature_names, manifest.group_feature_mean, manifest.group_feature_scale
    model = GroupReward(list(names), list(mean), list(scale), manifest.image_px, 8, 0.0)
    torch.nn.init.normal_(model.score.weight)
    torch.nn.init.normal_(model.group[2].weight)
    model.save_pretrained(folder / "model", safe_serialization=True)
    (folder / "run.json").write_text(json.dumps({"artifact_sha256": "abc"}))
    return folder


def test_logged_pictures_are_judged_where_their_own_masks_say(export, market, folders, reward_folder):
    """A shifted mask uncovers the product, and the score changes; the mean over pictures is one of rates, not logs."""
    cases = evaluation_set(market, export, found_groups(market, export, read_group_cells(folders["cells"])), 1)
    judge = RewardJudge.read(reward_folder, export)
    case = next(iter(logged_pictures(export, cases)))
    assert case.masks is not None
    shifted = DrawnCase(case.product_index, case.group, case.images, np.roll(case.masks, 6, axis=2))
    assert judge.log_rate(export, shifted) != pytest.approx(judge.log_rate(export, case), abs=1e-4)
    single = [
        judge.log_rate(export, DrawnCase(case.product_index, case.group, case.images[i : i + 1], case.masks[i : i + 1]))
        for i in range(len(case.images))
    ]
    assert judge.log_rate(export, case) == pytest.approx(math.log(np.exp(single).mean()), abs=1e-5)


def test_the_stage_predicts_beside_the_truth(folders, reward_folder, tmp_path, monkeypatch):
    values = ["--data", folders["export"], "--truth", folders["truth"], "--group-cells", folders["cells"]]
    values += ["--model", f"pretrained={folders['pretrained']}", "--reward", reward_folder, "--output", tmp_path]
    values += ["--num-products-per-scope", 1, "--num-inference-steps", 2, "--num-seeds", 1]
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, values)])
    evaluate.main()
    record = json.loads((tmp_path / "run.json").read_text())
    assert {"pretrained/predicted_log_lift", "pretrained/true_log_lift", "reward/lift_correlation"} <= set(
        record["metrics"]
    )
    assert record["reward_artifact_sha256"] == "abc"
    assert {"predicted_lifts.png", "predicted_lifts.json"} <= set(record["artifacts"])
    rows = json.loads((tmp_path / "predicted_lifts.json").read_text())
    logged = [row for row in rows if row["arm"] == "random"]
    assert len(logged) == 11
    assert all(row["predicted_log_lift"] == row["true_log_lift"] == 0.0 for row in logged)


def test_without_a_simulator_the_prediction_is_the_report(folders, reward_folder, tmp_path, monkeypatch):
    values = ["--data", folders["export"], "--reward", reward_folder, "--output", tmp_path]
    values += [part for name in ("pretrained", "global_dpo") for part in ("--model", f"{name}={folders[name]}")]
    values += ["--num-products-per-scope", 1, "--num-inference-steps", 2, "--num-seeds", 1]
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, values)])
    evaluate.main()
    record = json.loads((tmp_path / "run.json").read_text())
    low, middle, high = (record["metrics"][f"pretrained/predicted_log_lift{end}"] for end in ("_low", "", "_high"))
    assert low <= middle <= high
    assert "global_dpo_minus_pretrained/predicted_log_lift" in record["metrics"]
    assert not any("true" in name or "ctr" in name for name in record["metrics"])
    assert set(record["artifacts"]) == {"report.json", "predicted_lifts.json", "evaluation_records.json"}
    told = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert {(row["true_ctr_rate"], row["true_ctr_high"], row["picture_quality"]) for row in told} == {(None,) * 3}
    rows = json.loads((tmp_path / "predicted_lifts.json").read_text())
    judged = read_records(tmp_path / "evaluation_records.json")["pretrained"]
    lift_of = {row["group_id"]: row["predicted_log_lift"] for row in rows if row["arm"] == "pretrained"}
    assert judged.reward_sha256 == "abc"
    assert len(judged.cases) == 11
    for case in judged.cases:
        assert (case.true_ctr_rate, case.picture_quality) == (None, None)
        assert case.predicted_log_lift == pytest.approx(lift_of[case.group_id])
    assert {row["arm"] for row in rows} == {"random", "pretrained", "global_dpo"}
    assert len(rows) == 3 * 11


def test_nothing_to_judge_by_is_refused(folders, tmp_path, monkeypatch):
    values = ["--data", folders["export"], "--model", f"pretrained={folders['pretrained']}", "--output", tmp_path]
    for more in ([], ["--truth", folders["truth"]], ["--group-cells", folders["cells"], "--reward", tmp_path]):
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, [*values, *more])])
        with pytest.raises(ValueError, match="by --truth with --group-cells, by --reward"):
            evaluate.main()


def test_a_reward_for_other_groups_or_unfinished_is_refused(export, reward_folder, tmp_path):
    with pytest.raises(ValueError, match="no finished run"):
        RewardJudge.read(tmp_path, export)
    other = GroupReward(["a"], [0.0], [1.0], 32, 8, 0.0)
    other.save_pretrained(tmp_path / "model", safe_serialization=True)
    (tmp_path / "run.json").write_text(json.dumps({"artifact_sha256": "abc"}))
    with pytest.raises(ValueError, match="other group features"):
        RewardJudge.read(tmp_path, export)
