"""Stage `register`: puts a trained model into the MLflow registry, as code over safetensors, never pickle.

    python -m osmf_models.stages.register --data EXPORT --model DIR --name osmf-group-ad --tracking-uri URI
        --output DIR [--mlflow-run-id ID]

The first version of a name becomes its champion, later ones challengers. Writes OUTPUT/groups.parquet (the features of
the export's groups, which the model needs to draw) and OUTPUT/run.json last. How a served model answers belongs in
`serving_model.py`, promotion elsewhere.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"

import mlflow  # after the two settings, which it reads
import pandas as pd
import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

import osmf_models
from osmf_models.records import GROUP_COLUMNS, RUN_RECORD_NAME, ExportManifest
from osmf_models.stages import serving_model
from osmf_models.stages.finish import finish_stage
from osmf_models.stages.run_record import artifacts_digest, run_stage
from osmf_models.training.manifest import file_sha256

CHAMPION, CHALLENGER = "champion", "challenger"
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
    with mlflow.start_run(run_id=run_id, experiment_id=experiment_id, run_name=None if run_id else "register") as run:
        info = log_model(options.model / "model", groups_path, example_input(options.data, manifest, groups))
    tags = {"artifact_sha256": trained["artifact_sha256"], "as_of_date": manifest.as_of_date}
    found = mlflow.register_model(info.model_uri, options.name, tags={**tags, "data_hash": manifest.data_hash})
    alias = set_first_free_alias(client, options.name, found.version)
    record = {
        "stage": "register",
        "as_of_date": manifest.as_of_date,
        "data_hash": manifest.data_hash,
        "model_name": options.name,
        "model_version": int(found.version),
        "alias": alias,
        "mlflow_run_id": run.info.run_id,
        "artifact_sha256": trained["artifact_sha256"],
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
    files = [one for one in sorted((folder / "model").rglob("*")) if one.is_file()]
    found = artifacts_digest({one.relative_to(folder).as_posix(): file_sha256(one) for one in files})
    if found != record["artifact_sha256"]:
        raise ValueError(f"{folder / 'model'} is not what its {RUN_RECORD_NAME} says (sha256 differs): train again.")
    return record


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


def log_model(pipeline: Path, groups: Path, example: pd.DataFrame) -> Any:
    """Logs the pipeline to the active run, with its code, signature and example, and returns what MLflow says of it."""
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
        artifacts={"pipeline": str(pipeline), "groups": str(groups)},
        code_paths=[str(Path(osmf_models.__file__).parent)],
        signature=signature,
        input_example=example,
        pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
    )


def set_first_free_alias(client: MlflowClient, name: str, model_version: str) -> str:
    """Makes a version the champion where there is none yet, else the challenger, and returns the alias."""
    try:
        client.get_model_version_by_alias(name, CHAMPION)
        alias = CHALLENGER
    except MlflowException as error:
        if "not found" not in str(error).lower():
            raise
        alias = CHAMPION
    client.set_registered_model_alias(name, alias, model_version)
    return alias


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
    parser.add_argument("--mlflow-run-id", help="run to log to; default: MLFLOW_RUN_ID, else a new run")
    return parser


if __name__ == "__main__":
    run_stage(main)
