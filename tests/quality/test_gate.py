"""The gate fails closed."""

from __future__ import annotations

from datetime import date

import great_expectations.expectations as gxe
import pytest
from pyspark.sql import DataFrame, SparkSession

from osmf_pipelines.quality.gate import CheckResult, check_table
from osmf_pipelines.quality.suites import SUITES
from osmf_pipelines.tables import TABLES

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


@pytest.mark.parametrize("facts", [[], [{**FACTS, "num_exposures": None}], [{"num_impressions": 10}]])
def test_a_fact_that_was_not_counted_blocks(spark: SparkSession, facts: list[dict[str, float]]) -> None:
    assert "impressions_conserved" in _blocking(check_table("creative_stats", _stats(spark), facts))


def test_a_missing_column_blocks(spark: SparkSession) -> None:
    results = check_table("creative_stats", _stats(spark).drop("num_clicks"), [FACTS])
    assert "num_clicks_at_most_num_impressions" in _blocking(results)
    assert any("num_clicks" in result.detail.get("error", "") for result in results)


def test_restricted_tables_show_no_values(spark: SparkSession) -> None:
    row = (date(2026, 3, 2), "c1", None, None, "f", None)
    results = check_table("bronze_clicks", spark.createDataFrame([row, row], TABLES["bronze_clicks"].ddl), [])
    failed = next(result for result in results if result.expectation.name == "click_id_is_unique")
    assert not failed.passed
    assert "c1" not in str(failed.detail)
