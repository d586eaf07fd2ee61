from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from PIL import Image

from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export
from osmf_models.evaluation.arms import (
    DrawnCase,
    Sampling,
    logged_pictures,
    model_pictures,
    oracle_pictures,
    product_fidelity,
    read_model_arm,
)
from osmf_models.evaluation.evaluation_record import read_records
from osmf_models.evaluation.gallery import read_gallery
from osmf_models.evaluation.report import ShownPicture
from osmf_models.evaluation.simulated_ctr import evaluation_set, found_groups, judge, read_group_cells
from osmf_models.simulator.pictures import cutout
from osmf_models.stages import evaluate
from osmf_models.stages import judge as judge_stage

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


def test_diversity_between_groups_by_hand():
    def shown(*levels: float) -> dict[tuple[str, int, str], ShownPicture]:
        return {
            ("a", 0, f"g{place}"): ShownPicture(np.full((2, 2, 3), level), 0.1) for place, level in enumerate(levels)
        }

    alone = {("one_group", 1, "g0"): ShownPicture(np.zeros((2, 2, 3)), 0.1)}
    assert evaluate.group_diversity(shown(0.2, 0.2, 0.5) | alone) == {"a": pytest.approx((0.0 + 0.3 + 0.3) / 3)}


def test_the_stage_writes_a_row_per_arm_and_group_pictures_and_its_record(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", arguments(folders, tmp_path, "pretrained", "global_dpo"))
    evaluate.main()
    record = json.loads((tmp_path / "run.json").read_text())
    report = json.loads((tmp_path / "report.json").read_text())
    rows = report["rows"]
    no_pairs = {"num_pairs": 0.0, "num_contradictions": 0.0}  # this export has none
    assert report["implicit_reward"] == {"pretrained": None, "global_dpo": {**no_pairs, "calibration": []}}
    assert {name: record["metrics"][f"global_dpo/{name}"] for name in no_pairs} == no_pairs
    assert "pretrained/num_pairs" not in record["metrics"]
    arms = ["random", "best_single", "pretrained", "global_dpo", "oracle"]
    assert sorted({row["arm"] for row in rows}) == sorted(arms)
    assert len(rows) == len(arms) * 11
    assert {f"{arm}/{name}" for arm in arms for name in METRICS} <= set(record["metrics"])
    assert record["metrics"]["oracle/picture_quality"] > 0.98
    assert record["metrics"]["oracle/mean_ctr"] > record["metrics"]["best_single/mean_ctr"]
    assert record["metrics"]["best_single/mean_ctr"] > record["metrics"]["random/mean_ctr"]
    assert set(record["artifacts"]) == {"report.json", "grid.png", "lifts.png", "evaluation_records.json"}
    check_records(read_records(tmp_path / "evaluation_records.json"), record, rows)
    check_gallery(read_gallery(tmp_path / "gallery.parquet"), arms, rows)
    assert min(Image.open(tmp_path / "grid.png").size) > 300


def check_gallery(gallery, arms, rows):
    """One product a scope: a picture for each arm and group, worth what the report says where it is the only one."""
    assert list(dict.fromkeys(gallery.arm)) == arms
    assert len(gallery) == len(rows)
    told = {row["group_id"]: row["true_ctr_rate"] for row in rows if row["arm"] == "oracle"}
    assert gallery[gallery.arm == "oracle"].set_index("group_id").true_ctr_rate.to_dict() == pytest.approx(told)


def check_records(records, record, rows):
    """Case by case they are what the report says group by group, and models leave the product as it is."""
    assert {name: one.artifact_sha256 for name, one in records.items()} == record["models"]
    for name, one in records.items():
        assert one.evaluation_set_sha256 == record["evaluation_set_sha256"]
        assert one.sampling == {"num_seeds": 2, "num_inference_steps": 2, "guidance_scale": 1.0}
        assert (one.reward_sha256, one.pairs) == (None, ())
        told = {row["group_id"]: row for row in rows if row["arm"] == name}
        assert {case.group_id for case in one.cases} == set(told)  # one product a scope: a case is a group
        for case in one.cases:
            assert case.true_ctr_rate == pytest.approx(told[case.group_id]["true_ctr_rate"])
            assert case.picture_quality == pytest.approx(told[case.group_id]["picture_quality"])
            assert case.product_fidelity > 0.998
            assert case.predicted_log_lift is None


def test_fidelity_is_what_is_left_of_the_product(export, cases):
    """Half of the product's pixels turned by 0.2: 1 - 0.1."""
    arm = next(iter(logged_pictures(export, cases)))
    cutout = export.cutouts[arm.product_index]
    image = np.clip(cutout[..., :3], 0.0, 1.0).copy()
    is_product = np.argwhere(cutout[..., 3] == 1.0)
    untouched = DrawnCase(arm.product_index, arm.group, image[None])
    assert product_fidelity(export, untouched) == pytest.approx(1.0)
    changed = is_product[: len(is_product) // 2 * 2 : 2]
    rows, columns = changed[:, 0], changed[:, 1]
    image[rows, columns] = np.where(image[rows, columns] > 0.5, image[rows, columns] - 0.2, image[rows, columns] + 0.2)
    expected = 1.0 - 0.2 * len(changed) / len(is_product)
    assert product_fidelity(export, DrawnCase(arm.product_index, arm.group, image[None])) == pytest.approx(expected)
    assert math.isnan(product_fidelity(export, next(iter(logged_pictures(export, cases)))))


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


def test_one_model_alone_is_judged_as_among_others(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", arguments(folders, tmp_path / "together", "pretrained", "global_dpo"))
    evaluate.main()
    together = json.loads((tmp_path / "together" / "report.json").read_text())["rows"]
    options = arguments(folders, tmp_path / "alone")[1:]
    for name, more in (("model", ["--model", f"global_dpo={folders['global_dpo']}"]), ("none", [])):
        monkeypatch.setattr(
            sys,
            "argv",
            ["judge", *options, *more, "--encoder-cache", str(tmp_path / "encoders"), "--output", str(tmp_path / name)],
        )
        judge_stage.main()
    rows = [row for name in ("model", "none") for row in json.loads((tmp_path / name / "judgements.json").read_text())]
    assert {row["arm"] for row in rows} == {"global_dpo", "random", "best_single", "oracle"}
    judged = {(row["arm"], row["group_id"]): row["true_ctr_rate"] for row in rows}
    for row in together:
        if row["arm"] != "pretrained":
            assert judged[row["arm"], row["group_id"]] == pytest.approx(row["true_ctr_rate"])
    assert "calibration.json" not in {path.name for path in (tmp_path / "model").iterdir()}
    check_distances(*(json.loads((tmp_path / name / "run.json").read_text()) for name in ("model", "none")))


def check_distances(of_model, of_others):
    """By the same encoder; logged pictures are no distance from themselves, what an untrained model draws is far."""
    assert of_model["picture_encoder"] == of_others["picture_encoder"]
    metrics = {**of_model["metrics"], **of_others["metrics"]}
    assert metrics["random/kernel_distance"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["global_dpo/kernel_distance"] > max(0.0, metrics["oracle/kernel_distance"])
    assert {f"random/kernel_distance_{end}" for end in ("low", "high")} <= set(metrics)
