"""Group-DPO as a whole: where the reference's errors come from, which weights are kept, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from test_stages import launched, run, succeed

from osmf_models.config import DpoConfig
from osmf_models.data.collate import Dropout, collate_pairs
from osmf_models.data.pairs import pairs_of_split
from osmf_models.model.gmllm import noisy_pictures
from osmf_models.model.look_planner import PlannedLook
from osmf_models.objectives.generation import scene_errors
from osmf_models.training.pair_errors import pair_errors, predict_pairs

RUNS = Path(__file__).with_name("preference_runs.py")


def run_cases(export_folder: Path, pretrained: Path, output: Path, *cases: str, num_processes: int = 1) -> list[dict]:
    program = [*launched(num_processes), str(RUNS), *map(str, (export_folder, pretrained, output)), *cases]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]


def metrics_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def record_of(output: Path) -> dict:
    return json.loads((output / "run.json").read_text())


@pytest.fixture(scope="module")
def pretrained(export_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("pretrained")
    succeed("pretrain", "--data", export_folder, "--set", "pretraining.training.num_steps=2", output=output)
    return output


@pytest.fixture(scope="module")
def runs(export_folder, pretrained, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    cases = ("cached", "forward", "other_beta", "patient", "choosy")
    return output, run_cases(export_folder, pretrained, output, *cases)


def test_cached_reference_gives_the_losses_of_a_second_forward(runs):
    output, _ = runs
    cached, forward = metrics_of(output / "cached"), metrics_of(output / "forward")
    assert len(cached) == 6
    for one, other in zip(cached, forward, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    for part in ("before", "after"):
        name = f"validation/chosen_error_{part}"
        both = (record_of(output / case)["metrics"][name] for case in ("cached", "forward"))
        assert next(both) == pytest.approx(next(both), rel=1e-5)


def test_one_model_is_in_memory_with_a_cached_reference_and_two_with_a_frozen_copy(runs):
    _, seen = runs
    assert {one["case"]: one["num_copies"] for one in seen[:3]} == {"cached": 1, "forward": 2, "other_beta": 1}


def test_file_is_written_once_and_serves_another_beta(runs):
    output, seen = runs
    first, forward, other_beta = seen[:3]
    assert len(first["files"]) == 1
    for later in (forward, other_beta):
        assert (later["files"], later["written"]) == (first["files"], first["written"])
    losses = [[row["train/preference_loss"] for row in metrics_of(output / case)] for case in ("cached", "other_beta")]
    assert losses[0][-1] != losses[1][-1]


def test_training_ends_when_nothing_gets_better_and_keeps_the_first_of_equals(runs):
    output, _ = runs
    metrics = record_of(output / "patient")["metrics"]
    assert (metrics["best_step"], metrics["last_step"], metrics["is_stopped_early"]) == (1.0, 3.0, 1.0)
    heartbeat = json.loads((output / "patient" / "heartbeat.json").read_text())
    assert (heartbeat["step"], heartbeat["num_steps"]) == (3, 3)


def test_best_weights_and_no_others_are_handed_over(runs):
    output, _ = runs
    folder = output / "choosy"
    record = record_of(folder)
    judged = [json.loads(line) for line in (folder / "best" / "judgements.jsonl").read_text().splitlines()]
    assert [one["step"] for one in judged] == [1, 2, 3, 4, 5]
    best = next(one for one in judged if one["step"] == record["metrics"]["best_step"])
    assert record["metrics"]["validation/chosen_error_after"] == pytest.approx(best["chosen_error"])
    assert record["metrics"]["validation/pair_accuracy"] == pytest.approx(best["accuracy"])
    kept = folder / "best" / f"step-{best['step']:07d}"
    for name in ("denoiser/diffusion_pytorch_model.safetensors", "model_index.json"):
        assert (folder / "model" / name).read_bytes() == (kept / "model" / name).read_bytes()


@pytest.mark.slow
def test_resuming_ends_bit_for_bit_where_it_would_have_ended(runs, export_folder, pretrained):
    output, _ = runs
    before, record = metrics_of(output / "choosy"), record_of(output / "choosy")
    (output / "choosy" / "run.json").unlink()
    run_cases(export_folder, pretrained, output, "choosy:resume")
    assert metrics_of(output / "choosy") == before
    again = record_of(output / "choosy")
    assert again["artifacts"] == record["artifacts"]
    assert again["metrics"]["best_step"] == record["metrics"]["best_step"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_ranks_under_zero_reach_the_losses_of_one(runs, export_folder, pretrained, tmp_path, stage):
    output, _ = runs
    flags = ("--set", "dpo.training.log_every=1", "--set", f"zero.stage={stage}")
    both = succeed(
        "group_dpo", "--data", export_folder, "--pretrained", pretrained, *flags, output=tmp_path, num_processes=2
    )
    alone = [row["train/loss"] for row in metrics_of(output / "cached")]
    assert [row["train/loss"] for row in metrics_of(tmp_path)] == pytest.approx(alone, rel=1e-5)
    for name in ("validation/pair_accuracy", "validation/chosen_error_before", "validation/chosen_error_after"):
        assert both["metrics"][name] == pytest.approx(record_of(output / "cached")["metrics"][name], rel=1e-4)


@pytest.mark.slow
def test_switches_train_alike_with_either_reference(export_folder, pretrained, tmp_path):
    run_cases(export_folder, pretrained, tmp_path, "switches", "switches_forward")
    cached, forward = metrics_of(tmp_path / "switches"), metrics_of(tmp_path / "switches_forward")
    for one, other in zip(cached, forward, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    assert all(0.0 <= one["train/rejected_scale"] <= 1.0 for one in cached)
    assert max(one["train/contrast_share"] for one in cached) > 0.0


def test_other_pretrained_model_than_its_run_names_is_one_line(export_folder, pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path / "copy")
    (tmp_path / "copy" / "model" / "connector" / "config.json").write_text("{}")
    done = run("group_dpo", "--data", export_folder, "--pretrained", tmp_path / "copy", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "is not the file that" in done.stderr.strip().splitlines()[-1]


def batch_of(export, rows):
    generators = [np.random.default_rng((0, number)) for number in range(len(rows))]
    return collate_pairs(export, rows, generators, Dropout(), lambda uniform: 0.1 + 0.9 * uniform)


@torch.no_grad()
def test_a_picture_against_itself_is_no_better_and_no_worse(gmllm, export):
    """Noise of its own for each of the two pictures would tell them apart, whatever the model."""
    pairs = pairs_of_split(export, DpoConfig(), "train").head(3)
    errors = pair_errors(gmllm, batch_of(export, pairs.assign(rejected_index=pairs.chosen_index)), "clean")
    torch.testing.assert_close(errors.chosen, errors.rejected)
    other = pair_errors(gmllm, batch_of(export, pairs), "clean")
    assert (other.chosen - other.rejected).abs().min() > 1e-6


def test_safe_share_is_the_same_for_clean_pictures_and_velocities(gmllm, export):
    """A velocity error is the clean one over t^2, and a pair shares its t."""
    batch = batch_of(export, pairs_of_split(export, DpoConfig(), "train").head(3))
    clean, velocity = (predict_pairs(gmllm, batch, space) for space in ("clean", "velocity"))
    torch.testing.assert_close(velocity.errors, clean.errors / batch.pictures.time.square())
    torch.testing.assert_close(velocity.rejected_scale(0.6), clean.rejected_scale(0.6))


@pytest.mark.parametrize("error_space", ["look", "clean"])
def test_safe_share_follows_the_gradients_of_the_errors(gmllm, export, error_space):
    """By autograd, against the formula in gradients that are written out."""
    batch = batch_of(export, pairs_of_split(export, DpoConfig(), "train").head(3))
    predicted = predict_pairs(gmllm, batch, error_space)
    if error_space == "look":
        plan = gmllm(batch.condition).plan
        leaf = plan.mean.detach().repeat(2, 1).requires_grad_()  # a plan for each picture
        planned = PlannedLook(leaf, plan.log_variance.detach().repeat(2, 1))
        errors = planned.deviances(gmllm.planner.looks(batch.pictures.images, batch.pictures.masks))
    else:
        noisy, target = noisy_pictures(gmllm, batch.pictures)
        leaf = gmllm(batch.condition, noisy).clean.detach().requires_grad_()
        errors = scene_errors(leaf, target, noisy.masks)
    torch.testing.assert_close(errors, predicted.errors)
    errors.sum().backward()
    chosen, rejected = leaf.grad.flatten(1).chunk(2)
    bound = 0.4 * chosen.square().sum(1) / (chosen * rejected).sum(1)
    expected = torch.where(bound > 0, bound.clamp(max=1.0), 1.0)
    torch.testing.assert_close(predicted.rejected_scale(0.6), expected)


@torch.no_grad()
def test_pairs_under_contrast_are_the_same_pictures_under_the_other_group(gmllm, export):
    pairs = pairs_of_split(export, DpoConfig(contrast_weight=1.0), "train")
    row = pairs[pairs.contrast_group_index >= 0].head(1)
    batch = batch_of(export, row)
    other = batch.under_contrast()
    assert other.pictures is batch.pictures
    features = torch.tensor(export.group_features[row.contrast_group_index.iloc[0]])
    torch.testing.assert_close(other.condition.group_features[0], features)
