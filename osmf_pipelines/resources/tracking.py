"""MLflow runs as the orchestrator opens and closes them; curves are logged by the stage itself."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from osmf_models.records import ExportManifest
    from osmf_pipelines.settings import Settings

EXPERIMENT = "osmf"
_MAX_DIGEST_LENGTH = 36  # MLflow's


class TrackedRun:
    """One MLflow run around a stage: finished when the block ends well, failed otherwise.

    Args:
        settings: name the store.
        run_name: shown in `mlflow ui`.
    """

    def __init__(self, settings: Settings, run_name: str):
        self.settings = settings
        self.run_name = run_name
        self.run_id = ""

    def __enter__(self) -> TrackedRun:
        self.client = tracking_client(self.settings)
        experiment_id = _experiment_id(self.client, self.settings.home / "mlartifacts")
        run = self.client.create_run(experiment_id, run_name=self.run_name)
        self.run_id = run.info.run_id
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.client.set_terminated(self.run_id, "FINISHED" if error is None else "FAILED")

    def log_export(self, folder: Path, manifest: ExportManifest) -> None:
        """Names a training export as the run's input, and the tables that it was made of, in the versions read."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        of_day = json.dumps({"as_of_date": manifest.as_of_date, "data_hash": manifest.data_hash})
        source = json.dumps({"uri": str(folder)})
        digest = manifest.data_hash[:_MAX_DIGEST_LENGTH]
        datasets = [Dataset("training_export", digest, "local", source, profile=of_day)]
        for name, version in sorted(manifest.table_versions.items()):
            path = f"{self.settings.lake_root.rstrip('/')}/{name}"
            source = json.dumps({"path": path, "delta_table_version": version})
            datasets.append(Dataset(name, f"version-{version}", "delta_table", source))
        tag = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [tag]) for dataset in datasets])

    def log_record(self, record: dict[str, Any]) -> None:
        """Logs what the stage's `run.json` says: metrics, where the data came from, versions."""
        for name, value in record.get("metrics", {}).items():
            self.client.log_metric(self.run_id, name, value)
        for name in ("stage", "recipe", "data_hash"):
            if name in record:
                self.client.log_param(self.run_id, name, record[name])
        self.client.log_dict(self.run_id, record, "run.json")

    def log_picture(self, path: Path) -> None:
        """Keeps a picture with the run."""
        self.client.log_artifact(self.run_id, str(path))

    def log_samples(self, folder: Path) -> None:
        """Keeps folder/step-STEP/SCOPE/GROUP.png as pictures named SCOPE/GROUP, through whose steps a slider goes."""
        from PIL import Image

        for path in sorted(folder.glob("step-*/*/*.png")):
            step = int(path.parent.parent.name.removeprefix("step-"))
            with Image.open(path) as picture:
                self.client.log_image(self.run_id, picture, key=f"{path.parent.name}/{path.stem}", step=step)


def attach(settings: Settings, run_id: str, path: Path) -> None:
    """Keeps a file with a run that has ended, in place of one of its name.

    Raises:
        mlflow.exceptions.MlflowException: when the store cannot be reached or has no such run.
    """
    tracking_client(settings).log_artifact(run_id, str(path))


def log_metrics(settings: Settings, run_id: str, metrics: Mapping[str, float]) -> None:
    """Adds metrics to a run that has ended.

    Raises:
        mlflow.exceptions.MlflowException: when the store cannot be reached or has no such run.
    """
    client = tracking_client(settings)
    for name, value in metrics.items():
        client.log_metric(run_id, name, value)


def run_link(settings: Settings, run_id: str) -> str:
    """Returns the address of a run's page where the store is a server; else its id, which `mlflow ui` finds."""
    if not settings.tracking_uri.startswith(("http://", "https://")):
        return run_id
    experiment_id = tracking_client(settings).get_run(run_id).info.experiment_id
    return f"{settings.tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def tracking_client(settings: Settings) -> MlflowClient:
    """Returns a client of the store that the settings name."""
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    settings.home.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def _experiment_id(client: MlflowClient, artifacts: Path) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts.absolute().as_uri()))
