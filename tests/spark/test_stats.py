from datetime import date

from pyspark.sql import functions as F

from osmf_pipelines.spark.stats import aggregate_creative_stats, count_cell_users, list_cell_users
from osmf_pipelines.tables import TABLES

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)


def _exposures(spark, rows):
    """Rows of (day, user, cell, position, propensity, is_clicked)."""
    frame = spark.createDataFrame(
        rows,
        "event_date date, user_id string, cell string, position int, propensity double, is_clicked boolean",
    )
    constants = {"scope": "shoes", "product_id": "p1", "creative_id": "c1", "slot_type": "feed"}
    columns = {"user_fold": F.lit(0), "model_version": F.lit(None).cast("string")}
    return frame.withColumns({**columns, **{name: F.lit(value) for name, value in constants.items()}})


def test_stats_are_sums_of_exposures_per_place(spark):
    exposures = _exposures(
        spark,
        [
            (MONDAY, "u1", "age=old", 1, 0.5, True),
            (MONDAY, "u2", "age=old", 1, 0.3, False),
            (MONDAY, "u2", "age=old", 2, 0.5, False),
            (MONDAY, "u3", "age=old", 2, None, False),
            (TUESDAY, "u3", "age=old", None, None, True),
        ],
    )

    stats = aggregate_creative_stats(exposures)

    assert ", ".join(f"`{name}` {type_}" for name, type_ in stats.dtypes) == TABLES["creative_stats"].ddl
    columns = ("event_date", "position", "num_impressions", "num_clicks", "inverse_propensity_millis")
    assert sorted((tuple(row[c] for c in columns) for row in stats.collect()), key=str) == [
        (MONDAY, 1, 2, 1, 2000 + 3333),
        (MONDAY, 2, 2, 0, None),
        (TUESDAY, None, 1, 1, None),
    ]


def test_what_a_model_drew_is_no_evidence(spark):
    logged = [(MONDAY, "u1", "age=old", 1, 0.5, True), (MONDAY, "u2", "age=old", 1, 0.5, False)]
    drawn = _exposures(spark, [*logged, *logged]).withColumn("model_version", F.lit("7"))

    exposures = _exposures(spark, logged).unionByName(drawn)
    (row,) = aggregate_creative_stats(exposures).collect()

    assert (row["num_impressions"], row["num_clicks"], row["inverse_propensity_millis"]) == (2, 1, 4000)
    # Nor do users count towards the privacy floor who were shown nothing else.
    others = _exposures(spark, [(MONDAY, "u3", "age=old", 1, 0.5, True)]).withColumn("model_version", F.lit("7"))
    users = list_cell_users(exposures.unionByName(others)).collect()
    assert sorted(user["user_id"] for user in users) == ["u1", "u2"]


def test_a_user_is_listed_once_a_day_and_cell_and_counted_once_a_window(spark):
    exposures = _exposures(
        spark,
        [
            (MONDAY, "u1", "age=old", 1, None, False),
            (MONDAY, "u1", "age=old", 2, None, False),
            (TUESDAY, "u1", "age=older", 1, None, False),
            (MONDAY, "u2", "age=old", 1, None, False),
            (MONDAY, None, "age=old", 1, None, False),
        ],
    )

    cell_users = list_cell_users(exposures)

    assert sorted((row["event_date"], row["cell"], row["user_id"]) for row in cell_users.collect()) == [
        (MONDAY, "age=old", "u1"),
        (MONDAY, "age=old", "u2"),
        (TUESDAY, "age=older", "u1"),
    ]
    counts = {row["cell"]: row["num_users"] for row in count_cell_users(cell_users).collect()}
    assert counts == {"age=old": 1, "age=older": 1}
