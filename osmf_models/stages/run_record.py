"""What every stage of this package shares: its command line, and the record that says a run succeeded.

What a stage does belongs in its own file.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from osmf_models.config import RunConfig
from osmf_models.file_hashes import artifacts_digest
from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.records import RUN_RECORD_NAME, ExportManifest
from osmf_models.training.manifest import file_sha256

_LIBRARIES = ("torch", "transformers", "diffusers", "deepspeed", "safetensors", "numpy")


@dataclass(frozen=True)
class StageArguments:
    """The command line of a stage: its config, and where things lie.

    Attributes:
        config: recipe with overrides.
        data: folder of the training export.
        output: folder that the stage writes.
        is_resumed: go on from the newest checkpoint in `output`.
    """

    config: RunConfig
    data: Path
    output: Path
    is_resumed: bool


def stage_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of every training stage."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--recipe", required=True, help="name of a run in osmf_models/recipes.py")
    parser.add_argument("--data", required=True, type=Path, help="folder of a training export")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --output")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", help="replaces a field of the recipe"
    )
    return parser


def stage_arguments(options: argparse.Namespace) -> StageArguments:
    """Returns the parsed options with the recipe looked up; an earlier run's record in the output is removed."""
    config = apply_overrides(load_recipe(options.recipe), options.set)
    (options.output / RUN_RECORD_NAME).unlink(missing_ok=True)
    return StageArguments(config, options.data, options.output, options.resume)


def run_stage(stage: Callable[[], None]) -> None:
    """Runs a stage as a program: wrong input ends it with one clear line and exit status 2."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    for name in ("DeepSpeed", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        stage()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def write_run_record(
    arguments: StageArguments, stage: str, manifest: ExportManifest, metrics: dict[str, float], wall_seconds: float
) -> None:
    """Writes `run.json`, whose presence means success; call it last.

    Raises:
        ValueError: when a metric is no finite number.
    """
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise ValueError(f"metrics {', '.join(broken)} are no finite numbers.")
    output = arguments.output
    artifacts = {
        path.relative_to(output).as_posix(): file_sha256(path)
        for path in sorted((output / "model").rglob("*"))
        if path.is_file()
    }
    record = {
        "stage": stage,
        "recipe": arguments.config.recipe,
        "config": asdict(arguments.config),
        "as_of_date": manifest.as_of_date,
        "data_hash": manifest.data_hash,
        "metrics": metrics,
        "artifacts": artifacts,
        "artifact_sha256": artifacts_digest(artifacts),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
        "wall_seconds": wall_seconds,
        "mlflow_run_id": os.environ.get("MLFLOW_RUN_ID", ""),
    }
    temporary = output / f".{RUN_RECORD_NAME}.tmp"
    temporary.write_text(json.dumps(record, indent=1))
    temporary.replace(output / RUN_RECORD_NAME)
