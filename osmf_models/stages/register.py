"""Stage `register`: puts a trained model into the MLflow registry, as code over safetensors, never pickle.

    python -m osmf_models.stages.register --data EXPORT --model DIR --name osmf-group-ad --tracking-uri URI
        --output DIR [--evaluation DIR] [--lake ROOT] [--mlflow-run-id ID]

The version tells what it was made of: hashes of its files and of its data, Delta versions of the tables behind them,
the code's git revision, its configuration. With `--evaluation`, the output of stage evaluate, it holds what was found
of it there, on which promotion decides; with `--lake` the run names the tables as its inputs. Writes
OUTPUT/groups.parquet (the features of the export's groups, which the model needs to draw) and OUTPUT/run.json last. How
a served model answers belongs in `serving_model.py`, aliases in `osmf_pipelines/promotion/`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"

import mlflow  # after the two settings, which it reads
import pandas as pd
import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

import osmf_models
from osmf_models.evaluation.evaluation_record import RECORDS_NAME, read_records
from osmf_models.file_hashes import folder_digest
from osmf_models.records import (
    ARTIFACT_TAG,
    GROUP_COLUMNS,
    PACKAGE_TAG,
    REGISTRY_FILES,
    RUN_RECORD_NAME,
    ExportManifest,
)
from osmf_models.stages import serving_model
from osmf_models.stages.finish import finish_stage
from osmf_models.stages.run_record import run_stage

_EXPERIMENT = "osmf"
_SQLITE = "sqlite:///"
_REQUIREMENTS = ("torch", "transformers", "diffusers", "safetensors", "numpy", "pandas", "pyarrow", "pillow", "mlflow")


def main() -> None:
    """Runs the stage from the command line."""
    options = _parser().parse_args()
    started = time.monotonic()
    (options.output / RUN_RECORD_NAME).unlink(missing_ok=True)
    trained = read_trained_model(options.model)
    manifest = ExportManifest.read(options.data)
    options.output.mkdir(parents=True, exist_ok=True)
    groups_path = options.output / "groups.parquet"
    groups = write_groups(options.data, manifest, groups_path)
    mlflow.set_tracking_uri(options.tracking_uri)
    mlflow.set_registry_uri(options.tracking_uri)
    client = MlflowClient()
    run_id = options.mlflow_run_id or os.environ.get("MLFLOW_RUN_ID")
    experiment_id = None if run_id else _experiment_id(client, options.tracking_uri)
    origin = origin_of(trained, manifest)
    artifacts = {"pipeline": options.model / "model", "groups": groups_path}
    if options.evaluation is not None:
        artifacts["evaluation"] = verified_records(options.evaluation, trained["artifact_sha256"])
    with mlflow.start_run(run_id=run_id, experiment_id=experiment_id, run_name=None if run_id else "register") as run:
        if options.lake is not None:
            log_tables(options.lake, manifest)
        info = log_model(artifacts, example_input(options.data, manifest, groups), origin)
    with TemporaryDirectory(dir=options.output) as fetched:
        package = Path(mlflow.artifacts.download_artifacts(artifact_uri=info.model_uri, dst_path=fetched))
        package_sha256 = folder_digest(package, without=REGISTRY_FILES)
    tags = {
        ARTIFACT_TAG: trained["artifact_sha256"],
        PACKAGE_TAG: package_sha256,
        **{name: value if isinstance(value, str) else json.dumps(value) for name, value in origin.items()},
    }
    tags.pop("config")  # longer than a tag may be; it is in the model's metadata
    found = mlflow.register_model(info.model_uri, options.name, tags=tags)
    record = {
        "stage": "register",
        **origin,
        "model_name": options.name,
        "model_version": int(found.version),
        "mlflow_run_id": run.info.run_id,
        "artifact_sha256": trained["artifact_sha256"],
        "package_sha256": package_sha256,
        "metrics": {"model_version": float(found.version)},
        "wall_seconds": time.monotonic() - started,
    }
    finish_stage(options.output, record)


def read_trained_model(folder: Path) -> dict[str, Any]:
    """Returns the record of a training stage whose model files are the ones that it wrote.

    Raises:
        ValueError: when the stage has not finished or a file of its model has changed since.
    """
    path = folder / RUN_RECORD_NAME
    if not path.is_file():
        raise ValueError(f"{folder} holds no finished run (no {RUN_RECORD_NAME}).")
    record: dict[str, Any] = json.loads(path.read_text())
    if folder_digest(folder / "model", relative_to=folder) != record["artifact_sha256"]:
        raise ValueError(f"{folder / 'model'} is not what its {RUN_RECORD_NAME} says (sha256 differs): train again.")
    return record


def origin_of(trained: dict[str, Any], manifest: ExportManifest) -> dict[str, Any]:
    """Returns what a version was made of.

    Args:
        trained: the record of the training stage.
        manifest: of the export.
    """
    return {
        "as_of_date": manifest.as_of_date,
        "data_hash": manifest.data_hash,
        "table_versions": manifest.table_versions,
        "git_revision": git_revision(),
        "recipe": str(trained.get("recipe", "")),
        "config": trained.get("config", {}),
    }


def git_revision() -> str:
    """Returns the commit of this code, with `-dirty` where files differ from it; `none` outside a git checkout."""
    git = shutil.which("git")
    if git is None:
        return "none"
    folder = str(Path(osmf_models.__file__).parent)
    command = [git, "-C", folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "none"


def verified_records(evaluation: Path, artifact_sha256: str) -> Path:
    """Returns the file of records of an evaluation that has judged this very model.

    Raises:
        ValueError: when it has not.
    """
    path = evaluation / RECORDS_NAME
    if artifact_sha256 not in {record.artifact_sha256 for record in read_records(path).values()}:
        raise ValueError(f"{path} says nothing of this model: none of its models has the same files. Evaluate it.")
    return path


def log_tables(lake: str, manifest: ExportManifest) -> None:
    """Names the Delta tables behind the export, and the versions that were read, as inputs of the active run."""
    for name, table_version in sorted(manifest.table_versions.items()):
        source = DeltaDatasetSource(path=f"{lake.rstrip('/')}/{name}", delta_table_version=table_version)
        table = MetaDataset(source, name=name, digest=f"version-{table_version}")  # type: ignore[abstract]
        mlflow.log_input(table, context="training")


def write_groups(data: Path, manifest: ExportManifest, path: Path) -> pd.DataFrame:
    """Writes and returns the export's groups: group_id, scope, is_scope_root, description, features."""
    shards = [data / file.path for file in manifest.files if file.table == "groups"]
    groups = pd.concat([pq.read_table(shard).to_pandas() for shard in shards])[list(GROUP_COLUMNS)]
    groups.to_parquet(path, index=False)
    return groups


