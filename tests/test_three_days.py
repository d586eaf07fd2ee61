"""Three days that end yesterday, under Dagster's daemon: one by the schedule, one found missing, one bad and mended."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.running_dagster import REPOSITORY, DagsterDev, dagster_dev, tags_of, wait_for
from tests.small_shop import NUM_IMPRESSIONS, write_small_shop

pytestmark = [pytest.mark.torture, pytest.mark.timeout(2400)]
_START_SENSOR = """
mutation($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on PythonError { message } }
}"""
_SENSOR_TICKS = """
query($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) {
    ... on Sensor { sensorState { ticks { timestamp status runIds skipReason error { message } } } }
  }
}"""
_BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""
_SENSOR = {**REPOSITORY, "sensorName": "missing_days"}


def test_a_day_is_scheduled_one_found_and_one_refused_and_mended(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    oldest, bad, yesterday = (today - timedelta(days=number) for number in (3, 2, 1))
    drop = tmp_path / "drop"
    # Today's too: midnight may pass.
    write_small_shop(drop, [oldest, bad, yesterday, today])
    held_back = tmp_path / "held-back"
    shutil.move(drop / "days" / str(bad), held_back)
    with dagster_dev(tmp_path, oldest) as dev:
        dev.start_schedule()
        wait_for(lambda: dev.refreshes(), 180)
        started = dev.ask(_START_SENSOR, selector=_SENSOR)["startSensor"]
        assert started["__typename"] == "Sensor", started
        assert _ended(dev, yesterday, 600)["status"] == "SUCCESS"
        found = _ended(dev, oldest, 900)
        assert (found["status"], tags_of(found)["dagster/sensor_name"]) == ("SUCCESS", "missing_days")
        assert len(dev.refreshes()) == 2

        _deliver_bad(held_back, drop / "days" / str(bad))
        refused = _ended(dev, bad, 900)
        assert refused["status"] == "FAILURE"
        assert "bronze_impressions" not in _rows(refused)
        (alert,) = wait_for(lambda: _alerts(dev), 120)
        assert (alert["partition"], alert["run_id"]) == (str(bad), refused["runId"])
        assert "quarantine" in alert["message"]
        # The sensor says so, and does not ask for the same delivery again.
        told = wait_for(lambda: [one for one in _skips(dev) if str(bad) in one], 900)
        assert "mend and deliver them again" in told[0]

        num_before = _num_without_missing_days(dev)
        shutil.rmtree(drop / "days" / str(bad))
        shutil.copytree(held_back, drop / "days" / str(bad))
        selector = {"partitionSetName": "refresh_pairs_partition_set", "repositorySelector": REPOSITORY}
        params = {"selector": selector, "partitionNames": [str(bad)]}
        launched = dev.ask(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        wait_for(lambda: _runs(dev, bad, "SUCCESS"), 900)
        mended = _runs(dev, bad, "SUCCESS")[0]
        assert _rows(mended)["bronze_impressions"] == NUM_IMPRESSIONS
        assert len(_runs(dev, yesterday)) == len(_runs(dev, oldest)) == 1
        wait_for(lambda: _num_without_missing_days(dev) > num_before, 900)


def _deliver_bad(good: Path, folder: Path) -> None:
    """The day as it is, save that three of four impressions say that another day showed them."""
    shutil.copytree(good, folder)
    (folder / "_SUCCESS").unlink()
    shown = pd.read_csv(folder / "shown.csv", dtype=str)
    shown.loc[shown.index % 4 != 0, "at"] = "2001-01-01 10:00:00"
    shown.to_csv(folder / "shown.csv", index=False)
    (folder / "_SUCCESS").touch()


def _runs(dev: DagsterDev, day: date, status: str | None = None) -> list[dict[str, Any]]:
    runs = [run for run in dev.refreshes() if tags_of(run)["dagster/partition"] == str(day)]
    return [run for run in runs if status in (None, run["status"])]


def _ended(dev: DagsterDev, day: date, seconds: float) -> dict[str, Any]:
    """The one run of a day, once it has ended."""
    wait_for(lambda: [run for run in _runs(dev, day) if run["status"] in ("SUCCESS", "FAILURE")], seconds)
    (run,) = _runs(dev, day)
    return run


def _rows(run: dict[str, Any]) -> dict[str, int]:
    """Rows of each asset that the run materialised."""
    return {
        made["assetKey"]["path"][-1]: entry["intValue"]
        for made in run["assetMaterializations"]
        for entry in made["metadataEntries"]
        if entry["label"] == "dagster/row_count"
    }


def _skips(dev: DagsterDev) -> list[str]:
    told = dev.ask(_SENSOR_TICKS, selector=_SENSOR)["sensorOrError"]["sensorState"]["ticks"]
    assert [tick["error"] for tick in told if tick["error"]] == []
    return [tick["skipReason"] for tick in told if tick["skipReason"]]


def _num_without_missing_days(dev: DagsterDev) -> int:
    """How often the sensor has said that no day is missing."""
    return sum("none of" in one for one in _skips(dev))


def _alerts(dev: DagsterDev) -> list[dict[str, Any]]:
    path = dev.home / "alerts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
