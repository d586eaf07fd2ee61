"""Publishing: what readers see, and when a version is new."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from osmf_pipelines.spark.content_hash import content_hashes
from osmf_pipelines.spark.lake import Lake
from osmf_pipelines.tables import TABLES

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)
Row = tuple[date, str]


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    return Lake(spark, str(tmp_path / "lake"), tmp_path / "locks")


def _users(spark: SparkSession, rows: list[Row]) -> DataFrame:
    full = [(day, "shoe", "age=1", user) for day, user in rows]
    return spark.createDataFrame(full, TABLES["cell_users"].ddl)


def _publish(lake: Lake, rows: list[Row], days: tuple[date, ...]) -> tuple[int, tuple[str, ...]]:
    candidate = lake.stage("cell_users", _users(lake.spark, rows), run_id="run", days=days)
    publication = lake.publish(candidate, run_id="run", input_versions={"silver_exposures": 4})
    lake.discard(candidate)
    return publication.version, publication.changed_days


def _read(lake: Lake) -> set[tuple[str, str]]:
    return {(str(row["event_date"]), row["user_id"]) for row in lake.read("cell_users").collect()}


def test_only_days_that_changed_are_replaced(lake: Lake) -> None:
    both = (MONDAY, TUESDAY)
    assert _publish(lake, [(MONDAY, "a"), (TUESDAY, "b")], both) == (0, ("2026-03-02", "2026-03-03"))
    assert _publish(lake, [(TUESDAY, "b"), (MONDAY, "a")], both) == (0, ())
    assert _publish(lake, [(MONDAY, "a"), (TUESDAY, "c")], both) == (1, ("2026-03-03",))
    assert _publish(lake, [], (MONDAY,)) == (2, ("2026-03-02",))
    assert _read(lake) == {("2026-03-03", "c")}


def test_commit_tells_its_run_and_inputs(lake: Lake) -> None:
    _publish(lake, [(MONDAY, "a")], (MONDAY,))
    commit = DeltaTable.forPath(lake.spark, lake.path("cell_users")).history(1).collect()[0]
    assert json.loads(commit["userMetadata"]) == {"run_id": "run", "input_versions": {"silver_exposures": 4}}


def test_a_candidate_is_not_published(lake: Lake) -> None:
    _publish(lake, [(MONDAY, "a")], (MONDAY,))
    lake.stage("cell_users", _users(lake.spark, [(MONDAY, "z")]), run_id="other", days=(MONDAY,))
    assert _read(lake) == {("2026-03-02", "a")}


def test_reading_what_was_never_published_says_what_to_do(lake: Lake) -> None:
    with pytest.raises(ValueError, match="materialise the asset cell_users first"):
        lake.read("cell_users")


def test_wrong_type_is_refused_by_name(lake: Lake) -> None:
    frame = _users(lake.spark, [(MONDAY, "a")]).selectExpr("event_date", "scope", "cell", "1 AS user_id")
    with pytest.raises(ValueError, match="user_id: int instead of string"):
        lake.stage("cell_users", frame, run_id="r", days=(MONDAY,))


def test_content_hash_sees_every_column_but_provenance(spark: SparkSession) -> None:
    table = TABLES["bronze_clicks"]

    def hash_of(click_id: str | None, impression_id: str | None, source_file: str) -> dict[str, str]:
        row = (MONDAY, click_id, impression_id, None, source_file, None)
        return content_hashes(table, spark.createDataFrame([row], table.ddl))

    base = hash_of("c", None, "one")
    assert hash_of("c", None, "two") == base
    assert hash_of(None, "c", "one") != base
    assert hash_of("c", "x", "one") != base
