"""Impressions of each cell of a group."""

from __future__ import annotations

from pyspark.sql import SparkSession

from osmf_pipelines.spark.group_cells import count_group_cells


def test_impressions_are_summed_by_cell_inside_its_scope(spark: SparkSession) -> None:
    groups = spark.createDataFrame(
        [("shoe", "old", "g"), ("shoe", "young", "g"), ("bag", "old", "h"), ("bag", "none", "h")],
        "scope string, cell string, group_id string",
    )
    stats = spark.createDataFrame(
        [("shoe", "old", 3), ("shoe", "old", 4), ("shoe", "young", 1), ("bag", "old", 9), ("bag", "ungrouped", 5)],
        "scope string, cell string, num_impressions long",
    )
    rows = [tuple(row) for row in count_group_cells(groups, stats).collect()]
    assert rows == [("g", "shoe", "old", 7), ("g", "shoe", "young", 1), ("h", "bag", "old", 9)]
