"""The job `generate` on a day's tables: the champion draws in its own process, and an ad server's file comes out."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from osmf_models.evaluation.evaluation_record import RECORDS_NAME, EvaluationRecord, JudgedCase, write_records
from osmf_models.file_hashes import folder_digest
from osmf_models.records import ExportManifest
from osmf_pipelines.definitions import build_defs
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.serving.serving_map import ServingMap
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

pytestmark = pytest.mark.slow
DAY = date(2026, 3, 7)
CELLS = {"gender=female|size=s": "shoe:young", "gender=male|size=s": "shoe:men_35_up"}


def _publish(resource: LakeResource, name: str, rows: list[dict[str, Any]]) -> None:
    lake = resource.lake
    frame = lake.spark.createDataFrame(rows, TABLES[name].ddl)
    candidate = lake.stage(name, frame, run_id="test", days=(DAY,))
    lake.publish(candidate, run_id="test", input_versions={})
    lake.discard(candidate)


def _register(settings: Settings, trained: Path) -> MlflowClient:
    """Registers version 1, whose pictures were judged as drawn in two steps."""
    package = settings.home / "package"
    shutil.copytree(trained / "model", package / "artifacts" / "model")
    (package / "MLmodel").write_text("flavors: {}\nmetadata:\n  config: {dpo: {pair_groups: own}}\n")
    artifact = folder_digest(package / "artifacts" / "model", relative_to=package / "artifacts")
    case = JudgedCase("shoe", "shoe:young", "p", 0.1, 0.9, None, 1.0)
    sampling = {"num_inference_steps": 2, "guidance_scale": 1.0}
    write_records(
        package / "artifacts" / RECORDS_NAME,
        {"own": EvaluationRecord(artifact, "a" * 64, None, sampling, (case,), ())},
    )
    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    client.create_registered_model("shop")
    tags = {"artifact_sha256": artifact, "package_sha256": folder_digest(package)}
    client.create_model_version("shop", package.as_uri(), tags=tags)
    return client


def _run(settings: Settings, product_id: str) -> dg.ExecuteInProcessResult:
    asked = {"generated_creatives": {"config": {"product_ids": [product_id]}}}
    return (
        build_defs(settings)
        .resolve_job_def("generate")
        .execute_in_process(
            instance=dg.DagsterInstance.ephemeral(),
            raise_on_error=False,
            partition_key=DAY.isoformat(),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, "ops": asked},
        )
    )


def _write_tables(resource: LakeResource, export: Path) -> None:
    manifest, groups = ExportManifest.read(export), pd.read_parquet(export / "groups.parquet")
    exported = {"export_table": "groups", "num_rows": len(groups), "num_files": 1, "export_path": str(export)}
    _publish(resource, "training_export", [{"as_of_date": DAY, "data_hash": manifest.data_hash, **exported}])
    cells = [{"as_of_date": DAY, "scope": "shoe", "cell": cell, "group_id": group} for cell, group in CELLS.items()]
    _publish(resource, "user_groups", cells)
    told = groups[["group_id", "scope", "is_scope_root"]].to_dict("records")
    _publish(resource, "group_features", [{"as_of_date": DAY, **row} for row in told])


def test_the_champion_draws_and_the_ad_server_is_told(folders, settings: Settings, spark: SparkSession) -> None:
    # An untrained model draws nothing like the logged pictures.
    limits = {"max_scene_distance": 8.0, "max_clipped_excess": 1.0}
    shop = settings.model_copy(update={"model_name": "shop", "first_date": date(2026, 3, 1), **limits})
    shop.home.mkdir()
    resource = LakeResource(shop)
    _write_tables(resource, folders["export"])
    client = _register(shop, folders["pretrained"])
    products = pd.read_parquet(folders["export"] / "products.parquet")
    product = sorted(products.product_id[products.scope == "shoe"])[0]

    refused = _run(shop, product)
    (failure,) = [event for event in refused.all_events if event.is_step_failure]
    assert failure.step_key == "generated_creatives"
    assert "shop has no champion yet" in str(failure.step_failure_data.error)

    client.set_registered_model_alias("shop", "champion", "1")
    assert _run(shop, product).success
    rows = resource.lake.read("generated_creatives").collect()
    groups = pd.read_parquet(folders["export"] / "groups.parquet")
    assert {row["group_id"] for row in rows} == set(groups.group_id[groups.scope == "shoe"])
    assert {(row["model_version"], row["num_inference_steps"], row["product_id"]) for row in rows} == {(1, 2, product)}
    path_of = {row["group_id"]: row["picture_path"] for row in rows}
    serving = ServingMap.read(shop.home / "serving" / f"{DAY}.jsonl")
    for attributes, group in (
        ({"gender": "female", "size": "s"}, "shoe:young"),
        ({"gender": "male", "size": "s"}, "shoe:men_35_up"),
        ({"gender": "male", "size": "xxl"}, "shoe:root"),
    ):
        shown = serving.picture_for(attributes, scope="shoe", product_id=product)
        assert shown is not None
        assert (shown.group_id, shown.path, shown.model_version) == (group, path_of[group], 1)

    # As if it had been killed before the last picture: the same comes of it, so that there is no new version.
    Path(path_of["shoe:young"]).unlink()
    (shop.home / "generations" / str(DAY) / "run.json").unlink()
    assert _run(shop, product).success
    assert [resource.lake.version(name) for name in ("generated_creatives", "serving_map")] == [0, 0]
    assert Path(path_of["shoe:young"]).is_file()
