"""Runs the stages of `osmf_models` for assets, each in an MLflow run, and reads what they left.

A stage has succeeded when its `run.json` is there. How it is started belongs in `launchers.py`, how it is followed and
ended in `following.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmf_models.records import (
    CHECKPOINT_PATTERN,
    CHECKPOINTS_NAME,
    MANIFEST_NAME,
    RUN_RECORD_NAME,
    SAMPLES_NAME,
    ExportManifest,
)
from osmf_pipelines.resources.following import Following, OnHeartbeat
from osmf_pipelines.resources.launchers import Job, prepare_launch
from osmf_pipelines.resources.progress import ProgressLines
from osmf_pipelines.resources.tracking import TrackedRun, tracking_client

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings

OnProgress = Callable[[str, dict[str, Any]], None]
Tell = Callable[[str], object]


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
        settings: where runs go, where and in how many processes training runs.
        on_progress: called with the stage's name and its heartbeat whenever that moves.
        tell: takes lines for a log that people read: where a stage's own log is, and how far it is.
    """

    def __init__(self, settings: Settings, on_progress: OnProgress | None = None, tell: Tell | None = None):
        self.settings = settings
        self.on_progress = on_progress
        self.tell = tell

    def telling(self, tell: Tell) -> Trainer:
        """Returns this trainer with a log to tell lines to."""
        return Trainer(self.settings, self.on_progress, tell)

    def run(
        self,
        stage: str,
        arguments: Sequence[str],
        output: Path,
        *,
        run_name: str,
        is_distributed: bool = False,
        is_kept: bool = False,
        pictures: Sequence[str] = ("sample_grid.png",),
    ) -> StageRun:
        """Runs `python -m osmf_models.stages.<stage>` to its end; an unfinished run in `output` goes on.

        Args:
            stage: name of the stage.
            arguments: its command line, without --output.
            output: its folder, one for each combination of arguments and data.
            run_name: of the MLflow run.
            is_distributed: it trains: where and in as many processes as the settings say, writing heartbeats.
            is_kept: a finished run in `output` whose files are as it left them serves again, with its MLflow run; else,
                or when MLflow has lost that, it is replaced.
            pictures: files of `output` to keep with the MLflow run, those that are there.

        Raises:
            RuntimeError: when the stage fails; the message ends with the last lines of its log.
            ValueError: when it cannot be started as the settings say.
        """
        if (output / RUN_RECORD_NAME).is_file():
            finished = self._finished(output) if is_kept else None
            if finished is not None:
                if self.tell is not None:
                    self.tell(f"{run_name}: {output} has this very run, finished before (remove it to run again)")
                return finished
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        is_resumed = any((output / CHECKPOINTS_NAME).glob(CHECKPOINT_PATTERN))
        with TrackedRun(self.settings, run_name) as tracked:
            job = Job(stage, [*arguments, *(["--resume"] if is_resumed else [])], output, tracked.run_id)
            if job.data and (Path(job.data) / MANIFEST_NAME).is_file():
                tracked.log_export(Path(job.data), ExportManifest.read(Path(job.data)))
            launch = prepare_launch(self.settings, job, is_distributed=is_distributed)
            following = Following(
                run_name,
                launch,
                output,
                self.settings,
                has_heartbeat=is_distributed,
                on_heartbeat=self._on_heartbeat(run_name),
            )
            if self.tell is not None:
                self.tell(f"{run_name}: MLflow run {tracked.run_id}; its log, as it is written: {following.log_path}")
            following.run()
            record = json.loads((output / RUN_RECORD_NAME).read_text())
            tracked.log_record(record)
            for path in (output / name for name in pictures):
                if path.is_file():
                    tracked.log_picture(path)
            tracked.log_samples(output / SAMPLES_NAME)
        return StageRun(output, record, tracked.run_id)

    def _finished(self, output: Path) -> StageRun | None:
        """The finished run in `output`, if all of it is there."""
        from mlflow.exceptions import MlflowException

        try:
            record = json.loads((output / RUN_RECORD_NAME).read_text())
            run = StageRun(output, record, record["mlflow_run_id"])
            tracking_client(self.settings).get_run(run.mlflow_run_id)
        except (ValueError, KeyError, MlflowException):
            return None
        return None if run.count_changed_artifacts() else run

    def _on_heartbeat(self, run_name: str) -> OnHeartbeat:
        takers: list[OnProgress] = [] if self.on_progress is None else [self.on_progress]
        if self.tell is not None:
            takers.append(ProgressLines(self.tell))

        def take(heartbeat: dict[str, Any]) -> None:
            for taker in takers:
                taker(run_name, heartbeat)

        return take


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
