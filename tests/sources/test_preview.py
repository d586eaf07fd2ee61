"""What a mapping's preview shows of a day: our names, the reasons of refusal, no user's id."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.sources.files import FilesSource
from osmf_pipelines.sources.preview import TablePreview, preview_mapping
from osmf_pipelines.spark.quarantine import parse_impressions
from tests.sources.conftest import DAY, PAIR_COLUMNS, PAIRS, write_drop


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_drop(tmp_path_factory.mktemp("preview") / "drop")
    PAIRS.to_csv(folder / "pairs.csv", index=False)
    with (folder / "mapping.toml").open("a") as mapping:
        mapping.write('[preference_pairs]\nfiles = "pairs.csv"\n' + PAIR_COLUMNS)
    return folder


@pytest.fixture(scope="module")
def previews(spark: SparkSession, drop: Path) -> dict[str, TablePreview]:
    return {table.section: table for table in preview_mapping(FilesSource(drop), spark, DAY, user_key="key")}


def test_events_are_shown_as_they_came_with_reasons(
    spark: SparkSession, drop: Path, previews: dict[str, TablePreview]
) -> None:
    impressions = previews["impressions"]
    names = dict(zip(impressions.columns, impressions.their_columns, strict=True))
    assert (names["user_id"], names["position"], names["arm"]) == ("who", "pos", "")
    assert impressions.origin == "{date}/impressions*.csv"
    rows = [dict(zip(impressions.columns, row, strict=True)) for row in impressions.rows]
    assert [row["impression_id"] for row in rows] == ["i1", "i2", "i3", "i4"]
    assert rows[3]["impressed_at"] == "yesterday"
    assert rows[1]["user_id"] == "null"
    assert impressions.reasons == (
        (),
        ("missing_user_id",),
        ("unknown_creative",),
        ("bad_impressed_at", "missing_impressed_at"),
    )
    assert previews["clicks"].reasons == ((), ("after_source_date",))

    source = FilesSource(drop)
    accepted = parse_impressions(source.impressions(spark, DAY), source.creatives(spark), user_key="key").accepted
    assert rows[0]["user_id"] == accepted.collect()[0]["user_id"]


def test_no_users_id_and_no_payload_is_shown(previews: dict[str, TablePreview]) -> None:
    assert "u1" not in str(previews)
    assert all("payload" not in table.columns for table in previews.values())
    users = previews["users"]
    assert (users.columns, users.their_columns) == (("user_id", "attributes"), ("who", "age"))
    assert users.rows[0][1] == "{age -> 18-24}"


def test_every_mapped_table_is_shown(previews: dict[str, TablePreview]) -> None:
    assert list(previews) == ["impressions", "clicks", "users", "products", "creatives", "preference_pairs"]
    assert previews["products"].rows == (("p1", "shoe", "null", "9.5", "null"),)
    assert [row[0] for row in previews["creatives"].rows] == ["c1", "c2"]
    pairs = previews["preference_pairs"]
    assert pairs.rows == (
        ("g1", "shoe", "p1", "c1", "c2", "0.97", "null"),
        ("g2", "shoe", "p1", "c2", "c1", "null", "null"),
    )
    assert pairs.reasons == ((), ("unreadable",))


def test_typed_events_are_judged_by_their_types(spark: SparkSession, tmp_path: Path) -> None:
    folder = write_drop(tmp_path / "drop", "parquet")
    path = str(folder / str(DAY) / "impressions.parquet")
    typed = spark.read.parquet(path).selectExpr(
        "imp", "who", "item", "ad", "try_cast(ts AS TIMESTAMP) AS ts", "CAST(pos AS DOUBLE) AS pos"
    )
    typed.limit(1).toPandas().to_parquet(path, coerce_timestamps="us")
    (impressions, *_) = preview_mapping(FilesSource(folder), spark, DAY, user_key="key", num_rows=1)
    row = dict(zip(impressions.columns, impressions.rows[0], strict=True))
    assert (row["impressed_at"], row["position"]) == ("2026-03-02 10:00:00", "2.0")
    assert impressions.reasons == ((),)
