"""Starts the stages of `osmf_models` in a process group of their own, follows them, and reads what they left.

A stage has succeeded when its `run.json` is there; its heartbeat tells how far it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmf_models.records import CHECKPOINT_POINTER_NAME, CHECKPOINTS_NAME, HEARTBEAT_NAME, RUN_RECORD_NAME
from osmf_pipelines.resources.tracking import TrackedRun

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0
_LOG_NAME = "log.txt"
_LOG_TAIL_LINES = 15

OnProgress = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class StageRun:
    """A finished stage.

    Attributes:
        output: its folder.
        record: its `run.json`.
        mlflow_run_id: the run that it logged to.
    """

    output: Path
    record: dict[str, Any]
    mlflow_run_id: str

    def count_changed_artifacts(self) -> int:
        """Returns how many of the files that the stage recorded are missing or differ now."""
        artifacts: dict[str, str] = self.record["artifacts"]
        return sum(_sha256(self.output / name) != digest for name, digest in artifacts.items())


class Trainer:
    """Runs stages.

    Args:
        settings: where runs go, how many processes train.
        on_progress: called with the stage's name and its heartbeat whenever that moves.
    """

    def __init__(self, settings: Settings, on_progress: OnProgress | None = None):
        self.settings = settings
        self.on_progress = on_progress

    def run(
        self,
        stage: str,
        arguments: Sequence[str],
        output: Path,
        *,
        run_name: str,
        is_distributed: bool = False,
        pictures: Sequence[str] = ("sample_grid.png",),
    ) -> StageRun:
        """Runs `python -m osmf_models.stages.<stage>` to its end; an unfinished run in `output` goes on.

        Args:
            stage: name of the stage.
            arguments: its command line, without --output.
            output: its folder, one for each combination of arguments and data; a finished run in it is replaced.
            run_name: of the MLflow run.
            is_distributed: train in as many processes as the settings say.
            pictures: files of `output` to keep with the MLflow run, those that are there.

        Raises:
            RuntimeError: when the stage fails; the message ends with the last lines of its log.
        """
        if (output / RUN_RECORD_NAME).is_file():
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        num_processes = self.settings.num_processes if is_distributed else 1
        with TrackedRun(self.settings, run_name) as tracked:
            command = [*launcher(num_processes), f"osmf_models.stages.{stage}", *arguments, "--output", str(output)]
            if (output / CHECKPOINTS_NAME / CHECKPOINT_POINTER_NAME).is_file():
                command.append("--resume")
            self._follow(run_name, command, output, _environment(self.settings, tracked.run_id, num_processes))
            record = json.loads((output / RUN_RECORD_NAME).read_text())
            tracked.log_record(record)
            for path in (output / name for name in pictures):
                if path.is_file():
                    tracked.log_picture(path)
        return StageRun(output, record, tracked.run_id)

    def _follow(self, name: str, command: list[str], output: Path, environment: dict[str, str]) -> None:
        with (output / _LOG_NAME).open("a") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        try:
            self._wait(name, process, output)
        finally:
            _stop_group(process)
        if process.returncode != 0 or not (output / RUN_RECORD_NAME).is_file():
            tail = "\n".join((output / _LOG_NAME).read_text().splitlines()[-_LOG_TAIL_LINES:])
            raise RuntimeError(
                f"{name} ended with exit code {process.returncode}; {output / _LOG_NAME} ends with:\n{tail}"
            )

    def _wait(self, name: str, process: subprocess.Popen[bytes], output: Path) -> None:
        last = None
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            heartbeat = output / HEARTBEAT_NAME
            text = heartbeat.read_text() if heartbeat.is_file() else None
            if text and text != last and self.on_progress is not None:
                self.on_progress(name, json.loads(text))
            last = text


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def launcher(num_processes: int) -> list[str]:
    """Returns the start of a command that runs a module, named next, in so many processes."""
    if num_processes == 1:
        return [sys.executable, "-m"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(num_processes)]
    return [*torchrun, "--master-addr", "127.0.0.1", "--master-port", str(port), "-m"]


def _environment(settings: Settings, mlflow_run_id: str, num_processes: int) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_RUN_ID": mlflow_run_id,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ends every process of the stage, also those that outlive the launcher."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal_number)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
