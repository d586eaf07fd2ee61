"""The stages as they are run: as processes, one and two, through torch's launcher."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_dataset import rewrite, with_first

from osmf_models.model.pipeline import GroupAdPipeline

SMALL = ("--set", "pretraining.training.num_steps=4", "--set", "pretraining.training.checkpoint_every=2")
SMALL += ("--set", "pretraining.num_samplings=2")


def launched(num_processes: int) -> list[str]:
    """Returns the start of a command that runs a file, or after `-m` a module, in so many processes."""
    if num_processes == 1:
        return [sys.executable]
    program = [sys.executable, "-m", "osmf_models.training.local_launch"]
    return [*program, "--log-dir", os.devnull, "--nproc-per-node", str(num_processes)]


def run(stage: str, *arguments: object, num_processes: int = 1, recipe: str = "tiny") -> subprocess.CompletedProcess:
    program = [*launched(num_processes), "-m", f"osmf_models.stages.{stage}", "--recipe", recipe]
    program += map(str, arguments)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_RUN_ID", None)
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=600, check=False)


def succeed(stage: str, *arguments: object, output: Path, num_processes: int = 1, recipe: str = "tiny") -> dict:
    done = run(stage, "--output", output, *arguments, num_processes=num_processes, recipe=recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((output / "run.json").read_text())


def curve(output: Path, name: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def losses(output: Path) -> list[float]:
    return list(curve(output, "train/loss").values())


@pytest.fixture(scope="module")
def pretrained(export_folder, tmp_path_factory):
    """Two ranks under ZeRO-1, interrupted by a checkpoint half way, which later tests resume from."""
    output = tmp_path_factory.mktemp("pretrained")
    return output, succeed("pretrain", "--data", export_folder, *SMALL, output=output, num_processes=2)


def test_run_record_tells_everything(pretrained, export):
    output, record = pretrained
    assert record["data_hash"] == export.manifest.data_hash
    assert record["config"]["pretraining"]["training"]["num_steps"] == 4
    assert all(math.isfinite(value) for value in record["metrics"].values())
    assert {"train/generation_loss", "train/choice_loss"} <= set(record["metrics"])
    assert 0.0 <= record["metrics"]["held_out/choice_accuracy"] <= 1.0
    assert all((output / name).is_file() for name in record["artifacts"])
    assert {"model/model_index.json", "model/denoiser/config.json"} <= set(record["artifacts"])
    assert json.loads((output / "heartbeat.json").read_text())["step"] == 4
    assert Image.open(output / "sample_grid.png").size[0] > 100
    assert record["world_size"] == 2
    steps = {path.parts[-3] for path in (output / "samples").glob("step-*/*/*.png")}
    assert steps == {"step-0000002", "step-0000004"}


def test_losses_on_products_that_are_not_learned_from_are_told(pretrained):
    output, record = pretrained
    held_out = curve(output, "held_out/generation_loss")
    assert list(held_out) == [1, 2, 3, 4]
    assert len(set(held_out.values())) == 4
    for name in ("generation_loss", "plan_loss", "clean_error_low_noise"):
        assert record["metrics"][f"held_out/{name}"] == curve(output, f"held_out/{name}")[4]


def test_resume_continues_to_the_same_loss(pretrained, export_folder):
    """The interrupted run's checkpoint after step 2 leads to the numbers and weights that came without interruption."""
    output, record = pretrained
    before, held_out = losses(output), curve(output, "held_out/generation_loss")
    again = succeed("pretrain", "--data", export_folder, *SMALL, "--resume", output=output, num_processes=2)
    assert losses(output) == pytest.approx(before, rel=1e-6)
    assert curve(output, "held_out/generation_loss") == pytest.approx(held_out, rel=1e-6)
    assert again["metrics"]["train/loss"] == pytest.approx(record["metrics"]["train/loss"], rel=1e-6)
    assert again["artifacts"] == record["artifacts"]


