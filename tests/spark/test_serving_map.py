"""What an ad server is told: rules and pictures, and what it shows where a group has none of its own."""

from __future__ import annotations

import json
from datetime import date

import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.serving.serving_map import ServingMap
from osmf_pipelines.spark.serving_map import count_entries, list_serving_map
from osmf_pipelines.tables import TABLES

DAY = date(2026, 3, 4)


def _drawn(group, product, refusal=None):
    is_root = group == "root"
    path = None if refusal == "not_finite" else f"/creatives/{group}-{product}.png"
    own = ("shoes", group, is_root, product, path, path and f"sha-{group}-{product}", 5)
    return (DAY, *own, 3, "model", 12, 1.0, 0.8, 0.0, refusal)


@pytest.fixture(scope="module")
def frames(spark: SparkSession):
    groups = [(DAY, "shoes", "age=old", "g1"), (DAY, "shoes", "age=young", "g2"), (DAY, "hats", "unknown", "h")]
    roots = [("shoes", "root", True), ("hats", "hats-root", True)]
    features = [*roots, ("shoes", "g1", False), ("shoes", "g2", False), ("hats", "h", False)]
    drawn = [
        *(_drawn(group, "p1") for group in ("root", "g1", "g2")),
        *(_drawn("root", "p2"), _drawn("g1", "p2", "clipped"), _drawn("g2", "p2")),
        *(_drawn("root", "p3", "not_finite"), _drawn("g1", "p3", "unlike_logged"), _drawn("g2", "p3")),
    ]
    generated = spark.createDataFrame(drawn, TABLES["generated_creatives"].ddl)
    frame = list_serving_map(
        spark.createDataFrame(groups, TABLES["user_groups"].ddl),
        spark.createDataFrame(features, "scope string, group_id string, is_scope_root boolean"),
        generated,
        as_of_date=DAY,
    ).cache()
    yield frame, generated
    frame.unpersist()


def test_rows_are_the_tables(frames):
    assert ", ".join(f"`{name}` {type_}" for name, type_ in frames[0].dtypes) == TABLES["serving_map"].ddl


def test_a_refused_picture_gives_way_to_the_roots_and_is_never_shown(frames):
    frame, generated = frames
    shown = {
        (row["group_id"], row["product_id"]): row["drawn_for"]
        for row in frame.where("entry = 'picture'").collect()
        if (row["picture_path"], row["model_version"]) == (f"/creatives/{row['drawn_for']}-{row['product_id']}.png", 3)
    }
    whole = {(group, product): group for group in ("root", "g1", "g2") for product in ("p1", "p2")}
    assert shown == {**whole, ("g1", "p2"): "root", ("g2", "p3"): "g2"}
    assert count_entries(frame, generated) == {
        "num_rules": 5,
        "num_pictures": 7,
        "num_shown_of_root": 1,
        "num_unserved": 2,
        "num_ambiguous": 0,
        "num_scopes_without_root": 0,
    }


def test_faults_are_counted(frames):
    frame, generated = frames
    # No rule for everyone else with a hat, and all that is told of group g2 twice: a rule and three pictures.
    faulty = frame.where("group_id <> 'hats-root'").union(frame.where("group_id = 'g2'"))
    counts = count_entries(faulty, generated)
    assert (counts["num_scopes_without_root"], counts["num_ambiguous"]) == (1, 1 + 3)
    assert (counts["num_rules"], counts["num_pictures"]) == (5, 7 + 3)


def test_an_ad_server_answers_from_the_file_alone(frames, tmp_path):
    path = tmp_path / "map.jsonl"
    rows = [{**row.asDict(), "as_of_date": str(row["as_of_date"])} for row in frames[0].collect()]
    path.write_text("\n".join(map(json.dumps, rows)))
    serving = ServingMap.read(path)

    def shown(product, scope="shoes", **attributes):
        picture = serving.picture_for(attributes, scope=scope, product_id=product)
        return picture and (picture.group_id, picture.path, picture.sha256)

    assert shown("p1", age="old") == ("g1", "/creatives/g1-p1.png", "sha-g1-p1")
    assert shown("p2", age="old") == ("g1", "/creatives/root-p2.png", "sha-root-p2")
    assert shown("p1", age="ancient") == ("root", "/creatives/root-p1.png", "sha-root-p1")
    assert shown("p3", age="old") is None
    assert shown("p1", scope="hats") is None
    with pytest.raises(ValueError, match="of one day, and these rows are of 2026-03-04, 2026-03-05"):
        ServingMap.of([*rows, {**rows[0], "as_of_date": "2026-03-05"}])
