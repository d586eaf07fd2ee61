import json
import math
import subprocess
import sys

import pytest
import torch

from osmf_models.config import TrainingConfig, ZeroConfig
from osmf_models.training.loop import learning_rate_at, read_metrics, write_heartbeat
from osmf_models.training.tracking import Tracker
from osmf_models.training.zero import deepspeed_config

CONFIG = TrainingConfig(num_steps=100, batch_size=8, learning_rate=1.0, warmup_steps=10, final_learning_rate_share=0.0)


def test_learning_rate_warms_up_and_decays():
    assert learning_rate_at(0, CONFIG) == pytest.approx(0.1)
    assert learning_rate_at(50, CONFIG) == pytest.approx(0.5)
    assert learning_rate_at(99, CONFIG) == pytest.approx(0.01)


def test_heartbeat_says_how_far(tmp_path):
    write_heartbeat(tmp_path, step=3, num_steps=8, eta_seconds=2.5, loss=0.4)
    heartbeat = json.loads((tmp_path / "heartbeat.json").read_text())
    assert {name: heartbeat[name] for name in ("step", "num_steps", "eta_seconds", "loss")} == {
        "step": 3,
        "num_steps": 8,
        "eta_seconds": 2.5,
        "loss": 0.4,
    }


def test_tracker_keeps_steps_rising_over_a_resume(tmp_path):
    first = Tracker(tmp_path, rank=0)
    for step in (2, 4, 6):
        first.log(step, {"train/loss": 1.0})
    Tracker(tmp_path, rank=0, first_step=4).log(6, {"train/loss": 0.5})
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["step"], record["train/loss"]) for record in records] == [(2, 1.0), (4, 1.0), (6, 0.5)]


def test_tracker_drops_a_line_that_a_killed_process_left_unfinished(tmp_path):
    Tracker(tmp_path, rank=0).log(2, {"train/loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')
    Tracker(tmp_path, rank=0, first_step=2).log(4, {"train/loss": 0.5})
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 4]


def test_other_ranks_write_nothing(tmp_path):
    Tracker(tmp_path, rank=1).log(1, {"train/loss": 1.0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_config_is_concrete_and_clips(stage):
    config = deepspeed_config(ZeroConfig(stage=stage, precision="bf16"), CONFIG, world_size=2)
    assert config["zero_optimization"]["stage"] == stage
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_clipping"] == 1.0
    assert config["bf16"]["enabled"]
    assert "auto" not in json.dumps(config)


@pytest.mark.parametrize(
    ("zero", "world_size", "stage"),
    [
        (ZeroConfig(stage=1), 1, 0),
        (ZeroConfig(stage=2), 1, 0),
        (ZeroConfig(stage=3), 1, 3),
        (ZeroConfig(stage=1, precision="bf16"), 1, 1),
        (ZeroConfig(stage=1), 2, 1),
    ],
)
def test_one_process_in_fp32_shards_nothing(zero, world_size, stage):
    assert deepspeed_config(zero, CONFIG, world_size)["zero_optimization"]["stage"] == stage


def test_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="cannot be shared equally by 3"):
        deepspeed_config(ZeroConfig(), CONFIG, world_size=3)


@pytest.mark.slow
def test_tracker_logs_to_the_orchestrators_mlflow_run(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow.MlflowClient()
    run_id = client.create_run(client.create_experiment("trial", artifact_location=str(tmp_path))).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    tracker = Tracker(tmp_path / "output", rank=0)
    tracker.log(2, {"train/loss": 1.0})
    tracker.log(4, {"train/loss": 0.5})
    history = client.get_metric_history(run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(2, 1.0), (4, 0.5)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"loss": math.nan}, "the loss of step 6 is nan"),
        ({"gradient_norm": -1.0}, "the gradient of step 6 is no finite number"),
        ({"gradient_norm": math.inf}, "the gradient of step 6 is no finite number"),
    ],
)
def test_broken_step_is_named_when_metrics_are_read(monkeypatch, broken, message):
    monkeypatch.setattr("osmf_models.training.zero.mean_over_ranks", lambda values: values)
    sound = {"loss": 1.0, "gradient_norm": 0.5}
    steps = [{name: torch.tensor(value) for name, value in step.items()} for step in (sound, {**sound, **broken})]
    assert read_metrics({5: steps[0]}) == [sound]
    with pytest.raises(ValueError, match=message):
        read_metrics({5: steps[0], 6: steps[1]})


BROKEN_WEIGHT = """
import sys
from pathlib import Path
import torch
from osmf_models.config import TrainingConfig, ZeroConfig
from osmf_models.training import zero
from osmf_models.training.loop import train

broken_step, output = int(sys.argv[1]), Path(sys.argv[2])
config = TrainingConfig(num_steps=4, batch_size=1, warmup_steps=1, log_every=1, checkpoint_every=2)
with zero.process_group():
    engine = zero.build_engine(torch.nn.Linear(4, 1), ZeroConfig(stage=0), config)

    def loss_of(step):
        loss = engine(torch.ones(1, 4)).square().mean()
        if step == broken_step:
            engine.module.bias.data.fill_(torch.inf)
        return loss, {}

    try:
        train(engine, loss_of, config, output)
    finally:
        engine.destroy()
"""


@pytest.mark.parametrize(("broken_step", "num_checkpoints"), [(1, 0), (3, 1)])
def test_weights_that_broke_after_a_finite_loss_are_neither_saved_nor_handed_over(
    tmp_path, broken_step, num_checkpoints
):
    arguments = [sys.executable, "-c", BROKEN_WEIGHT, str(broken_step), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"after step {broken_step} a weight is no finite number" in done.stderr
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == num_checkpoints
