"""The group reward model: its statistics, its loss, what it learns from planted tastes, and its figures by hand."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from planted_export import write_export
from torch import tensor

from osmf_models.config import DataConfig, RewardConfig, TrainingConfig
from osmf_models.data.dataset import load_export
from osmf_models.model.group_reward import GroupReward
from osmf_models.model.scene_statistics import lags_px, num_statistics, scene_statistics
from osmf_models.objectives.group_reward import (
    best_temperature,
    bradley_terry_loss,
    calibration_bins,
    calibration_error,
)
from osmf_models.stages import group_reward
from osmf_models.training.fit_reward import RewardPairs, fit_reward, held_out_margins, reward_pairs
from osmf_models.training.reward_figures import reward_figures

CONFIG = RewardConfig(
    training=TrainingConfig(num_steps=200, batch_size=128, learning_rate=3e-3, warmup_steps=20, log_every=20)
)


@pytest.fixture(scope="module")
def taste_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tastes")
    write_export(folder, num_products=72, num_creatives=6, num_groups=6)
    return folder


@pytest.fixture(scope="module")
def taste_export(taste_folder):
    return load_export(taste_folder, DataConfig())


@pytest.fixture(scope="module")
def fitted(taste_export, tmp_path_factory):
    return fit_reward(taste_export, CONFIG, tmp_path_factory.mktemp("fitted"))


def judged(fitted, export, split="test"):
    pairs = reward_pairs(export, CONFIG, split)
    return pairs, held_out_margins(fitted.model, fitted.data, RewardPairs.of(pairs))


# Statistics


def test_statistics_of_a_plain_picture_by_hand():
    image = torch.tensor([0.5, 0.3, 0.1]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    values = scene_statistics(image, torch.zeros(1, 1, 32, 32))[0]
    assert len(values) == num_statistics(32) == 60
    luma = 0.299 * 0.5 + 0.587 * 0.3 + 0.114 * 0.1
    torch.testing.assert_close(values[:4], tensor([luma, 0.4, 0.0, 0.4]))
    torch.testing.assert_close(values[8:12], values[:4])  # the upper band is like the whole
    torch.testing.assert_close(values[24:48], torch.full((24,), math.log(1e-6) / 2))  # no step anywhere
    torch.testing.assert_close(values[48:], torch.zeros(12), atol=1e-5, rtol=0)


def test_a_ramp_steps_by_its_slope_times_the_lag():
    ramp = (torch.arange(32) / 100).view(1, 1, 32, 1).expand(1, 3, 32, 32)
    values = scene_statistics(ramp, torch.zeros(1, 1, 32, 32))[0]
    down = values[24:48].view(3, 2, 4)[:, 0, 0]
    torch.testing.assert_close(down, tensor([0.01, 0.02, 0.04]).log(), atol=6e-3, rtol=0)
    across = values[24:48].view(3, 2, 4)[:, 1, 0]
    torch.testing.assert_close(across, torch.full((3,), math.log(1e-6) / 2))
    assert float(values[8]) == pytest.approx(0.035)  # rows 0 to 7
    assert float(values[20]) == pytest.approx(0.275)  # rows 24 to 31


def test_what_the_product_looks_like_is_not_seen():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 10:22, 8:24] = 1.0
    image = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    repainted = torch.where(mask > 0, torch.tensor(0.9), image)
    torch.testing.assert_close(scene_statistics(image, mask), scene_statistics(repainted, mask))


def test_larger_pictures_are_compared_over_longer_lags_too():
    assert lags_px(32) == (1, 2, 4)
    assert lags_px(256) == (1, 2, 4, 8, 16, 32)
    assert scene_statistics(torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)).shape == (2, num_statistics(64))


# Loss and calibration


def test_loss_by_hand():
    first = math.log(1 + math.exp(-1.0))
    second = 0.8 * math.log(1 + math.exp(0.5)) + 0.2 * math.log(1 + math.exp(-0.5))
    loss = bradley_terry_loss(tensor([1.0, -0.5]), tensor([1.0, 0.8]))
    assert float(loss) == pytest.approx((first + second) / 2)


def test_loss_is_least_where_the_margin_is_the_log_rate_ratio():
    log_rate_ratio = tensor([0.7])
    margin = log_rate_ratio.clone().requires_grad_()
    bradley_terry_loss(margin, torch.sigmoid(log_rate_ratio)).backward()
    torch.testing.assert_close(margin.grad, tensor([0.0]))


def test_temperature_is_found():
    margins = torch.linspace(0.1, 4.0, 40)
    assert best_temperature(margins, torch.sigmoid(margins / 2.5)) == pytest.approx(2.5, rel=1e-4)


def test_calibration_by_hand():
    """Two orders claimed with 0.85, one with evidence 1 for it, one with 0.1; and one pair without an opinion."""
    sure = math.log(0.85 / 0.15)
    bins = calibration_bins(tensor([sure, -sure, 0.0]), tensor([1.0, 0.9, 0.95]))
    assert [(one.claimed_from, one.num_pairs) for one in bins] == [(0.5, 1), (0.8, 2)]
    assert [one.mean_claimed for one in bins] == pytest.approx([0.5, 0.85])
    assert [one.mean_right for one in bins] == pytest.approx([0.5, 0.55])
    assert calibration_error(bins) == pytest.approx((1 * 0.0 + 2 * 0.3) / 3)


# Learning


def test_it_learns_planted_tastes_of_unseen_products(fitted, taste_export):
    pairs, margins = judged(fitted, taste_export)
    figures, _ = reward_figures(pairs, margins, float(fitted.model.temperature))
    assert figures["num_pairs"] > 100
    assert figures["pair_accuracy_low"] > 0.75
    assert figures["calibration_error"] < 0.15


def test_it_judges_by_the_group(fitted, taste_export):
    """With every pair's group replaced by another of its scope, accuracy falls to about a coin's."""
    pairs, margins = judged(fitted, taste_export)
    scope = taste_export.groups.scope.to_numpy()
    own = np.flatnonzero(~taste_export.groups.is_scope_root)
    others = [next(g for g in np.roll(own, -1 - int(i)) if scope[g] == scope[i] and g != i) for i in pairs.group_index]
    swapped = held_out_margins(fitted.model, fitted.data, RewardPairs.of(pairs.assign(group_index=others)))
    right, wrong = ((one > 0).float().mean() for one in (margins, swapped))
    assert float(right) > float(wrong) + 0.15


def test_the_seed_decides_everything(taste_export, tmp_path):
    config = replace(CONFIG, training=replace(CONFIG.training, num_steps=20, log_every=10))
    once, again = (fit_reward(taste_export, config, tmp_path / name).model.state_dict() for name in "ab")
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_a_picture_beyond_all_logged_ones_is_worth_what_the_edge_is(fitted):
    edge = fitted.model.statistic_mean + 3.0 * fitted.model.statistic_scale
    beyond = fitted.model.statistic_mean + 30.0 * fitted.model.statistic_scale
    features = fitted.data.features[:1]
    scores = [fitted.model(fitted.model.normalised(one[None]), features) for one in (edge, beyond)]
    torch.testing.assert_close(*scores)


def test_it_says_the_same_after_saving(fitted, taste_export, tmp_path):
    fitted.model.save_pretrained(tmp_path, safe_serialization=True)
    loaded = GroupReward.from_pretrained(tmp_path, local_files_only=True)
    images, masks = (np.stack([kept[row] for row in range(4)]) for kept in (taste_export.images, taste_export.masks))
    features = np.repeat(taste_export.raw_group_features[:1], 4, axis=0)
    scores = loaded.score_pictures(images, masks, features)
    np.testing.assert_allclose(scores, fitted.model.score_pictures(images, masks, features), rtol=1e-6)
    expected = fitted.model(fitted.data.statistics[:4], fitted.data.features[:1].expand(4, -1)).detach()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    assert float(loaded.temperature) == pytest.approx(fitted.metrics["temperature"])
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_other_pictures_and_groups_are_refused(fitted):
    with pytest.raises(ValueError, match="knows 32 px"):
        fitted.model.score_pictures(np.zeros((1, 16, 16, 3)), np.zeros((1, 16, 16)), np.zeros((1, 29)))
    with pytest.raises(ValueError, match="group features"):
        fitted.model.score_pictures(np.zeros((1, 32, 32, 3)), np.zeros((1, 32, 32)), np.zeros((1, 2)))


def test_no_pairs_is_a_clear_error(taste_export, tmp_path):
    empty = replace(taste_export, pairs=taste_export.pairs[taste_export.pairs.is_scope_root])
    with pytest.raises(ValueError, match="no groups' pairs of split train"):
        fit_reward(empty, CONFIG, tmp_path)


# Figures


def test_figures_by_hand():
    """Group 0: products 0 and 1, one right, one wrong; group 1: product 2, right; of three contradictions one right."""
    pairs = pd.DataFrame(
        {
            "scope": ["s", "s", "t"],
            "group_index": [0, 0, 1],
            "product_index": [0, 1, 2],
            "is_contradiction": [True, True, False],
            "chosen_better_probability": [1.0, 1.0, 1.0],
            "log_rate_ratio": [0.5, 0.5, 1.0],
            "target": [0.6, 0.6, 0.7],
        }
    )
    metrics, bins = reward_figures(pairs, tensor([1.0, -1.0, 2.0]), temperature=1.0)
    assert metrics["pair_accuracy"] == pytest.approx(0.75)
    assert metrics["worst_group_pair_accuracy"] == pytest.approx(0.5)
    assert (metrics["worst_group_pair_accuracy_low"], metrics["worst_group_pair_accuracy_high"]) == (0.0, 1.0)
    assert (metrics["pair_accuracy_low"], metrics["pair_accuracy_high"]) == (0.5, 1.0)
    assert metrics["contradiction_accuracy"] == pytest.approx(0.5)
    assert metrics["log_rate_slope"] == pytest.approx((0.5 - 0.5 + 2.0) / 6.0)
    assert sum(one.num_pairs for one in bins) == 3


def test_without_contradictions_none_is_claimed():
    pairs = pd.DataFrame(
        {
            "scope": ["s"],
            "group_index": [0],
            "product_index": [0],
            "is_contradiction": [False],
            "chosen_better_probability": [1.0],
            "log_rate_ratio": [0.5],
            "target": [0.6],
        }
    )
    metrics, _ = reward_figures(pairs, tensor([0.0]), temperature=1.0)
    assert metrics["pair_accuracy"] == 0.5
    assert metrics["num_contradiction_pairs"] == 0.0
    assert "contradiction_accuracy" not in metrics


# Stage


def test_the_stage_writes_its_model_figures_and_record(taste_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    arguments = ["group_reward", "--recipe", "tiny", "--data", str(taste_folder), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    group_reward.main()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["stage"] == "group_reward"
    assert set(record["artifacts"]) == {"model/config.json", "model/diffusion_pytorch_model.safetensors"}
    wanted = ("pair_accuracy", "pair_accuracy_low", "worst_group_pair_accuracy", "calibration_error")
    assert {f"{split}/{name}" for split in ("validation", "test") for name in wanted} <= set(record["metrics"])
    heartbeat = json.loads((tmp_path / "heartbeat.json").read_text())
    assert heartbeat["step"] == heartbeat["num_steps"] == record["config"]["reward"]["training"]["num_steps"]
    bins = json.loads((tmp_path / "calibration.json").read_text())
    assert sum(one["num_pairs"] for one in bins) == record["metrics"]["test/num_pairs"]
    assert (tmp_path / "calibration.png").is_file()
