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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmf_models.records import CHECKPOINT_POINTER_NAME, CHECKPOINTS_NAME, RUN_RECORD_NAME
from osmf_pipelines.resources.following import Following
from osmf_pipelines.resources.launchers import Job, prepare_launch
from osmf_pipelines.resources.tracking import TrackedRun

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings

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
        settings: where runs go, where and in how many processes training runs.
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
            is_distributed: it trains: where and in as many processes as the settings say, writing heartbeats.
            pictures: files of `output` to keep with the MLflow run, those that are there.

        Raises:
            RuntimeError: when the stage fails; the message ends with the last lines of its log.
            ValueError: when it cannot be started as the settings say.
        """
        if (output / RUN_RECORD_NAME).is_file():
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        is_resumed = (output / CHECKPOINTS_NAME / CHECKPOINT_POINTER_NAME).is_file()
        with TrackedRun(self.settings, run_name) as tracked:
            job = Job(stage, [*arguments, *(["--resume"] if is_resumed else [])], output, tracked.run_id)
            launch = prepare_launch(self.settings, job, is_distributed=is_distributed)
            on_heartbeat = None if self.on_progress is None else partial(self.on_progress, run_name)
            Following(
                run_name, launch, output, self.settings, has_heartbeat=is_distributed, on_heartbeat=on_heartbeat
            ).run()
            record = json.loads((output / RUN_RECORD_NAME).read_text())
            tracked.log_record(record)
            for path in (output / name for name in pictures):
                if path.is_file():
                    tracked.log_picture(path)
        return StageRun(output, record, tracked.run_id)


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
