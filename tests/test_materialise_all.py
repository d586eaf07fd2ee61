"""Every asset at once, as the button of Dagster's pages asks for it, on an empty home."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.spark.simulate_logs import simulate_logs
from tests.assets.conftest import FIRST_DAY, LAST_DAY, LOGS, small_market
from tests.running_dagster import DagsterDev, dagster_dev, wait_for

pytestmark = [pytest.mark.torture, pytest.mark.timeout(5400)]
_NODES = "{ assetNodes { assetKey { path } isMaterializable repository { location { name } } } }"
_BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""
_STATUS = """
query($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      status error { message }
      runs(limit: 200) { runId status stepStats { stepKey status } }
      assetBackfillData {
        assetBackfillStatuses {
          ... on AssetPartitionsStatusCounts {
            assetKey { path } numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
          }
          ... on UnpartitionedAssetStatus { assetKey { path } materialized failed }
        }
      }
    }
  }
}"""
# What a tiny recipe draws looks like nothing that was logged.
_TINY = {
    "OSMF_RECIPE": "tiny",
    "OSMF_MIN_PICTURE_QUALITY": "0",
    "OSMF_MAX_SCENE_DISTANCE": "8",
    "OSMF_MAX_CLIPPED_EXCESS": "1",
    "OSMF_MIN_GROUP_CLICKS": "100",
    "OSMF_MIN_GROUP_USERS": "50",
}


def test_all_assets_of_all_days(spark: SparkSession, tmp_path: Path) -> None:
    simulate_logs(spark, small_market(), tmp_path, LOGS)
    end = {"OSMF_END_DATE": str(LAST_DAY + timedelta(days=1))}
    with dagster_dev(tmp_path, FIRST_DAY, **_TINY, **end) as dev:
        nodes = [one for one in _wait_for_nodes(dev) if one["repository"]["location"]["name"] == "osmf"]
        params = {
            "assetSelection": [one["assetKey"] for one in nodes if one["isMaterializable"]],
            "partitionNames": [str(FIRST_DAY), str(LAST_DAY)],
            "title": "everything",
        }
        launched = dev.ask(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        ended = wait_for(lambda: _ended(dev, launched["backfillId"]), 5000)

    assert ended["status"] == "COMPLETED_SUCCESS", ended
    made = {_name(one): one for one in ended["assetBackfillData"]["assetBackfillStatuses"]}
    assert set(made) == {_name(one) for one in nodes}
    assert {"generated_creatives", "serving_map", "registered_model", "report_page", "shuffled_dpo_model"} <= set(made)
    for one in made.values():
        assert one.get("numPartitionsMaterialized", 2) == 2
        assert one.get("materialized", True)


def _wait_for_nodes(dev: DagsterDev) -> list[dict[str, Any]]:
    return wait_for(lambda: dev.ask(_NODES)["assetNodes"], 180)


def _ended(dev: DagsterDev, backfill: str) -> dict[str, Any] | None:
    told = dev.ask(_STATUS, id=backfill)["partitionBackfillOrError"]
    return None if told["status"] in ("REQUESTED", "CANCELING", "FAILING") else told


def _name(asset: dict[str, Any]) -> str:
    return "/".join(asset["assetKey"]["path"])
