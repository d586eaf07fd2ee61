"""A Dagster run is terminated while its asset trains in two processes: nothing of it is left, and the next goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from osmf_pipelines.settings import Settings
from tests.launching.test_training_elsewhere import processes_with
from tests.models.planted_export import write_export

pytestmark = pytest.mark.slow
PROGRAM = """
import os
from pathlib import Path

import dagster as dg

from osmf_pipelines.resources.trainer import Trainer
from osmf_pipelines.settings import Settings

HOME = Path(os.environ["TRIAL_HOME"])
FIELDS = ("num_steps=100000", "log_every=1", "checkpoint_every=3")


@dg.asset
def pretrained_model(context: dg.AssetExecutionContext) -> None:
    trainer = Trainer(Settings(home=HOME, num_processes=2)).telling(context.log.info)
    arguments = ["--recipe", "tiny", "--data", str(HOME / "export")]
    arguments += [part for field in FIELDS for part in ("--set", f"pretraining.training.{field}")]
    trainer.run("pretrain", arguments, HOME / "model", run_name="pretrained_model", is_distributed=True)


defs = dg.Definitions([pretrained_model], jobs=[dg.define_asset_job("train")], executor=dg.in_process_executor)
"""
PROGRESS = re.compile(r"pretrained_model: step \d+ of 100000 \(0%\), loss \d")


def start(home: Path) -> subprocess.Popen[bytes]:
    """Starts the job as Dagster's run process does, which a termination sends SIGINT."""
    program = home / "program.py"
    program.write_text(PROGRAM)
    (home / "dagster").mkdir(exist_ok=True)
    environment = {**os.environ, "TRIAL_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    command = [sys.executable, "-m", "dagster", "job", "execute", "-f", str(program), "-j", "train"]
    with (home / "dagster.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def terminate_once(run: subprocess.Popen[bytes], checkpoint: Path, log: Path) -> None:
    """Terminates a run as soon as it has written a checkpoint and Dagster's log tells how far it is."""
    try:
        while not (checkpoint.is_dir() and PROGRESS.search(log.read_text())):
            assert run.poll() is None
            time.sleep(0.2)
        run.send_signal(signal.SIGINT)
        run.wait(timeout=60)
    finally:
        run.kill()
        run.wait()


def test_termination_ends_the_whole_tree_and_the_next_run_goes_on(tmp_path: Path) -> None:
    write_export(tmp_path / "export")
    output, log = tmp_path / "model", tmp_path / "dagster.log"
    terminate_once(start(tmp_path), output / "checkpoints" / "step-0000003", log)
    assert processes_with(str(output)) == []
    assert not (output / "run.json").exists()
    written = max(path.name for path in (output / "checkpoints").glob("step-*"))
    log.rename(tmp_path / "first.log")
    terminate_once(start(tmp_path), output / "checkpoints" / f"step-{int(written[5:]) + 3:07d}", log)
    assert processes_with(str(output)) == []
    assert f"going on from {output}/checkpoints/{written}" in (output / "log.txt").read_text()
    assert f"its log, as it is written: {output / 'log.txt'}" in log.read_text()
    runs = MlflowClient(tracking_uri=Settings(home=tmp_path).tracking_uri).search_runs(["1"])
    assert [run.info.status for run in runs] == ["FAILED", "FAILED"]
