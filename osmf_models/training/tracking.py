"""Where a run's numbers go: `metrics.jsonl` always, and the orchestrator's MLflow run where there is one.

Only rank 0 writes. Starting and ending MLflow runs belongs to the orchestrator.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Tracker:
    """Writes metrics of rising steps; does nothing on other ranks than 0."""

    def __init__(self, folder: Path, rank: int, first_step: int = 0):
        self._path = folder / "metrics.jsonl"
        self._is_writer = rank == 0
        self._run_id = os.environ.get("MLFLOW_RUN_ID") if self._is_writer else None
        self._client = _mlflow_client() if self._run_id else None
        if self._is_writer:
            folder.mkdir(parents=True, exist_ok=True)
            _keep_steps_until(self._path, first_step)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Records `metrics` at `step`."""
        if not self._is_writer:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._client is not None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            self._client.log_batch(self._run_id, [Metric(name, value, now, step) for name, value in metrics.items()])


def _mlflow_client() -> Any:
    """Returns a client of the tracking server that the environment names."""
    import mlflow  # costs seconds, and many runs need none

    return mlflow.MlflowClient()


def _keep_steps_until(path: Path, first_step: int) -> None:
    """Drops the records past a checkpoint that training resumes from, so that steps keep rising.

    A last line without an end, which a killed process left, is past every checkpoint.
    """
    if path.exists():
        lines = path.read_text().rpartition("\n")[0].splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= first_step]
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept))
        temporary.replace(path)
