"""A drop folder in each format: events, dimensions, ready pairs, days."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from osmf_pipelines.settings import Settings
from osmf_pipelines.sources import open_source
from osmf_pipelines.sources.files import FilesSource
from osmf_pipelines.spark.quarantine import parse_clicks, parse_impressions
from osmf_pipelines.tables import TABLES
from tests.sources.conftest import DAY, PAIR_COLUMNS, PAIRS, WRITERS, edit, write_drop


@pytest.mark.parametrize("suffix", WRITERS)
def test_events_are_typed_or_refused_with_their_reasons(spark: SparkSession, tmp_path: Path, suffix: str) -> None:
    source = FilesSource(write_drop(tmp_path / "drop", suffix))
    parsed = parse_impressions(source.impressions(spark, DAY), source.creatives(spark), user_key="key")

    (accepted,) = parsed.accepted.collect()
    assert (accepted["impression_id"], accepted["position"], str(accepted["impressed_at"])) == (
        "i1",
        2,
        "2026-03-02 10:00:00",
    )
    assert len(accepted["user_id"]) == 32
    assert accepted["source_file"] == f"impressions.{suffix}"

    refused = {tuple(row["reasons"]): row["payload"] for row in parsed.quarantined.collect()}
    assert refused.keys() == {("missing_user_id",), ("unknown_creative",), ("bad_impressed_at", "missing_impressed_at")}
    assert '"yesterday"' in refused["bad_impressed_at", "missing_impressed_at"]

    clicks = parse_clicks(source.clicks(spark, DAY))
    assert [row["click_id"] for row in clicks.accepted.collect()] == ["k1"]
    assert [row["reasons"] for row in clicks.quarantined.collect()] == [["after_source_date"]]


@pytest.mark.parametrize(
    ("suffix", "line"), [("jsonl", '{"imp": "i5", "who'), ("csv", "i5,u1,p1,c1"), ("csv", 'i5,"u1')]
)
def test_an_unreadable_line_is_kept_as_it_came(spark: SparkSession, tmp_path: Path, suffix: str, line: str) -> None:
    folder = write_drop(tmp_path / "drop", suffix)
    with (folder / str(DAY) / f"impressions.{suffix}").open("a") as file:
        file.write(line + "\n")
    source = FilesSource(folder)
    parsed = parse_impressions(source.impressions(spark, DAY), source.creatives(spark), user_key="key")
    broken = [row for row in parsed.quarantined.collect() if "unreadable" in row["reasons"]]
    assert [row["payload"] for row in broken] == [line]


def test_a_short_line_is_corrupt_whatever_columns_a_query_uses(spark: SparkSession, drop: Path) -> None:
    with (drop / str(DAY) / "impressions.csv").open("a") as file:
        file.write("i5,u1,p1,c1\n")
    impressions = FilesSource(drop).impressions(spark, DAY)
    assert impressions.where("is_corrupt").select("impression_id").collect() == [("i5",)]
    assert impressions.where("is_corrupt AND user_id = 'u1'").count() == 1


def test_a_day_may_have_several_files_and_an_index_without_a_name(spark: SparkSession, drop: Path) -> None:
    frame = pd.read_csv(drop / str(DAY) / "impressions.csv", dtype=str)
    (drop / str(DAY) / "impressions.csv").unlink()
    for index in range(2):
        frame.iloc[2 * index : 2 * index + 2].to_csv(drop / str(DAY) / f"impressions-{index}.csv")
    rows = FilesSource(drop).impressions(spark, DAY).select("impression_id", "position").collect()
    assert sorted(rows) == [("i1", "2"), ("i2", "1"), ("i3", "1"), ("i4", "1")]


def test_dimensions_take_our_names_and_types(spark: SparkSession, tmp_path: Path) -> None:
    source = FilesSource(write_drop(tmp_path / "drop", above='image_root = "pictures"\n'))
    assert [row.asDict() for row in source.users(spark).collect()] == [
        {"user_id": "u1", "attributes": {"age": "18-24"}}
    ]
    (product,) = source.products(spark).collect()
    assert list(product.asDict()) == TABLES["products"].column_names
    assert product["price"] == 9.5
    creatives = {row["creative_id"]: row["image_path"] for row in source.creatives(spark).collect()}
    assert creatives == {"c1": f"{tmp_path}/drop/pictures/a.png", "c2": "s3://shop/b.png"}


def test_a_dimension_may_be_a_table(spark: SparkSession, drop: Path) -> None:
    products = spark.createDataFrame(
        [("p1", "shoe", 3, "unmapped")], "item string, category string, cost int, x string"
    )
    products.write.parquet(str(drop / "warehouse" / "products"))
    edit(drop / "mapping.toml", 'files = "products.csv"', 'format = "parquet"\npath = "warehouse/products"')
    rows = FilesSource(drop).products(spark).select("product_id", "scope", "price").collect()
    assert rows == [("p1", "shoe", 3.0)]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("products.csv", "p2,shoe,cheap", "products.csv: 'cost', mapped to price, has a value that is no double"),
        ("products.csv", "p2", r"\[products\]: a line cannot be read in products.csv"),
        ("users.csv", "u2,30,x,y", r"\[users\]: a line cannot be read in users.csv"),
    ],
)
def test_a_broken_line_of_a_dimension_ends_the_query(
    spark: SparkSession, drop: Path, file: str, line: str, message: str
) -> None:
    with (drop / file).open("a") as lines:
        lines.write(line + "\n")
    source = FilesSource(drop)
    frame = source.users(spark) if file == "users.csv" else source.products(spark)
    with pytest.raises(PySparkException, match=message):
        frame.collect()


def test_ready_pairs_are_cast_and_tell_what_could_not_be(spark: SparkSession, drop: Path) -> None:
    assert FilesSource(drop).ready_pairs(spark, DAY) is None
    (drop / "pairs" / str(DAY)).mkdir(parents=True)
    PAIRS.to_json(drop / "pairs" / str(DAY) / "part.jsonl", orient="records", lines=True)
    with (drop / "mapping.toml").open("a") as mapping:
        mapping.write('[preference_pairs]\nfiles = "pairs/{date}/*"\n' + PAIR_COLUMNS)
    source = FilesSource(drop)
    with pytest.raises(ValueError, match=rf"pairs/{DAY}/_SUCCESS is missing"):
        source.ready_pairs(spark, DAY)
    (drop / "pairs" / str(DAY) / "_SUCCESS").touch()
    pairs = source.ready_pairs(spark, DAY)
    assert pairs is not None
    first, second = sorted(pairs.collect())
    assert first[:7] == ("g1", "shoe", "p1", "c1", "c2", 0.97, None)
    assert (first["is_corrupt"], second["is_corrupt"]) == (False, True)
    assert second["chosen_better_probability"] is None
    assert '"surely"' in second["payload"]


def test_days_are_the_folders_with_all_markers(drop: Path) -> None:
    assert FilesSource(drop).days() == [DAY]
    edit(drop / "mapping.toml", "{date}/clicks", "clicks/dt={date}/clicks")
    assert FilesSource(drop).days() == []
    for name in ("dt=2026-03-02", "dt=2026-03-03"):
        (drop / "clicks" / name).mkdir(parents=True)
        (drop / "clicks" / name / "_SUCCESS").touch()
    assert FilesSource(drop).days() == [DAY]
    (drop / "2026-03-03").mkdir()
    (drop / "2026-03-03" / "_SUCCESS").touch()
    assert [day.day for day in FilesSource(drop).days()] == [2, 3]


@pytest.mark.parametrize("name", ["2026-02-30", "20260302", "monday"])
def test_a_marked_folder_that_names_no_day_is_an_error(drop: Path, name: str) -> None:
    (drop / name).mkdir()
    assert FilesSource(drop).days() == [DAY]
    (drop / name / "_SUCCESS").touch()
    with pytest.raises(ValueError, match=f"'{name}' is no day"):
        FilesSource(drop).days()


def test_markers_of_other_tables_and_hidden_folders_are_no_days(drop: Path) -> None:
    edit(drop / "mapping.toml", 'files = "users.csv"', 'files = "users.parquet"')
    for name in ("users.parquet", ".2026-03-03.tmp"):
        (drop / name).mkdir()
        (drop / name / "_SUCCESS").touch()
    assert FilesSource(drop).days() == [DAY]


def test_a_marker_written_again_is_another_delivery(drop: Path) -> None:
    source, marker = FilesSource(drop), drop / str(DAY) / "_SUCCESS"
    first = source.delivery_of(DAY)
    assert source.delivery_of(DAY) == first
    os.utime(marker, ns=(0, marker.stat().st_mtime_ns + 1))
    second = source.delivery_of(DAY)
    assert second != first
    marker.write_text("2")
    os.utime(marker, ns=(0, int(second.split("-")[0])))
    assert source.delivery_of(DAY) not in (first, second)
    marker.unlink()
    with pytest.raises(ValueError, match=f"{DAY} is not complete"):
        source.delivery_of(DAY)


def test_open_bandit_opens_without_its_data(tmp_path: Path) -> None:
    source = open_source(Settings(home=tmp_path, source="open_bandit"))
    assert len(source.days()) == 7
    assert source.delivery_of(source.days()[0]) == ""
