"""The gate fails closed."""

from __future__ import annotations

import math
from datetime import date

import great_expectations.expectations as gxe
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.quality import gate
from osmf_pipelines.quality.expectations import unique
from osmf_pipelines.quality.gate import CheckResult, check_table
from osmf_pipelines.quality.suites import SUITES
from osmf_pipelines.tables import TABLES

SECRET = "secret-user"
FACTS = {"num_impressions": 10, "num_exposures": 10, "num_clicks": 2, "num_clicked_exposures": 2}


def _stats(spark: SparkSession, num_impressions: int = 10, num_clicks: int = 2) -> DataFrame:
    row = (date(2026, 3, 2), "shoe", "age=1", 0, "p", "c", "feed", 1, num_impressions, num_clicks, None)
    return spark.createDataFrame([row], TABLES["creative_stats"].ddl)


def _blocking(results: list[CheckResult]) -> list[str]:
    return [result.expectation.name for result in results if result.is_blocking]


def test_every_table_has_a_blocking_expectation_of_a_kind_that_exists() -> None:
    assert SUITES.keys() == TABLES.keys()
    for name, suite in SUITES.items():
        assert any(e.severity == "critical" for e in suite), name
        assert len({e.name for e in suite}) == len(suite), name
        assert all(hasattr(gxe, e.type) for e in suite), name


def test_good_rows_pass(spark: SparkSession) -> None:
    assert _blocking(check_table("creative_stats", _stats(spark), [FACTS])) == []


def test_more_clicks_than_impressions_block_and_say_so(spark: SparkSession) -> None:
    results = check_table("creative_stats", _stats(spark, num_impressions=10, num_clicks=11), [FACTS])
    assert _blocking(results) == ["num_clicks_at_most_num_impressions"]
    detail = next(result.detail for result in results if result.is_blocking)
    assert detail["unexpected_count"] == 1


def test_one_bad_day_among_good_ones_blocks(spark: SparkSession) -> None:
    results = check_table("creative_stats", _stats(spark), [FACTS, {**FACTS, "num_exposures": 11}])
    assert _blocking(results) == ["impressions_conserved"]


def test_a_day_without_evidence_blocks_though_another_has_some(spark: SparkSession) -> None:
    results = check_table("creative_stats", _stats(spark), [FACTS, dict.fromkeys(FACTS, 0)])
    assert _blocking(results) == ["every_day_has_evidence"]


@pytest.mark.parametrize("facts", [[], [{**FACTS, "num_exposures": None}], [{"num_impressions": 10}]])
def test_a_fact_that_was_not_counted_blocks(spark: SparkSession, facts: list[dict[str, float]]) -> None:
    assert "impressions_conserved" in _blocking(check_table("creative_stats", _stats(spark), facts))


@pytest.mark.parametrize(
    ("fact", "value", "name"),
    [
        ("num_not_finite", 1, "metrics_are_finite"),
        ("num_steps_missing", 3, "training_finished"),
        ("num_artifacts_changed", 1, "artifacts_are_intact"),
        ("scene_distance_excess", 0.1, "pictures_are_sound"),
        ("scene_distance_excess", math.inf, "pictures_are_sound"),
    ],
)
def test_a_model_that_is_not_sound_blocks(spark: SparkSession, fact: str, value: float, name: str) -> None:
    """Controls may draw what they like."""
    row = (date(2026, 3, 2), "train/loss", 0.5, "models/1", "a1", "run")
    sound = {"num_not_finite": 0, "num_steps_missing": 0, "num_artifacts_changed": 0, "scene_distance_excess": -1.0}
    for model in ("pretrained_model", "group_dpo_model", "global_dpo_model", "chosen_only_model", "shuffled_dpo_model"):
        metrics = spark.createDataFrame([row], TABLES[model].ddl)
        assert _blocking(check_table(model, metrics, [sound])) == []
        is_free = name == "pictures_are_sound" and model not in ("pretrained_model", "group_dpo_model")
        assert _blocking(check_table(model, metrics, [{**sound, fact: value}])) == ([] if is_free else [name])


def test_a_missing_column_blocks(spark: SparkSession) -> None:
    results = check_table("creative_stats", _stats(spark).drop("num_clicks"), [FACTS])
    assert "num_clicks_at_most_num_impressions" in _blocking(results)
    assert any("num_clicks" in result.detail.get("error", "") for result in results)


