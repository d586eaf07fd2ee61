"""Files that cannot be read, or not alike: each is named, with the column and the remedy."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.sources.read_files import read_files

FRAME = pd.DataFrame({"who": ["u1", "u2"], "pos": [1, 2], "note": ["x", "y"]})


def _parquet(frame: pd.DataFrame) -> Callable[[Path], object]:
    return lambda path: frame.to_parquet(path)


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


GOOD = {
    "parquet": _parquet(FRAME),
    "csv": _text("who,pos,note\nu1,1,x\n"),
    "jsonl": _text('{"who": "u1", "pos": 1}\n'),
}


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("b.parquet", _bytes(b"PAR1 cut off"), r"b.parquet is no readable Parquet file"),
        ("b.parquet", _bytes(b""), r"b.parquet is no readable Parquet file"),
        ("b.parquet", _parquet(FRAME.drop(columns="pos")), r"b.parquet has no column 'pos' that mapping.toml names in"),
        ("b.parquet", _parquet(FRAME.rename(columns={"who": "whom"})), r"no column 'who'.*did you mean 'whom'"),
        ("b.parquet", _parquet(FRAME.astype({"pos": float})), r"b.parquet: column 'pos' is DOUBLE, but INT64 in .*a.p"),
        ("b.parquet", _parquet(FRAME.assign(note=None)), r"b.parquet: column 'note' is INT32 \(Null\), but BYTE_ARRAY"),
        ("b.parquet", _parquet(FRAME.assign(t=pd.Timestamp(0))), r"column 't' holds nanoseconds, .*coerce_timestamps"),
        ("b.csv", _text("who,note,pos\nu1,x,1\n"), r"b.csv has the header who, note, pos, but .*a.csv has who, pos"),
        ("b.csv", _text("who,pos,pos\n"), r"b.csv has two columns 'pos'"),
        ("b.csv", _text(""), r"b.csv is empty: deliver at least the header"),
        ("b.csv", _bytes(b"\xff\xfe\x00who"), r"b.csv cannot be read"),
        ("b.csv.gz", _bytes(gzip.compress(b"who,pos,note\n")[:12]), r"b.csv.gz cannot be read"),
        ("b.csv.gz", _text("who,pos,note\n"), r"b.csv.gz cannot be read: Not a gzipped file"),
        ("b.csv", _parquet(FRAME), r"b.csv cannot be read"),
        ("b.txt", _text("who"), r"b.txt are of two formats"),
    ],
)
def test_a_file_unlike_the_first_is_named(
    spark: SparkSession, tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    suffix = name.split(".")[1] if name.split(".")[1] in GOOD else "csv"
    GOOD[suffix](tmp_path / f"a.{suffix}")
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        read_files(spark, "impressions", [tmp_path / f"a.{suffix}", tmp_path / name], {"who", "pos"})


def test_other_endings_and_empty_folders_are_named(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(ValueError, match=r"a.xlsx: .xlsx is not read; use .parquet, .csv or .jsonl, or give"):
        read_files(spark, "users", [tmp_path / "a.xlsx"], {"who"})
    (tmp_path / "a.parquet").mkdir()
    (tmp_path / "a.parquet" / "_SUCCESS").touch()
    with pytest.raises(ValueError, match=r"a.parquet is a folder without files"):
        read_files(spark, "users", [tmp_path / "a.parquet"], {"who"})


def test_a_key_that_no_json_line_has_is_an_error(spark: SparkSession, tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text('{"who": "u1"}\n' * 1500 + "not JSON\n")
    second.write_text('{"who": "u2", "poss": 1}\n')
    with pytest.raises(ValueError, match=r"no column 'pos' .*\[impressions\] \(did you mean 'poss'\?\)"):
        read_files(spark, "impressions", [first, second], {"who", "pos"})
    # One line of one file has it, if only as null: it is known, and mostly empty.
    second.write_text('{"who": "u2", "pos": null}\n')
    rows = read_files(spark, "impressions", [first, second], {"who", "pos"})
    assert rows.where("who IS NOT NULL").count() == 1501
    assert rows.where("_corrupt_record = 'not JSON' AND who IS NULL").count() == 1


@pytest.mark.parametrize("text", ["", "not JSON\n"])
def test_json_lines_without_any_event_are_no_missing_column(spark: SparkSession, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    rows = read_files(spark, "clicks", [tmp_path / "a.jsonl"], {"who"}).collect()
    assert len(rows) == (1 if text else 0)


def test_a_folder_of_parts_keeps_its_partition_columns(spark: SparkSession, tmp_path: Path) -> None:
    rows = spark.createDataFrame([("u1", 1), ("u2", 2)], "who string, pos int")
    rows.write.partitionBy("pos").parquet(str(tmp_path / "a.parquet"))
    assert sorted(read_files(spark, "users", [tmp_path / "a.parquet"], {"who", "pos"}).collect()) == [
        ("u1", 1),
        ("u2", 2),
    ]
