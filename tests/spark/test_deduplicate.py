from osmf_pipelines.spark.deduplicate import find_repeated_ids, label_copies

DDL = "source_date string, click_id string, impression_id string, clicked_at int, source_file string"


def _labels(spark, rows):
    events = spark.createDataFrame(rows, DDL)
    ids = ["source_date", "click_id"]
    repeated = events.join(find_repeated_ids(events, ids), on=ids, how="left_semi")
    found = label_copies(repeated, id_columns=ids, payload_columns=["impression_id", "clicked_at"])
    return {(row["source_date"], row["click_id"], row["source_file"]): row["label"] for row in found.collect()}


def test_a_repeat_leaves_one_row_and_a_contradiction_leaves_none(spark):
    rows = [
        ("d1", "a", "i1", 5, "f2"),
        ("d1", "a", "i1", 5, "f1"),
        ("d2", "a", "i9", 9, "f1"),
        ("d1", "b", "i1", 5, "f1"),
        ("d1", "b", "i2", 5, "f2"),
        ("d1", "b", "i1", 5, "f3"),
    ]

    assert _labels(spark, rows) == {
        ("d1", "a", "f1"): "first",
        ("d1", "a", "f2"): "copy",
        ("d1", "b", "f1"): "conflict",
        ("d1", "b", "f2"): "conflict",
        ("d1", "b", "f3"): "conflict",
    }


def test_null_payload_values_are_equal_to_each_other_only(spark):
    rows = [
        ("d1", "a", None, 5, "f1"),
        ("d1", "a", None, 5, "f2"),
        ("d1", "b", None, 5, "f1"),
        ("d1", "b", "i1", 5, "f2"),
    ]

    assert list(_labels(spark, rows).values()).count("conflict") == 2
    assert _labels(spark, rows)["d1", "a", "f2"] == "copy"
