"""Late clicks re-open exactly the days that they touch, and day by day gives what all at once gives."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.spark.lake import Lake
from tests.lake.conftest import hashes, tiny_settings, versions
from tests.lake.jobs import run_events, run_job
from tests.tiny_drop import make_drop

pytestmark = pytest.mark.slow
NUM_DAYS = 3


def _reopened(lake: Lake, name: str) -> list[list[str]]:
    """Days that each commit re-opened, oldest commit first."""
    commits = DeltaTable.forPath(lake.spark, lake.path(name)).history().orderBy("version").collect()
    return [json.loads(row["userMetadata"])["reopened_days"] for row in commits]


def test_day_by_day_in_any_order_equals_all_at_once(spark: SparkSession, tmp_path: Path) -> None:
    # Few enough late clicks that a day is published before the day before it: more than 5% orphans are refused.
    drop = make_drop(tmp_path / "drop", num_days=NUM_DAYS, delays_seconds=(5, 60), days_late=(0,) * 58 + (1, 2))
    days = [drop.day(number) for number in range(NUM_DAYS)]
    # The clicks that touch an earlier day, by the day on which they are delivered.
    touched: dict[date, set[str]] = {
        day: {f"{drop.day(int(str(row['imp']).split('-')[1])).isoformat()}" for row in drop.clicks[day]} - {str(day)}
        for day in days
    }
    assert all(touched[day] for day in days[1:])
    drop.write()

    settings = {name: tiny_settings(tmp_path / name, drop.folder) for name in ("at_once", "in_order", "backwards")}
    lakes = {name: LakeResource(of_lake).lake for name, of_lake in settings.items()}
    assert run_job(settings["at_once"], "ingest_days", days[0], days[-1]).success
    for name, order in (("in_order", days), ("backwards", days[::-1])):
        assert run_job(settings[name], "ingest_days", order[0]).success
        for day in order[1:]:
            assert run_events(settings[name], day)

    expected = hashes(lakes["at_once"])
    assert hashes(lakes["in_order"]) == expected
    assert hashes(lakes["backwards"]) == expected
    for name in ("silver_exposures", "creative_stats"):
        assert _reopened(lakes["in_order"], name) == [sorted(touched[day]) for day in days]
        assert _reopened(lakes["backwards"], name) == [[]] * NUM_DAYS

    before = versions(lakes["in_order"])
    assert run_events(settings["in_order"], days[1])
    assert versions(lakes["in_order"]) == before
