"""A lake fed from the tiny drop folder, through Dagster jobs in this process or in one that a test kills."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import dagster as dg

from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.content_hash import content_hashes
from osmf_pipelines.spark.lake import Lake
from osmf_pipelines.tables import TABLES
from tests.tiny_drop import FIRST_DAY

DAILY = ("bronze_impressions", "bronze_clicks", "silver_exposures", "creative_stats", "cell_users")


def tiny_settings(home: Path, drop: Path) -> Settings:
    """Settings of a lake in `home` that reads `drop`."""
    return Settings(
        home=home,
        source_path=drop,
        first_date=FIRST_DAY,
        min_group_users=5,
        min_group_clicks=20,
        driver_memory="2g",
        spark_master="local[2]",
    )


def hashes(lake: Lake) -> dict[str, dict[str, str]]:
    """Content hash of every day of every daily table."""
    return {name: content_hashes(TABLES[name], lake.read(name)) for name in DAILY if lake.exists(name)}


def versions(lake: Lake) -> dict[str, int]:
    """Delta version of every table that exists."""
    return {name: lake.version(name) for name in TABLES if lake.exists(name)}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The message of the step that failed."""
    event = next(event for event in result.all_events if event.is_step_failure)
    return str(event.step_failure_data.error)


def days_in(lake: Lake, name: str) -> set[date]:
    """Days that readers see."""
    column = TABLES[name].partition_column
    return {row[0] for row in lake.read(name).select(column).distinct().collect()}