def test_group_dpo_trains_on_what_pretraining_left(pretrained, export_folder, export, tmp_path):
    output, _ = pretrained
    record = succeed("group_dpo", "--data", export_folder, "--pretrained", output, output=tmp_path)
    metrics = record["metrics"]
    assert record["stage"] == "group_dpo"
    assert 0 <= metrics["validation/worst_group_pair_accuracy"] <= metrics["validation/pair_accuracy"] <= 1
    assert metrics["validation/chosen_error_after"] != metrics["validation/chosen_error_before"]
    pipeline = GroupAdPipeline.from_pretrained(tmp_path / "model", local_files_only=True)
    cutout = export.cutouts[0][None]
    drawn = pipeline(
        cutout[..., :3], cutout[..., 3], ["shoe"], export.raw_group_features[:1], num_inference_steps=2, generator=0
    )
    assert np.isfinite(drawn).all()


def test_wrong_input_is_one_line(export_folder, tmp_path):
    done = run(
        "group_dpo", "--data", export_folder, "--pretrained", tmp_path, "--output", tmp_path, "--set", "dpo.bta=1"
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: --set dpo.bta: no field 'bta'")
    assert not (tmp_path / "run.json").exists()


def test_checkpoint_of_another_configuration_is_refused(pretrained, export_folder, tmp_path):
    """Another weight of a loss and another export change no shape, and no setting of the optimisation."""
    shutil.copytree(pretrained[0] / "checkpoints", tmp_path / "checkpoints")
    other = tmp_path / "export"
    shutil.copytree(export_folder, other)
    rewrite(other, "products", lambda table: with_first(table, "price", 1.0))
    change = ("--data", other, "--set", "pretraining.comprehension_weight=0.1")
    done = run("pretrain", "--output", tmp_path, *SMALL, *change, "--resume")
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "step-0000002 is of other settings (" in line
    assert "pretraining.comprehension_weight was 0.05, is 0.1; data_hash was " in line
    assert "resume with those that it was trained with, or start afresh without --resume" in line


@pytest.mark.slow
def test_zero_3_trains_resumes_and_saves_whole_weights(pretrained, export_folder, tmp_path):
    output, _ = pretrained
    arguments = ("--data", export_folder, *SMALL, "--set", "zero.stage=3")
    sharded = succeed("pretrain", *arguments, output=tmp_path, num_processes=2)
    before = losses(tmp_path)
    assert before == pytest.approx(losses(output), rel=1e-4)
    again = succeed("pretrain", *arguments, "--resume", output=tmp_path, num_processes=2)
    assert losses(tmp_path) == pytest.approx(before, rel=1e-6)
    assert again["artifacts"] == sharded["artifacts"]
    dpo = ("--data", export_folder, "--pretrained", tmp_path, "--global-pairs", "--set", "zero.stage=3")
    assert succeed("group_dpo", *dpo, output=tmp_path / "dpo", num_processes=2)["stage"] == "global_dpo"


@pytest.mark.slow
def test_bf16_zero_2_trains_and_hands_over_fp32(export_folder, tmp_path):
    precision = ("--set", "zero.stage=2", "--set", "zero.precision=bf16")
    record = succeed("pretrain", "--data", export_folder, *SMALL, *precision, output=tmp_path, num_processes=2)
    assert math.isfinite(record["metrics"]["train/loss"])
    pipeline = GroupAdPipeline.from_pretrained(tmp_path / "model", local_files_only=True)
    assert {pipeline.backbone.dtype, pipeline.denoiser.dtype, pipeline.connector.dtype} == {torch.float32}
    dpo = ("--data", export_folder, "--pretrained", tmp_path, *precision)
    assert succeed("group_dpo", *dpo, output=tmp_path / "dpo", num_processes=2)["stage"] == "group_dpo"


@pytest.mark.slow
def test_damaged_checkpoint_is_refused(export_folder, tmp_path):
    arguments = ("--data", export_folder, *SMALL)
    succeed("pretrain", *arguments, output=tmp_path)
    (tmp_path / "run.json").unlink()
    next((tmp_path / "checkpoints").rglob("*.pt")).write_bytes(b"evil")
    done = run("pretrain", *arguments, "--output", tmp_path, "--resume")
    assert done.returncode == 2
    assert "damaged" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "run.json").exists()
