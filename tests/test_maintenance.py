"""Upkeep makes files fewer; what readers see stays."""

import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from pyspark.sql import DataFrame, SparkSession

from osmf_pipelines.maintenance import build_maintenance
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.content_hash import content_hashes
from osmf_pipelines.spark.lake import Lake
from osmf_pipelines.spark.locks import LakeConflictError, TableLocks
from osmf_pipelines.spark.maintain import Upkeep, drop_candidates, maintain_table
from osmf_pipelines.tables import TABLES

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)
NAME = "cell_users"
DAY_SECONDS = 86_400


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), driver_memory="2g", spark_master="local[2]")


@pytest.fixture(scope="module")
def lake(spark: SparkSession, settings: Settings) -> Lake:
    """A lake whose one table has two versions; the second has one file for Monday and three for Tuesday."""
    lake = LakeResource(settings).lake
    candidate = lake.stage(NAME, _rows(spark, [(MONDAY, "a"), (TUESDAY, "b")]), run_id="run", days=(MONDAY, TUESDAY))
    lake.publish(candidate, run_id="run", input_versions={})
    lake.discard(candidate)
    rows = _rows(spark, [(TUESDAY, "c"), (TUESDAY, "d")]).repartitionByRange(2, "user_id")
    rows.write.format("delta").mode("append").save(lake.path(NAME))
    assert len(lake.read(NAME).inputFiles()) == 4
    return lake


@pytest.fixture(scope="module")
def upkeep(lake: Lake) -> Upkeep:
    """What one upkeep of that table did; before it, two files that are in no version lay in Monday's folder."""
    monday = Path(lake.path(NAME)) / "event_date=2026-03-02"
    _add_file(monday / "part-old.parquet", age_seconds=8 * DAY_SECONDS)
    _add_file(monday / "part-young.parquet", age_seconds=6 * DAY_SECONDS)
    return maintain_table(lake, NAME, vacuum_hours=168)


def _rows(spark: SparkSession, rows: list[tuple[date, str]]) -> DataFrame:
    return spark.createDataFrame([(day, "shoe", "age=1", user) for day, user in rows], TABLES[NAME].ddl)


def _users(lake: Lake, version: int) -> set[str]:
    return {row["user_id"] for row in lake.read(NAME, version=version).collect()}


def _add_file(path: Path, *, age_seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")
    written_at = time.time() - age_seconds
    os.utime(path, (written_at, written_at))


def test_small_files_become_one_and_the_content_stays(lake: Lake, upkeep: Upkeep) -> None:
    assert upkeep.num_files_compacted == 3
    assert len(lake.read(NAME).inputFiles()) == 2
    assert upkeep.version == lake.version(NAME) == 2
    before, after = (content_hashes(TABLES[NAME], lake.read(NAME, version=version)) for version in (1, 2))
    assert after == before


def test_versions_within_the_retention_stay_readable(lake: Lake, upkeep: Upkeep) -> None:
    assert [_users(lake, version) for version in range(3)] == [{"a", "b"}, {*"abcd"}, {*"abcd"}]


def test_only_files_that_are_old_and_in_no_version_are_removed(lake: Lake, upkeep: Upkeep) -> None:
    left = (Path(lake.path(NAME)) / "event_date=2026-03-02").glob("part-[oy]*")
    assert [path.name for path in left] == ["part-young.parquet"]
    assert (upkeep.num_files_removed, upkeep.num_bytes_removed) == (1, 5)


def test_upkeep_waits_for_the_tables_writer(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osmf_pipelines.spark.locks._WRITE_TIMEOUT_SECONDS", 0.2)
    with TableLocks(lake.locks.folder).write(NAME), pytest.raises(LakeConflictError, match=NAME):
        maintain_table(lake, NAME, vacuum_hours=168)


def test_candidates_that_a_dead_process_left_are_removed(lake: Lake) -> None:
    candidates = Path(lake.root) / "_candidates"
    _add_file(candidates / NAME / "dead" / "part-0.parquet", age_seconds=8 * DAY_SECONDS)
    _add_file(candidates / NAME / "alive" / "part-0.parquet", age_seconds=8 * DAY_SECONDS)
    _add_file(candidates / NAME / "alive" / "part-1.parquet", age_seconds=60)
    (candidates / NAME / "begun").mkdir()

    removed = drop_candidates(lake, before=datetime.now(UTC) - timedelta(days=7))

    assert removed == [f"{NAME}/dead"]
    assert sorted(path.name for path in (candidates / NAME).iterdir()) == ["alive", "begun"]


def test_job_makes_no_version_where_nothing_is_to_be_done(lake: Lake, upkeep: Upkeep, settings: Settings) -> None:
    _add_file(Path(lake.root) / "_candidates" / NAME / "dead" / "part-0.parquet", age_seconds=8 * DAY_SECONDS)
    job, schedule = build_maintenance(settings)
    defs = dg.Definitions(
        jobs=[job],
        schedules=[schedule],
        resources={"lake": LakeResource(settings)},
        executor=dg.in_process_executor,
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("maintain_lake").execute_in_process(instance=instance)
        log = [entry.message for entry in instance.all_logs(result.run_id)]

    assert lake.version(NAME) == upkeep.version
    (output,) = [event for event in result.all_events if event.is_successful_output]
    told = output.step_output_data.metadata
    assert told["candidates_removed"].value == [f"{NAME}/dead"]
    done = {"table": NAME, "version": 2, "num_files_compacted": 0, "num_files_removed": 0, "num_bytes_removed": 0}
    assert [record.data for record in told["tables"].records] == [done]
    progress = f"{NAME} (1 of 1): 0 files compacted, 0 removed (0 bytes), now version 2"
    assert progress in "\n".join(log)


def test_job_takes_the_spark_pool_once_a_week_when_switched_on(settings: Settings) -> None:
    job, schedule = build_maintenance(settings)
    assert [node.definition.pool for node in job.nodes] == ["spark"]
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * 0", "UTC")