def test_a_check_that_gives_no_result_blocks(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_run", lambda *_: {})
    results = check_table("creative_stats", _stats(spark), [FACTS])
    assert _blocking(results) == [e.name for e in SUITES["creative_stats"] if e.severity == "critical"]
    assert {result.detail["error"] for result in results} == {"the expectation gave no result"}


def test_a_failure_shows_its_rows(spark: SparkSession) -> None:
    rows = _stats(spark).union(_stats(spark, num_impressions=10, num_clicks=11))
    failed = _named("num_clicks_at_most_num_impressions", check_table("creative_stats", rows, [FACTS]))
    assert [(row["creative_id"], row["num_clicks"]) for row in failed.failing_rows] == [("c", "11")]
    assert failed.detail == {"element_count": 2, "unexpected_count": 1, "unexpected_percent": 50.0}


def test_what_passes_shows_nothing(spark: SparkSession) -> None:
    results = check_table("creative_stats", _stats(spark), [FACTS])
    assert {(result.passed, len(result.detail), result.failing_rows) for result in results} == {(True, 0, ())}


def test_facts_that_fail_are_told_with_their_days(spark: SparkSession) -> None:
    days = [
        {"source_date": f"2026-03-0{day}", "num_read": 10, "num_accounted": 10, "quarantined_share": share}
        | {"quarantine_excess": max(share - 0.05, 0.0), "num_impressions_read": 20}
        for day, share in ((2, 0.0), (3, 0.3), (4, 0.0), (5, 0.55))
    ]
    clicks = spark.createDataFrame([], TABLES["bronze_clicks"].ddl)
    results = check_table("bronze_clicks", clicks, days)
    told = {result.expectation.name: result.detail for result in results if not result.passed}
    assert told["quarantine_is_small"] == {
        "source_date": ["2026-03-03", "2026-03-05"],
        "quarantined_share": [0.3, 0.55],
    }
    assert told["quarantine_is_bearable"] == {
        "source_date": ["2026-03-03", "2026-03-05"],
        "quarantine_excess": [0.25, 0.5],
    }
    (lost,) = [r for r in check_table("bronze_clicks", clicks, [{**days[0], "num_accounted": 9}]) if r.is_blocking]
    assert lost.detail == {"source_date": "2026-03-02", "num_read": 10, "num_accounted": 9}


def test_a_failure_without_rows_shows_how_many_there_were(spark: SparkSession) -> None:
    failed = _named("has_rows", check_table("creative_stats", _stats(spark).limit(0), [FACTS]))
    assert (failed.passed, failed.detail, failed.failing_rows) == (False, {"observed_value": 0}, ())


def test_restricted_tables_show_rows_without_personal_data(spark: SparkSession) -> None:
    """The same impression twice: its id is shown, whose it was is not."""
    results = check_table("bronze_impressions", _impressions(spark).unionAll(_impressions(spark)), [])
    failed = _named("one_row_per_grain", results)
    assert failed.is_blocking
    assert failed.detail == {"element_count": 2, "unexpected_count": 2, "unexpected_percent": 100.0}
    assert [row["impression_id"] for row in failed.failing_rows] == ["i1", "i1"]
    assert SECRET not in str(results)


@pytest.mark.parametrize(
    ("rows", "is_certain"),
    [
        ([("a", "b"), ("b", "a"), ("ab", ""), ("", "ab")], True),
        ([("a", "b"), ("b", "b"), ("a", "b")], False),
        # Rows that differ in where the null is: their hashes agree, so that Great Expectations is asked.
        ([(None, "a"), ("a", None)], False),
    ],
)
def test_only_what_is_certainly_unique_passes_without_great_expectations(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str | None, str | None]], is_certain: bool
) -> None:
    asked: list[str] = []
    run = gate._run
    monkeypatch.setattr(gate, "_run", lambda *given: asked.extend(e.name for e in given[1]) or run(*given))
    monkeypatch.setitem(gate.SUITES, "user_groups", (unique(["scope", "cell"], "for the test"),))
    frame = spark.createDataFrame(rows, "scope string, cell string")
    (result,) = check_table("user_groups", frame, [])
    assert result.passed == (len(set(rows)) == len(rows))
    assert (asked == []) == is_certain


def test_what_another_day_delivers_again_is_no_second_row_of_a_day(spark: SparkSession) -> None:
    results = check_table("bronze_impressions", _impressions(spark).unionAll(_impressions(spark, day=2)), [])
    assert _named("one_row_per_grain", results).passed


def test_an_error_of_a_restricted_table_quotes_no_value(spark: SparkSession) -> None:
    rows = _impressions(spark).withColumn("position", F.col("user_id").cast("int"))
    failed = _named("position_in_range", check_table("bronze_impressions", rows, []))
    assert failed.is_blocking
    assert "CAST_INVALID_INPUT" in failed.detail["error"]
    assert SECRET not in str(failed)


def test_an_error_of_another_table_is_told(spark: SparkSession) -> None:
    rows = _stats(spark).withColumn("num_clicks", F.col("scope").cast("bigint"))
    failed = _named("num_clicks_at_most_num_impressions", check_table("creative_stats", rows, [FACTS]))
    assert failed.is_blocking
    assert "'shoe'" in failed.detail["error"]


def test_rows_that_cannot_be_shown_do_not_hide_the_failure(spark: SparkSession) -> None:
    """The column that breaks is none that the expectation reads, so only showing the rows fails."""
    broken = F.col("user_id").cast("int").cast("string")
    rows = _impressions(spark).withColumns({"creative_id": F.lit(None).cast("string"), "arm": broken})
    failed = _named("creative_id_is_set", check_table("bronze_impressions", rows, []))
    assert failed.is_blocking
    assert failed.detail["unexpected_count"] == 1
    assert failed.failing_rows == ()
    assert "CAST_INVALID_INPUT" in failed.detail["failing_rows_error"]
    assert SECRET not in str(failed)


def _named(name: str, results: list[CheckResult]) -> CheckResult:
    return next(result for result in results if result.expectation.name == name)


def _impressions(spark: SparkSession, day: int = 1) -> DataFrame:
    values = {
        "source_date": date(2026, 3, day),
        "impression_id": "i1",
        "user_id": SECRET,
        "creative_id": "c1",
        "position": 1,
        "propensity": 0.5,
    }
    table = TABLES["bronze_impressions"]
    return spark.createDataFrame([tuple(values.get(name) for name in table.column_names)], table.ddl)
