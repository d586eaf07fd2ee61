"""Ends a stage that trains nothing: hashes what it wrote and writes its `run.json` last.

The record of a training stage belongs in `run_record.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from osmf_models.file_hashes import artifacts_digest
from osmf_models.records import RUN_RECORD_NAME
from osmf_models.training.manifest import file_sha256


def finish_stage(output: Path, record: Mapping[str, Any]) -> None:
    """Writes `output`/run.json, whose presence means success.

    Args:
        output: the stage's folder.
        record: stage, metrics and whatever else; `artifacts` (file name to sha256) and their common hash
            `artifact_sha256` are added for the files in `output` where the record does not give them.

    Raises:
        ValueError: when a metric is no finite number.
    """
    broken = [name for name, value in record.get("metrics", {}).items() if not math.isfinite(value)]
    if broken:
        raise ValueError(f"metrics {', '.join(broken)} are no finite numbers.")
    files = sorted(path for path in output.rglob("*") if path.is_file() and path.suffix in (".json", ".png"))
    artifacts = {path.relative_to(output).as_posix(): file_sha256(path) for path in files}
    whole = {"artifacts": artifacts, "artifact_sha256": artifacts_digest(artifacts), **record}
    temporary = output / f".{RUN_RECORD_NAME}.tmp"
    temporary.write_text(json.dumps(whole, indent=1))
    temporary.replace(output / RUN_RECORD_NAME)
