"""The rows that are shown are those that Great Expectations counts, first ones first, and tell nothing of persons."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.quality.expectations import Expectation
from osmf_pipelines.quality.failing_rows import MAX_FAILING_ROWS, find_failing_rows
from osmf_pipelines.quality.gate import check_table
from osmf_pipelines.quality.suites import SUITES
from osmf_pipelines.tables import TABLES, Column, Table

TABLE = Table(
    "planted",
    "one row per id",
    tuple(Column(name, type_, "") for name, type_ in (("id", "string"), ("a", "int"), ("b", "int"), ("x", "double"))),
)
NAN = float("nan")
PLANTED = [
    ("r1", 1, 1, 0.0),
    ("r2", 2, 3, 0.5),
    ("r3", None, 3, 1.0),
    ("r4", 4, None, None),
    ("r5", 2, 3, 1.5),
    (None, None, None, NAN),
]
# Expectation, and the ids of the rows of PLANTED that break it, in the order shown.
KNOWN: list[tuple[str, dict[str, Any], list[str]]] = [
    ("ExpectColumnValuesToNotBeNull", {"column": "a"}, ["null", "r3"]),
    ("ExpectColumnValuesToBeInSet", {"column": "a", "value_set": [1, 4]}, ["r2", "r5"]),
    ("ExpectColumnValuesToBeBetween", {"column": "x", "min_value": 0, "max_value": 1}, ["null", "r5"]),
    (
        "ExpectColumnValuesToBeBetween",
        {"column": "x", "min_value": 0, "max_value": 1, "strict_min": True},
        ["null", "r1", "r5"],
    ),
    ("ExpectColumnValuesToBeBetween", {"column": "x", "max_value": 1, "strict_max": True}, ["null", "r3", "r5"]),
    ("ExpectColumnValuesToBeBetween", {"column": "x", "min_value": 1}, ["r1", "r2"]),
    (
        "ExpectColumnPairValuesAToBeGreaterThanB",
        {"column_A": "a", "column_B": "b", "or_equal": True},
        ["r2", "r5"],
    ),
    ("ExpectColumnPairValuesAToBeGreaterThanB", {"column_A": "a", "column_B": "b"}, ["r1", "r2", "r5"]),
    ("ExpectColumnValuesToBeUnique", {"column": "a"}, ["r2", "r5"]),
    ("ExpectColumnValuesToBeUnique", {"column": "id"}, []),
    ("ExpectCompoundColumnsToBeUnique", {"column_list": ["a", "b"]}, ["r2", "r5"]),
]


@pytest.fixture(scope="module")
def planted(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(PLANTED, TABLE.ddl)


@pytest.mark.parametrize(("type_", "kwargs", "ids"), KNOWN)
def test_the_rows_are_those_that_break_the_expectation(
    planted: DataFrame, type_: str, kwargs: dict[str, Any], ids: list[str]
) -> None:
    rows = find_failing_rows(planted, Expectation("planted", type_, kwargs, "because"), TABLE)
    assert [row["id"] for row in rows] == ids


def test_great_expectations_counts_as_many(planted: DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tuple(Expectation(f"e{i}", type_, kwargs, "because") for i, (type_, kwargs, _) in enumerate(KNOWN))
    monkeypatch.setitem(TABLES, "planted", TABLE)
    monkeypatch.setitem(SUITES, "planted", suite)
    counted = [result.detail.get("unexpected_count", 0) for result in check_table("planted", planted, [])]
    assert counted == [len(ids) for _, _, ids in KNOWN]


def test_every_type_of_expectation_on_rows_is_known() -> None:
    used = {e.type for suite in SUITES.values() for e in suite if e.subject == "rows"}
    assert used - {type_ for type_, _, _ in KNOWN} == {"ExpectTableRowCountToBeBetween"}


def test_a_type_without_rows_of_its_own_shows_none(planted: DataFrame) -> None:
    count = Expectation("has_rows", "ExpectTableRowCountToBeBetween", {"min_value": 100}, "because")
    assert find_failing_rows(planted, count, TABLE) == ()


def test_at_most_five_rows_are_shown_the_first_in_order(spark: SparkSession) -> None:
    shuffled = [(f"r{i}", None, None, None) for i in (8, 3, 5, 1, 7, 2, 6, 4)]
    rows = spark.createDataFrame(shuffled, TABLE.ddl).repartition(4)
    shown = find_failing_rows(rows, Expectation("", "ExpectColumnValuesToNotBeNull", {"column": "a"}, ""), TABLE)
    assert [row["id"] for row in shown] == ["r1", "r2", "r3", "r4", "r5"]
    assert len(shown) == MAX_FAILING_ROWS


def test_rows_of_one_key_stand_side_by_side(spark: SparkSession) -> None:
    """Two events of an id lie days apart; between them lie 8 other keys that occur twice on one day."""
    rows = [("d1", 0, None, None), ("d9", 0, None, None)]
    rows += [("d2", key, None, None) for key in range(1, 9) for _ in range(2)]
    frame = spark.createDataFrame(rows, TABLE.ddl)
    shown = find_failing_rows(frame, Expectation("", "ExpectColumnValuesToBeUnique", {"column": "a"}, ""), TABLE)
    assert [(row["a"], row["id"]) for row in shown] == [("0", "d1"), ("0", "d9"), ("1", "d2"), ("1", "d2"), ("2", "d2")]


def test_values_are_text_and_long_ones_are_cut(spark: SparkSession) -> None:
    table = TABLES["creative_features"]
    row = ("c1", "p1", "shoe", ["f"] * 300, [0.25], 2.0)
    in_range = next(e for e in SUITES["creative_features"] if e.name == "mask_coverage_in_range")
    (shown,) = find_failing_rows(spark.createDataFrame([row], table.ddl), in_range, table)
    assert shown["feature_values"] == "[0.25]"
    assert shown["mask_coverage"] == "2.0"
    assert len(shown["feature_names"]) == 200
    assert shown["feature_names"].endswith("…")


def test_times_are_shown_in_utc(spark: SparkSession) -> None:
    table = TABLES["bronze_clicks"]
    row = spark.sql(
        "SELECT date'2026-03-02' d, 'k', string(null), timestamp'2026-03-02T01:02:03Z', 'f', timestamp(null)"
    )
    impression = next(e for e in SUITES["bronze_clicks"] if e.name == "impression_id_is_set")
    (shown,) = find_failing_rows(row.toDF(*table.column_names), impression, table)
    assert shown["clicked_at"] == "2026-03-02 01:02:03"
    assert shown["ingested_at"] == "null"


@pytest.mark.parametrize("name", sorted(name for name in TABLES if TABLES[name].personal_columns))
def test_personal_columns_are_never_shown(spark: SparkSession, name: str) -> None:
    """Every column holds the secret; two equal rows without their other values break what can be broken."""
    table = TABLES[name]
    row = [f"CAST({_secret(c.type)} AS {c.type}) AS {c.name}" for c in table.columns]
    rows = spark.range(2).selectExpr(*row)
    broken = [e for e in SUITES[name] if e.subject == "rows"]
    broken += [
        Expectation("", "ExpectColumnValuesToBeInSet", {"column": c, "value_set": ["x"]}, "") for c in _texts(table)
    ]
    shown = [row for e in broken for row in find_failing_rows(rows, e, table)]
    assert set().union(*shown).isdisjoint(table.personal_columns)
    if len(table.columns) > len(table.personal_columns):
        assert shown
    else:
        assert shown == []


def _secret(type_: str) -> str:
    return {"string": "'secret'", "map<string,string>": "map('age', 'secret')"}.get(type_, "null")


def _texts(table: Table) -> list[str]:
    return [column.name for column in table.columns if column.type == "string"]


def test_columns_that_the_table_does_not_have_are_not_shown(planted: DataFrame) -> None:
    rows = planted.withColumn("user_id", F.lit("secret"))
    shown = find_failing_rows(rows, Expectation("", "ExpectColumnValuesToNotBeNull", {"column": "a"}, ""), TABLE)
    assert list(shown[0]) == ["id", "a", "b", "x"]


def test_maps_neither_order_nor_stop_the_rows(spark: SparkSession) -> None:
    table = TABLES["group_features"]
    values = {"as_of_date": date(2026, 3, 2), "group_id": "g", "num_impressions": 1, "num_clicks": 2}
    row = tuple(values.get(name, {"age=1": 0.5} if name == "attribute_shares" else None) for name in table.column_names)
    clicks = next(e for e in SUITES["group_features"] if e.type == "ExpectColumnPairValuesAToBeGreaterThanB")
    (shown,) = find_failing_rows(spark.createDataFrame([row], table.ddl), clicks, table)
    assert shown["attribute_shares"] == "{age=1 -> 0.5}"
