"""What the report tells of tables, on rows small enough to add up by hand."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession

from osmf_pipelines.spark.report_sums import list_groups, sum_events, sum_pairs_by_scope, sum_scopes

DAY = date(2026, 3, 2)


def test_rows_are_summed_by_scope_and_outcome(spark: SparkSession) -> None:
    features = spark.createDataFrame(
        [
            ("root", "shoe", True, 90, 900, 30),
            ("g1", "shoe", False, 40, 400, 20),
            ("g2", "shoe", False, 50, 500, 10),
            ("alone", "hat", True, 7, 70, 1),
        ],
        "group_id string, scope string, is_scope_root boolean, num_users bigint, num_impressions bigint, "
        "num_clicks bigint",
    ).selectExpr(
        "*",
        "'words' description",
        "'rule' rule",
        "array('w') feature_names",
        "array(1D) preference",
        "array(2D) preference_se",
    )
    rates = spark.createDataFrame(
        [
            ("shoe", True, "p1", "c1"),
            ("shoe", True, "p1", "c2"),
            ("shoe", True, "p2", "c3"),
            ("shoe", False, "p9", "c9"),
        ],
        "scope string, is_scope_root boolean, product_id string, creative_id string",
    )
    scopes = {row["scope"]: tuple(row)[1:] for row in sum_scopes(features, rates).collect()}
    assert scopes == {"shoe": (2, 3, 90, 900, 30, 2), "hat": (0, 0, 7, 70, 1, 0)}
    assert [row["group_id"] for row in list_groups(features, ["shoe"], 5).collect()] == ["g2", "g1"]
    assert [row["group_id"] for row in list_groups(features, ["shoe", "hat"], 1).collect()] == ["g2"]

    pairs = spark.createDataFrame(
        [("shoe", False, 0.9, True), ("shoe", False, 1.0, False), ("shoe", True, 0.95, False)],
        "scope string, is_scope_root boolean, chosen_better_probability double, is_contradiction boolean",
    )
    (row,) = sum_pairs_by_scope(pairs).collect()
    assert tuple(row)[:3] == ("shoe", 2, 1)
    assert abs(row["expected_wrong_share"] - 0.05) < 1e-12

    ledger = "source_date date, event_type string, outcome string, num_events bigint"
    ingested = spark.createDataFrame([(DAY, "click", "kept", 3), (date(2026, 3, 3), "click", "kept", 4)], ledger)
    attributed = spark.createDataFrame([(DAY, "click", "orphan", 1)], ledger)
    told = {row["outcome"]: tuple(row)[2:] for row in sum_events(ingested, attributed).collect()}
    assert told == {"kept": (DAY, date(2026, 3, 3), 7), "orphan": (DAY, DAY, 1)}
