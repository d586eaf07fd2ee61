"""Pretraining started in another directory: by a template, on the hosts of a hostfile, by machines that meet."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from osmf_pipelines.resources.trainer import StageRun, Trainer
from osmf_pipelines.settings import Settings
from tests.launching.conftest import HOSTILE, is_running
from tests.models.planted_export import write_export

pytestmark = pytest.mark.slow
FEW = 4
ENDLESS = 100_000


@pytest.fixture(scope="module")
def export_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / HOSTILE
    write_export(folder)
    return folder


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Pretraining:
    """The stage `pretrain` of recipe tiny through the trainer."""

    def __init__(self, home: Path, data: Path, **fields: Any):
        self.settings = Settings(home=home, **fields)
        self.data, self.output = data, home / "models" / HOSTILE
        self.told: list[str] = []

    def run(self, num_steps: int, on_progress: Any = None) -> StageRun:
        steps = [f"pretraining.training.{name}" for name in (f"num_steps={num_steps}", "log_every=1")]
        arguments = ["--recipe", "tiny", "--data", str(self.data), "--set", steps[0], "--set", steps[1]]
        trainer = Trainer(self.settings, on_progress).telling(self.told.append)
        return trainer.run("pretrain", arguments, self.output, run_name="elsewhere", is_distributed=True)

    def run_until_interrupted(self) -> None:
        """Ctrl-C as soon as two steps are done."""

        def interrupt(_: str, heartbeat: dict[str, Any]) -> None:
            if heartbeat["step"] >= 2:
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            self.run(ENDLESS, interrupt)

    def statuses(self) -> list[str]:
        found = MlflowClient(tracking_uri=self.settings.tracking_uri).search_runs(["1"])
        return [run.info.status for run in found]


def by_template(home: Path, data: Path, remote: Path) -> Pretraining:
    return Pretraining(
        home,
        data,
        num_processes=1,
        launch_command=f"{shlex.quote(str(remote))} {{job}} {{command}}",
        cancel_command=f"{shlex.quote(str(remote.with_name('forsake')))} {{job}}",
    )


def test_a_template_trains_in_another_directory(
    tmp_path: Path, export_folder: Path, elsewhere: Path, remote: Path
) -> None:
    pretraining = by_template(tmp_path / "home", export_folder, remote)
    steps: list[int] = []
    run = pretraining.run(FEW, lambda _, heartbeat: steps.append(heartbeat["step"]))
    assert run.record["stage"] == "pretrain"
    assert run.count_changed_artifacts() == 0
    assert steps[-1] == FEW
    # What Dagster's page of the run shows.
    assert pretraining.told[0].endswith(f"its log, as it is written: {pretraining.output / 'log.txt'}")
    assert pretraining.told[-1].startswith(f"elsewhere: step {FEW} of {FEW} (100%), loss ")
    assert [path.suffix for path in elsewhere.iterdir()] == [".pid"]
    # The stage logged its curve into the run that was opened here.
    client = MlflowClient(tracking_uri=pretraining.settings.tracking_uri)
    assert [metric.step for metric in client.get_metric_history(run.mlflow_run_id, "train/loss")][:FEW] == [1, 2, 3, 4]
    # What it draws for each group is kept by name and step, through which MLflow's slider goes.
    images = [Path(one.path).name for one in client.list_artifacts(run.mlflow_run_id, "images")]
    pictures = [path.relative_to(run.output / "samples") for path in run.output.glob("samples/*/*/*.png")]
    told = {f"{one.parts[1]}~{one.stem}+step+{FEW}" for one in pictures}
    assert told
    assert {name.partition("+timestamp")[0] for name in images} == told


def test_it_is_cancelled_where_it_runs(tmp_path: Path, export_folder: Path, elsewhere: Path, remote: Path) -> None:
    pretraining = by_template(tmp_path / "home", export_folder, remote)
    pretraining.run_until_interrupted()
    pid = int(next(elsewhere.glob("*.pid")).read_text())
    assert not is_running(pid)
    assert not (pretraining.output / "run.json").exists()
    assert pretraining.statuses() == ["FAILED"]


def processes_with(words: str) -> list[int]:
    """Those of this machine whose command line holds `words`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.fixture
def hostfile(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 slots=1\nlocalhost slots=1\n")
    return path


def test_two_hosts_train_as_one(tmp_path: Path, export_folder: Path, hostfile: Path, ssh: Path) -> None:
    meeting = f"127.0.0.1:{free_port()}"
    pretraining = Pretraining(tmp_path / "home", export_folder, hostfile=hostfile, rendezvous=meeting)
    assert pretraining.run(FEW).record["world_size"] == 2


def test_two_hosts_are_cancelled(tmp_path: Path, export_folder: Path, hostfile: Path, ssh: Path) -> None:
    meeting = f"127.0.0.1:{free_port()}"
    pretraining = Pretraining(tmp_path / "home", export_folder, hostfile=hostfile, rendezvous=meeting)
    pretraining.run_until_interrupted()
    assert len(list(pretraining.output.glob(".node-*.pid"))) == 2
    assert processes_with(str(pretraining.output)) == []


def test_machines_meet(tmp_path: Path, export_folder: Path) -> None:
    """One is the trainer's; the other runs what the trainer's log says."""
    fields = {"num_nodes": 2, "num_processes": 1, "rendezvous": f"localhost:{free_port()}"}
    pretraining = Pretraining(tmp_path / "home", export_folder, **fields)
    joined: list[int] = []

    def join() -> None:
        script = pretraining.output / "join.sh"
        while not script.exists() or "osmf_models" not in script.read_text():
            time.sleep(0.2)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_RUN")}
        # The trainer ends what is left of its run on its own machine, known by this variable; this is another machine.
        text = script.read_text().replace("MLFLOW_RUN_ID=", "ANOTHER_MACHINE=")
        joined.append(subprocess.run(["sh", "-c", text], env=environment, cwd=tmp_path, timeout=600).returncode)

    other = threading.Thread(target=join, daemon=True)
    other.start()
    assert pretraining.run(FEW).record["world_size"] == 2
    other.join(330)  # torchrun's machines wait up to 300 s for each other before they end
    assert joined == [0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