def example_input(data: Path, manifest: ExportManifest, groups: pd.DataFrame) -> pd.DataFrame:
    """Returns one row as the served model takes it: a product of the export for a group of its scope."""
    shards = [data / file.path for file in manifest.files if file.table == "products"]
    products = pq.read_table(shards[0]).to_pandas()
    product = products[products.scope.isin(groups.scope)].iloc[0]
    group = groups[groups.scope == product.scope].sort_values("is_scope_root").iloc[0]
    row = (base64.b64encode(product.cutout_png).decode(), str(product.title), str(group.group_id))
    return pd.DataFrame([row], columns=list(serving_model.INPUT_COLUMNS))


def log_model(artifacts: dict[str, Path], example: pd.DataFrame, origin: dict[str, Any]) -> Any:
    """Logs the model to the active run, with code, signature, example and origin; returns what MLflow says of it."""
    params = [
        ParamSpec("num_inference_steps", DataType.long, serving_model.DEFAULT_PARAMS["num_inference_steps"]),
        ParamSpec("guidance_scale", DataType.double, serving_model.DEFAULT_PARAMS["guidance_scale"]),
        ParamSpec("seed", DataType.long, serving_model.DEFAULT_PARAMS["seed"]),
    ]
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, name) for name in serving_model.INPUT_COLUMNS]),
        outputs=Schema([ColSpec(DataType.string, "image_png")]),
        params=ParamSchema(params),
    )
    return mlflow.pyfunc.log_model(
        name="group_ad",
        python_model=str(Path(serving_model.__file__)),
        artifacts={name: str(path) for name, path in artifacts.items()},
        code_paths=[str(Path(osmf_models.__file__).parent)],
        signature=signature,
        input_example=example,
        metadata=origin,
        pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
    )


def _experiment_id(client: MlflowClient, tracking_uri: str) -> str:
    """Returns the project's experiment; a new one in an SQLite store keeps its files beside the database."""
    experiment = client.get_experiment_by_name(_EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None
    if tracking_uri.startswith(_SQLITE):
        location = (Path(tracking_uri.removeprefix(_SQLITE)).absolute().parent / "mlartifacts").as_uri()
    return str(client.create_experiment(_EXPERIMENT, artifact_location=location))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of the training export")
    parser.add_argument("--model", required=True, type=Path, help="output of a training stage")
    parser.add_argument("--name", required=True, help="name in the registry")
    parser.add_argument("--tracking-uri", required=True, help="MLflow store, e.g. sqlite:////abs/path/mlflow.db")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--evaluation", type=Path, metavar="DIR", help="output of stage evaluate that judged the model")
    parser.add_argument("--lake", metavar="ROOT", help="folder or URI of the Delta tables behind the export")
    parser.add_argument("--mlflow-run-id", help="run to log to; default: MLFLOW_RUN_ID, else a new run")
    return parser


if __name__ == "__main__":
    run_stage(main)
