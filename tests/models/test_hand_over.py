"""What a checkpoint is exported as: byte for byte what the stage would have left, had it ended there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_stages import launched

from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.training.hand_over import export_checkpoint

RUNS = Path(__file__).with_name("hand_over_runs.py")
DENOISER = "denoiser/diffusion_pytorch_model.safetensors"


def run_cases(export_folder: Path, output: Path, *changes: str, num_processes: int = 1) -> Path:
    program = [*launched(num_processes), str(RUNS), str(export_folder), str(output), *changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert "model_index.json" in files
    return {name: path.read_bytes() for name, path in sorted(files.items())}


def exported(*arguments: object) -> subprocess.CompletedProcess:
    program = [sys.executable, "-m", "osmf_models.stages.export_checkpoint", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def runs(export_folder, tmp_path_factory):
    """One process in fp32."""
    return run_cases(export_folder, tmp_path_factory.mktemp("runs"))


def test_command_exports_what_the_stage_would_have_left(runs, tmp_path):
    checkpoint = runs / "going_on" / "checkpoints" / "step-0000002"
    done = exported("--checkpoint", checkpoint, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    left = contents(tmp_path / "out")
    assert left == contents(runs / "ended" / "model")
    assert {Path(name).suffix for name in left} == {".json", ".safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    again = exported("--checkpoint", checkpoint, "--output", tmp_path / "out")
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1] == f"error: {tmp_path / 'out'} holds something already: name a new folder."


def test_weights_themselves_are_exported_on_demand(runs, tmp_path):
    export_checkpoint(runs / "going_on" / "checkpoints", tmp_path / "out", is_averaged=False)
    left, ended = contents(tmp_path / "out"), contents(runs / "ended" / "model")
    assert left == contents(runs / "ended_without_average" / "model")
    assert left[DENOISER] != ended[DENOISER]


def lose_outline(folder):
    shutil.rmtree(folder / "outline")


def damage(folder):
    path = next(folder.rglob("*.pt"))
    path.write_bytes(path.read_bytes()[:-1])


def be_nothing(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [(lose_outline, "lacks or adds outline/"), (damage, "is damaged"), (be_nothing, "manifest of .* is broken")],
)
def test_broken_checkpoint_is_refused(runs, tmp_path, change, message):
    checkpoint = tmp_path / "step-0000002"
    shutil.copytree(runs / "going_on" / "checkpoints" / "step-0000002", checkpoint)
    change(checkpoint)
    with pytest.raises(ValueError, match=message):
        export_checkpoint(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "precision"), [(1, "bf16"), (2, "fp32"), (3, "bf16"), (0, "bf16")])
def test_two_processes_under_zero_leave_what_one_exports(export_folder, tmp_path, stage, precision):
    changes = (f"zero.stage={stage}", f"zero.precision={precision}")
    runs = run_cases(export_folder, tmp_path / "runs", *changes, num_processes=2)
    for is_averaged, case in ((None, "ended"), (False, "ended_without_average")):
        checkpoint = runs / "going_on" / "checkpoints" / "step-0000002"
        export_checkpoint(checkpoint, tmp_path / case, is_averaged)
        assert contents(tmp_path / case) == contents(runs / case / "model")
        weights = load_file(tmp_path / case / DENOISER)["refine.0.weight"]
        assert bool((weights != weights.bfloat16().float()).any())  # the master weights, not what the model saw
    assert GroupAdPipeline.from_pretrained(tmp_path / "ended", local_files_only=True).image_px == 32
