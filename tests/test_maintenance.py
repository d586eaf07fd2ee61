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
from osmf_pipelines.spark.maintain import drop_candidates, maintain_table
from osmf_pipelines.tables import TABLES

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)
NAME = "cell_users"
DAY_SECONDS = 86_400


@pytest.fixture
def lake(spark: SparkSession, settings: Settings) -> Lake:
    """A lake whose one table has two versions; the second has three small files for one day."""
    lake = LakeResource(settings).lake
    _publish(lake, [(MONDAY, "a"), (TUESDAY, "b")])
    rows = _rows(spark, [(TUESDAY, "c"), (TUESDAY, "d")]).repartitionByRange(2, "user_id")
    rows.write.format("delta").mode("append").save(lake.path(NAME))
    return lake


def _rows(spark: SparkSession, rows: list[tuple[date, str]]) -> DataFrame:
    return spark.createDataFrame([(day, "shoe", "age=1", user) for day, user in rows], TABLES[NAME].ddl)


def _publish(lake: Lake, rows: list[tuple[date, str]]) -> None:
    candidate = lake.stage(NAME, _rows(lake.spark, rows), run_id="run", days=(MONDAY, TUESDAY))
    lake.publish(candidate, run_id="run", input_versions={})
    lake.discard(candidate)


def _files(lake: Lake, version: int | None = None) -> int:
    return len(lake.read(NAME, version=version).inputFiles())


def _add_file(path: Path, *, age_seconds: float, content: bytes = b"12345") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    written_at = time.time() - age_seconds
    os.utime(path, (written_at, written_at))


def test_small_files_become_one_and_the_content_stays(lake: Lake) -> None:
    before = content_hashes(TABLES[NAME], lake.read(NAME))
    assert _files(lake) == 4  # one of Monday, three of Tuesday

    upkeep = maintain_table(lake, NAME, vacuum_hours=168)

    assert upkeep.num_files_compacted == 3
    assert _files(lake) == 2
    assert content_hashes(TABLES[NAME], lake.read(NAME)) == before
    assert upkeep.version == lake.version(NAME) == 2


def test_a_table_without_small_files_gets_no_new_version(lake: Lake) -> None:
    assert maintain_table(lake, NAME, vacuum_hours=168).version == 2
    again = maintain_table(lake, NAME, vacuum_hours=168)
    assert (again.version, again.num_files_compacted) == (2, 0)


def test_versions_within_the_retention_stay_readable(lake: Lake) -> None:
    maintain_table(lake, NAME, vacuum_hours=168)
    users = {version: {row["user_id"] for row in lake.read(NAME, version=version).collect()} for version in range(3)}
    assert users == {0: {"a", "b"}, 1: {"a", "b", "c", "d"}, 2: {"a", "b", "c", "d"}}


def test_only_files_that_are_old_and_nobodys_are_removed(lake: Lake) -> None:
    day = Path(lake.path(NAME)) / "event_date=2026-03-02"
    _add_file(day / "part-old.parquet", age_seconds=8 * DAY_SECONDS)
    _add_file(day / "part-young.parquet", age_seconds=6 * DAY_SECONDS)

    upkeep = maintain_table(lake, NAME, vacuum_hours=168)

    assert [path.name for path in day.glob("part-[oy]*")] == ["part-young.parquet"]
    assert (upkeep.num_files_removed, upkeep.num_bytes_removed) == (1, 5)
    assert {row["user_id"] for row in lake.read(NAME).collect()} == {"a", "b", "c", "d"}


def test_upkeep_waits_for_the_tables_writer(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osmf_pipelines.spark.locks._WRITE_TIMEOUT_SECONDS", 0.2)
    with TableLocks(lake.locks.folder).write(NAME), pytest.raises(LakeConflictError, match=NAME):
        maintain_table(lake, NAME, vacuum_hours=168)
    assert _files(lake) == 4


def test_candidates_that_a_dead_process_left_are_removed(lake: Lake) -> None:
    candidates = Path(lake.root) / "_candidates"
    _add_file(candidates / NAME / "dead" / "part-0.parquet", age_seconds=8 * DAY_SECONDS)
    _add_file(candidates / NAME / "alive" / "part-0.parquet", age_seconds=8 * DAY_SECONDS)
    _add_file(candidates / NAME / "alive" / "part-1.parquet", age_seconds=60)
    (candidates / NAME / "begun").mkdir()

    removed = drop_candidates(lake, before=datetime.now(UTC) - timedelta(days=7))

    assert removed == [f"{NAME}/dead"]
    assert sorted(path.name for path in (candidates / NAME).iterdir()) == ["alive", "begun"]


def test_job_tells_what_it_did(lake: Lake, settings: Settings) -> None:
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
        logs = [entry.user_message for entry in instance.all_logs(result.run_id)]

    (output,) = [event for event in result.all_events if event.is_successful_output]
    told = output.step_output_data.metadata
    assert told["num_files_compacted"].value == 3
    assert told["candidates_removed"].value == [f"{NAME}/dead"]
    assert [record.data["table"] for record in told["tables"].records] == [NAME]
    assert any(line.startswith(f"{NAME} (1 of 1): 3 files compacted, 0 removed") for line in logs)
    assert job.node_dict["maintain_tables"].definition.pool == "spark"
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.cron_schedule == "0 6 * * 0"
