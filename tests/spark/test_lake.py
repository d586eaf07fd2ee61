"""Publishing: what readers see, and when a version is new."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from osmf_pipelines.spark.content_hash import content_hashes
from osmf_pipelines.spark.lake import PHASES, Lake
from osmf_pipelines.spark.locks import LakeConflictError
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
    assert json.loads(commit["userMetadata"]) == {
        "run_id": "run",
        "input_versions": {"silver_exposures": 4},
        "reopened_days": [],
    }
    assert lake.input_version("cell_users", of="silver_exposures") == 4


def test_days_that_late_events_rewrote_are_told(lake: Lake) -> None:
    both = (MONDAY, TUESDAY)
    _publish(lake, [(MONDAY, "a"), (TUESDAY, "b")], both)
    candidate = lake.stage("cell_users", _users(lake.spark, [(MONDAY, "z"), (TUESDAY, "b")]), run_id="r", days=both)
    lake.publish(candidate, run_id="r", input_versions={}, reopened_days=both)
    # Tuesday was open to change and did not.
    assert lake.days_reopened_since("cell_users", 0) == (MONDAY,)
    assert lake.days_reopened_since("cell_users", 1) == ()


def test_where_the_log_no_longer_tells_every_day_may_be_another(lake: Lake) -> None:
    """Delta keeps commits for 30 days: a checkpoint stands in for those before."""
    both = (MONDAY, TUESDAY)
    for user in "abc":
        _publish(lake, [(MONDAY, user), (TUESDAY, user)], both)
    log = Path(lake.path("cell_users")) / "_delta_log"
    lake.spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(
        lake.spark._jsparkSession, str(log.parent)
    ).checkpoint()
    for version in (0, 1):
        (log / f"{version:020d}.json").unlink()
    assert lake.days_reopened_since("cell_users", 1) == ()
    assert lake.days_reopened_since("cell_users", 0) == both
    assert lake.input_version("cell_users", of="silver_exposures") == 4
    assert lake.input_version("cell_users", of="users") == -1


def test_pinned_tables_do_not_move(lake: Lake) -> None:
    _publish(lake, [(MONDAY, "a")], (MONDAY,))
    pinned = lake.pin(["cell_users"])
    _publish(lake, [(MONDAY, "b")], (MONDAY,))
    assert [row["user_id"] for row in pinned.read("cell_users", (MONDAY,)).collect()] == ["a"]
    assert _read(lake) == {("2026-03-02", "b")}


def test_a_broken_constraint_is_named_and_the_row_is_not(lake: Lake) -> None:
    table = TABLES["creative_stats"]
    good = (MONDAY, "shoe", "age=1", 0, "p1", "c1", "feed", 1, 5, 2, None)
    bad = (MONDAY, "shoe", "secret-cell", 0, "p1", "c2", "feed", 1, 5, 6, None)
    days = (MONDAY,)
    first = lake.stage("creative_stats", lake.spark.createDataFrame([good], table.ddl), run_id="r", days=days)
    lake.publish(first, run_id="r", input_versions={})
    second = lake.stage("creative_stats", lake.spark.createDataFrame([good, bad], table.ddl), run_id="s", days=days)
    with pytest.raises(ValueError, match="breaks the constraint counts") as told:
        lake.publish(second, run_id="s", input_versions={})
    assert "secret-cell" not in str(told.value)
    assert lake.version("creative_stats") == 0


def test_a_day_is_materialised_by_one_at_a_time(lake: Lake) -> None:
    with lake.claim("cell_users", [MONDAY], run_id="first"):
        with pytest.raises(LakeConflictError, match=r"cell_users \(2026-03-02\) is being materialised by run first"):
            lake.claim("cell_users", [MONDAY, TUESDAY], run_id="second").__enter__()
        with lake.claim("cell_users", [TUESDAY], run_id="third"):
            pass
    with lake.claim("cell_users", [MONDAY], run_id="later"):
        pass


def test_a_commit_that_is_not_there_is_a_conflict(lake: Lake) -> None:
    """Another writer takes this one's place between the write and the look at it."""
    _publish(lake, [(MONDAY, "a")], (MONDAY,))

    def overtake(phase: str, table: str) -> None:
        if phase == "verify":
            lake.on_phase = lambda *_: None
            _users(lake.spark, [(MONDAY, "thief")]).write.format("delta").mode("overwrite").save(lake.path(table))

    lake.on_phase = overtake
    with pytest.raises(LakeConflictError, match="is not this run's commit"):
        _publish(lake, [(MONDAY, "b")], (MONDAY,))


def test_phases_are_told_in_order(lake: Lake) -> None:
    told: list[str] = []
    lake.on_phase = lambda phase, table: told.append(phase)
    with lake.claim("cell_users", [MONDAY], run_id="run"):
        _publish(lake, [(MONDAY, "a")], (MONDAY,))
    assert told == [phase for phase in PHASES if phase != "audit"]


def test_a_table_of_another_version_is_refused(lake: Lake) -> None:
    lake.spark.sql("SELECT DATE'2026-03-02' AS event_date, 'x' AS old").write.format("delta").save(
        lake.path("cell_users")
    )
    with pytest.raises(ValueError, match="was written by another version of OSMF"):
        _publish(lake, [(MONDAY, "a")], (MONDAY,))


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
