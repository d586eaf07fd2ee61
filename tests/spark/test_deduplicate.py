from osmf_pipelines.spark.deduplicate import deduplicate_events

DDL = "source_date string, click_id string, impression_id string, clicked_at int, source_file string"


def _split(spark, rows):
    events = spark.createDataFrame(rows, DDL)
    found = deduplicate_events(events, id_column="click_id", payload_columns=["impression_id", "clicked_at"])
    return [
        sorted((tuple(row) for row in frame.collect()), key=str)
        for frame in (found.unique, found.duplicates, found.conflicts)
    ]


def test_a_repeat_leaves_the_earliest_delivery_and_a_contradiction_leaves_nothing(spark):
    first, again = ("d1", "a", "i1", 5, "f2"), ("d2", "a", "i1", 5, "f1")
    contradicting = [("d1", "b", "i1", 5, "f1"), ("d1", "b", "i2", 5, "f1"), ("d2", "b", "i1", 5, "f1")]
    single = ("d1", "c", "i3", 7, "f1")

    unique, duplicates, conflicts = _split(spark, [again, *contradicting, single, first])

    assert unique == [first, single]
    assert duplicates == [again]
    assert conflicts == [(*row, ["conflicting_duplicate"]) for row in contradicting]


def test_null_payload_values_are_equal_to_each_other_only(spark):
    unique, duplicates, conflicts = _split(
        spark,
        [
            ("d1", "a", None, 5, "f1"),
            ("d1", "a", None, 5, "f1"),
            ("d1", "b", None, 5, "f1"),
            ("d1", "b", "i1", 5, "f1"),
        ],
    )

    assert [row[1] for row in unique] == ["a"]
    assert [row[1] for row in duplicates] == ["a"]
    assert [row[1] for row in conflicts] == ["b", "b"]
