"""The numbers that the suite of a trained model refuses it by, from what a stage left."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from osmf_pipelines.assets.models import model_facts
from osmf_pipelines.definitions import build_defs
from osmf_pipelines.resources.trainer import StageRun
from osmf_pipelines.settings import Settings


def facts(output: Path, step: int = 8, **metrics: float) -> dict[str, Any]:
    """Of a run that was to take 8 steps and left a model of two files."""
    artifacts = {}
    for name in ("model/a.json", "model/b.safetensors"):
        (output / "model").mkdir(exist_ok=True)
        (output / name).write_text(name)
        artifacts[name] = hashlib.sha256(name.encode()).hexdigest()
    (output / "heartbeat.json").write_text(json.dumps({"step": step, "num_steps": 8}))
    (output / "model" / "b.safetensors").write_text(
        "damaged" if metrics.pop("is_damaged", 0) else "model/b.safetensors"
    )
    run = StageRun(output, {"metrics": metrics, "artifacts": artifacts}, "run")
    return model_facts(run, Settings(home=output, max_scene_distance=2.0))


@pytest.mark.parametrize(("launch_command", "pool"), [("", "spark"), ("srun {command}", "gpu")])
def test_training_takes_turns_with_spark_unless_it_is_started_elsewhere(
    tmp_path: Path, launch_command: str, pool: str
) -> None:
    settings = Settings(home=tmp_path.absolute(), launch_command=launch_command)
    pools = {asset.node_def.name: asset.node_def.pool for asset in build_defs(settings).assets or ()}
    trained = {"pretrained_model", "global_dpo_model", "group_dpo_model", "chosen_only_model", "shuffled_dpo_model"}
    assert {name: found for name, found in pools.items() if found != "spark"} == (
        dict.fromkeys(trained, "gpu") if pool == "gpu" else {}
    )


def test_a_sound_run(tmp_path: Path) -> None:
    assert facts(tmp_path, **{"train/loss": 0.5, "sample_grid/scene_distance": 1.5}) == {
        "num_steps_missing": 0,
        "num_not_finite": 0,
        "num_artifacts_changed": 0,
        "test_pair_accuracy_low": 0.0,
        "scene_distance_excess": -0.5,
    }


def test_what_is_wrong_is_counted(tmp_path: Path) -> None:
    metrics = {"train/loss": math.nan, "sample_grid/scene_distance": 3.0, "is_damaged": 1.0}
    told = facts(tmp_path, step=5, **metrics)
    assert (told["num_steps_missing"], told["num_not_finite"], told["num_artifacts_changed"]) == (3, 1, 1)
    assert told["scene_distance_excess"] == 1.0


def test_a_model_whose_pictures_were_not_looked_at_is_not_sound(tmp_path: Path) -> None:
    assert facts(tmp_path, **{"train/loss": 0.5})["scene_distance_excess"] == math.inf
