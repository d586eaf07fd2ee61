"""Pairs that come ready-made: taken as they are, or refused as a whole with the reason and an example."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from osmf_pipelines.spark.ready_pairs import take_ready_pairs
from osmf_pipelines.tables import TABLES

DAY = date(2026, 3, 2)
READY_DDL = """group_id string, scope string, product_id string, chosen_creative_id string, rejected_creative_id string,
    chosen_better_probability double, log_rate_ratio double, payload string, is_corrupt boolean"""
GOOD = ("g1", "shoe", "p1", "a", "b", 0.8, None)


def _take(spark: SparkSession, *rows: tuple[Any, ...]) -> DataFrame:
    ready = spark.createDataFrame([(*row, f"row {index}", False) for index, row in enumerate(rows)], READY_DDL)
    groups = spark.createDataFrame(
        [("g1", "shoe", False), ("g2", "shoe", False)], "group_id string, scope string, is_scope_root boolean"
    )
    creatives = spark.createDataFrame([("a", "p1"), ("b", "p1"), ("z", "p2")], "creative_id string, product_id string")
    splits = spark.createDataFrame([("p1", "train"), ("p2", "test")], "product_id string, split string")
    return take_ready_pairs(ready, groups, creatives, splits, as_of_date=DAY)


def test_pairs_are_taken_and_contradictions_found(spark: SparkSession) -> None:
    other = ("g2", "shoe", "p1", "b", "a", 0.9, 0.7)
    pairs = _take(spark, GOOD, other)

    assert pairs.columns == TABLES["preference_pairs"].column_names
    rows = {row["group_id"]: row for row in pairs.collect()}
    # Odds of 0.8 to 0.2 are 4; a ratio that is given stays.
    assert rows["g1"]["log_rate_ratio"] == pytest.approx(1.3862943611)
    assert rows["g2"]["log_rate_ratio"] == 0.7
    assert [rows[group]["is_contradiction"] for group in ("g1", "g2")] == [True, True]
    assert (rows["g1"]["split"], rows["g1"]["as_of_date"]) == ("train", DAY)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("g9", "shoe", "p1", "a", "b", 0.8, None), "unknown_group: 1"),
        (("g1", "shoe", "p1", "a", "q", 0.8, None), "unknown_creative: 1"),
        (("g1", "shoe", "p1", "a", "z", 0.8, None), "creative_of_another_product: 1"),
        (("g1", "shoe", "p1", "a", "a", 0.8, None), "same_creative: 1"),
        (("g1", "shoe", "p1", "a", "b", 0.3, None), r"probability_not_in_0\.5_1: 1"),
        (("g1", "shoe", "p1", "a", "b", None, None), r"probability_not_in_0\.5_1: 1"),
        (("g1", "shoe", "p1", "a", "b", 0.8, -1.0), "log_rate_ratio_not_above_0: 1"),
    ],
)
def test_a_wrong_row_refuses_the_table(spark: SparkSession, row: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"{reason}.*such as row 1"):
        _take(spark, ("g2", "shoe", "p1", "a", "b", 0.9, None), row)


def test_a_pair_may_come_once_in_one_order(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="pair_more_than_once: 2"):
        _take(spark, GOOD, ("g1", "shoe", "p1", "b", "a", 0.9, None))
