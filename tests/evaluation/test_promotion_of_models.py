"""From a trained model to its alias: evaluated, registered with its evaluation, held against the champion."""

from __future__ import annotations

import json
import sys

import pytest
from test_register import run_register

from osmf_models.evaluation.evaluation_record import RECORDS_NAME, read_records
from osmf_models.stages import evaluate
from osmf_pipelines.promotion.champion import champion_arm
from osmf_pipelines.promotion.promote import PromotionRefusedError, Promotions
from osmf_pipelines.promotion.registry import Registry
from osmf_pipelines.settings import Settings

pytestmark = pytest.mark.slow


def run_evaluate(folders, output, monkeypatch, models, num_products=2):
    values = ["--data", folders["export"], "--truth", folders["truth"], "--group-cells", folders["cells"]]
    values += [part for name, folder in models.items() for part in ("--model", f"{name}={folder}")]
    values += ["--output", output, "--num-products-per-scope", num_products, "--num-inference-steps", 2]
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, values)])
    evaluate.main()
    return output


def mean_rate(record) -> float:
    groups = {case.group_id for case in record.cases}
    of_group = [[one.true_ctr_rate for one in record.cases if one.group_id == group] for group in groups]
    return sum(sum(rates) / len(rates) for rates in of_group) / len(of_group)


def test_models_are_held_against_the_champion_on_the_same_cases(folders, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    settings = Settings(home=tmp_path, model_name="osmf-test", min_picture_quality=0.0)
    registry, promotions = Registry(settings), Promotions(settings)
    first = run_evaluate(folders, tmp_path / "e1", monkeypatch, {"pretrained": folders["pretrained"]})
    run_register(folders, tmp_path / "r1", settings.tracking_uri, monkeypatch, "--evaluation", first)
    assert promotions.register(1, by="test").alias == "champion"

    arm = champion_arm(registry, folders["export"], (), tmp_path / "champion")
    models = {"champion": arm.folder, "control": folders["global_dpo"]}
    beside = run_evaluate(folders, tmp_path / "e2", monkeypatch, models)
    records = read_records(beside / RECORDS_NAME)
    assert records["champion"].cases == read_records(first / RECORDS_NAME)["pretrained"].cases
    control = {**folders, "pretrained": folders["global_dpo"]}
    run_register(control, tmp_path / "r2", settings.tracking_uri, monkeypatch, "--evaluation", beside)
    outcome = promotions.register(2, by="test")
    difference = mean_rate(records["control"]) - mean_rate(records["champion"])
    assert outcome.figures["true_ctr_rate_minus_champion/overall"] == pytest.approx(difference)
    highest = [outcome.figures[f"true_ctr_rate_minus_champion/{where}_high"] for where in ("overall", "worst_group")]
    lost = [high < -1e-9 for high in highest]
    assert outcome.alias == ("" if any(lost) else "challenger")
    assert len(outcome.reasons) == sum(lost)

    elsewhere = run_evaluate(folders, tmp_path / "e3", monkeypatch, {"control": folders["global_dpo"]}, 1)
    run_register(control, tmp_path / "r3", settings.tracking_uri, monkeypatch, "--evaluation", elsewhere)
    with pytest.raises(PromotionRefusedError, match="version 3 is refused: it was evaluated on other data"):
        promotions.promote(3, by="test")
    assert registry.aliases().champion == 1
    trail = [json.loads(line)["state"] for line in promotions.trail.path.read_text().splitlines()]
    assert trail[:2] == ["intended", "done"]
    assert trail[-1] == "refused"
