"""Runs a stage that measures in processes of its own, and returns what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from osmf_pipelines.resources.launchers import launcher, num_usable_cores

_LOG_TAIL_LINES = 15


def run_measurement(stage: str, arguments: Sequence[str], num_ranks: int) -> dict[str, Any]:
    """Returns the measurement that `osmf_models.stages.STAGE` writes to the file of its option --output.

    Args:
        stage: name of its module.
        arguments: its other options.
        num_ranks: processes; they share the machine's CPU threads.

    Raises:
        RuntimeError: when it fails; the message ends with the last lines of its log.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measurement.json"
        command = [*launcher(num_ranks), f"osmf_models.stages.{stage}", "--output", str(file), *arguments]
        threads = str(max(1, num_usable_cores() // num_ranks))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not file.is_file():
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-_LOG_TAIL_LINES:])
            raise RuntimeError(f"stage {stage} with {num_ranks} processes failed:\n{tail}")
        measurement: dict[str, Any] = json.loads(file.read_text())
        return measurement
