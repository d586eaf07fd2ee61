from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export
from osmf_models.evaluation.arms import Sampling, model_pictures, oracle_pictures, read_model_arm
from osmf_models.evaluation.simulated_ctr import evaluation_set, found_groups, judge, read_group_cells
from osmf_models.simulator.pictures import cutout
from osmf_models.stages import evaluate

METRICS = ("mean_ctr", "worst_group_ctr", "picture_quality", "share_of_headroom")


@pytest.fixture(scope="module")
def export(folders):
    return load_export(folders["export"], DataConfig())


@pytest.fixture(scope="module")
def cases(market, export, folders):
    return evaluation_set(market, export, found_groups(market, export, read_group_cells(folders["cells"])), 1)


def arguments(folders, output, *models):
    values = ["--data", folders["export"], "--truth", folders["truth"], "--group-cells", folders["cells"]]
    values += [part for name in models for part in ("--model", f"{name}={folders[name]}")]
    values += ["--output", output, "--num-products-per-scope", 1, "--num-inference-steps", 2]
    return ["evaluate", *map(str, values)]


def test_the_stage_writes_a_row_per_arm_and_group_pictures_and_its_record(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", arguments(folders, tmp_path, "pretrained", "global_dpo"))
    evaluate.main()
    record = json.loads((tmp_path / "run.json").read_text())
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    arms = ["random", "best_single", "pretrained", "global_dpo", "oracle"]
    assert sorted({row["arm"] for row in rows}) == sorted(arms)
    assert len(rows) == len(arms) * 11
    assert {f"{arm}/{name}" for arm in arms for name in METRICS} <= set(record["metrics"])
    assert record["metrics"]["oracle/picture_quality"] > 0.98
    assert record["metrics"]["oracle/mean_ctr"] > record["metrics"]["best_single/mean_ctr"]
    assert record["metrics"]["best_single/mean_ctr"] > record["metrics"]["random/mean_ctr"]
    assert set(record["artifacts"]) == {"report.json", "grid.png", "lifts.png"}
    assert min(Image.open(tmp_path / "grid.png").size) > 300


def test_models_draw_from_the_same_noise_and_keep_the_product(export, cases, folders):
    sampling = Sampling(num_seeds=2, num_inference_steps=2)
    arm = read_model_arm("pretrained", folders["pretrained"])
    once, again = list(model_pictures(arm, export, cases, sampling)), list(model_pictures(arm, export, cases, sampling))
    assert len(once) == 11
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        assert one.images.shape == (2, 32, 32, 3)
        own = export.cutouts[one.product_index]
        is_product = own[..., 3] == 1.0
        np.testing.assert_allclose(one.images[0][is_product], own[is_product][:, :3], atol=1e-6)


def test_a_one_size_model_draws_the_same_for_every_group(export, cases, folders):
    arm = read_model_arm("control", folders["global_dpo"])
    assert arm.is_one_size
    drawn = [case for case in model_pictures(arm, export, cases, Sampling(1, 2)) if case.group.scope == "shoe"]
    assert len(drawn) == 4
    assert all(np.array_equal(case.images, drawn[0].images) for case in drawn)


def test_the_oracle_draws_for_each_group_and_is_whole(market, export, cases):
    for case in oracle_pictures(market, export, cases):
        product_id = export.products.product_id[case.product_index]
        rates, quality = judge(market, case.group, product_id, case.images, cases.day)
        assert rates[0] > 0.05
        assert quality[0] > 0.98
        own = cutout(market, product_id)
        assert np.abs(case.images[0] - own[..., :3])[own[..., 3] == 1.0].max() <= 1.5 / 255


def test_arms_that_cannot_be_judged_are_refused(folders, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no finished run"):
        read_model_arm("x", tmp_path)
    with pytest.raises(ValueError, match="is no model"):
        read_model_arm("oracle", folders["pretrained"])
    monkeypatch.setattr(sys, "argv", arguments(folders, tmp_path, "pretrained", "pretrained"))
    with pytest.raises(ValueError, match="same name"):
        evaluate.main()
    assert not (tmp_path / "run.json").exists()
