"""A drop folder in each format, and what is said when it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.sources.files import FilesSource
from osmf_pipelines.spark.quarantine import parse_clicks, parse_impressions
from osmf_pipelines.tables import TABLES

DAY = date(2026, 3, 2)
CREATIVES = pd.DataFrame({"ad": ["c1"], "item": ["p1"]})
IMPRESSIONS = pd.DataFrame(
    {
        "imp": ["i1", "i2", "i3", "i4"],
        "who": ["u1", None, "u1", "u1"],
        "item": ["p1", "p1", "p9", "p1"],
        "ad": ["c1", "c1", "c9", "c1"],
        "ts": ["2026-03-02 10:00:00", "2026-03-02 10:00:00", "2026-03-02 10:00:00", "yesterday"],
        "pos": ["2", "1", "1", "1"],
    }
)
CLICKS = pd.DataFrame({"id": ["k1", "k2"], "imp": ["i1", "i1"], "ts": ["2026-03-02 10:01:00", "2026-03-04 10:00:00"]})
MAPPING = """
[impressions]
files = "{{date}}/impressions.{suffix}"
columns = {{impression_id="imp", user_id="who", product_id="item", creative_id="ad", impressed_at="ts", position="pos"}}
[clicks]
files = "{{date}}/clicks.{suffix}"
columns = {{click_id="id", impression_id="imp", clicked_at="ts"}}
[users]
files = "users.csv"
columns = {{user_id="who"}}
attributes = ["age"]
[products]
files = "products.csv"
columns = {{product_id="item", scope="category"}}
[creatives]
files = "creatives.csv"
columns = {{creative_id="ad", product_id="item"}}
"""
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "parquet": lambda frame, path: frame.to_parquet(path),
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
}


def _drop(folder: Path, suffix: str = "csv") -> Path:
    (folder / str(DAY)).mkdir(parents=True)
    (folder / "mapping.toml").write_text(MAPPING.format(suffix=suffix))
    for name, frame in {"impressions": IMPRESSIONS, "clicks": CLICKS}.items():
        WRITERS[suffix](frame, folder / str(DAY) / f"{name}.{suffix}")
    pd.DataFrame({"who": ["u1"], "age": ["18-24"]}).to_csv(folder / "users.csv", index=False)
    pd.DataFrame({"item": ["p1"], "category": ["shoe"]}).to_csv(folder / "products.csv", index=False)
    CREATIVES.to_csv(folder / "creatives.csv", index=False)
    (folder / str(DAY) / "_SUCCESS").touch()
    return folder


@pytest.mark.parametrize("suffix", WRITERS)
def test_events_are_typed_or_refused_with_their_reasons(spark: SparkSession, tmp_path: Path, suffix: str) -> None:
    source = FilesSource(_drop(tmp_path / "drop", suffix))
    parsed = parse_impressions(source.impressions(spark, DAY), source.creatives(spark), user_key="key")

    (accepted,) = parsed.accepted.collect()
    assert (accepted["impression_id"], accepted["position"], str(accepted["impressed_at"])) == (
        "i1",
        2,
        "2026-03-02 10:00:00",
    )
    assert len(accepted["user_id"]) == 32
    assert accepted["user_id"] != "u1"

    refused = {tuple(row["reasons"]): row["payload"] for row in parsed.quarantined.collect()}
    assert refused.keys() == {("missing_user_id",), ("unknown_creative",), ("bad_impressed_at", "missing_impressed_at")}
    assert '"yesterday"' in refused["bad_impressed_at", "missing_impressed_at"]

    clicks = parse_clicks(source.clicks(spark, DAY))
    assert [row["click_id"] for row in clicks.accepted.collect()] == ["k1"]
    assert [row["reasons"] for row in clicks.quarantined.collect()] == [["outside_source_date"]]


def test_an_unreadable_line_is_kept_as_it_came(spark: SparkSession, tmp_path: Path) -> None:
    folder = _drop(tmp_path / "drop", "jsonl")
    with (folder / str(DAY) / "impressions.jsonl").open("a") as file:
        file.write('{"imp": "i5", "who\n')
    source = FilesSource(folder)
    parsed = parse_impressions(source.impressions(spark, DAY), source.creatives(spark), user_key="key")
    broken = [row for row in parsed.quarantined.collect() if "unreadable" in row["reasons"]]
    assert [row["payload"] for row in broken] == ['{"imp": "i5", "who']


def test_dimensions_take_our_names(spark: SparkSession, tmp_path: Path) -> None:
    source = FilesSource(_drop(tmp_path / "drop"))
    assert [row.asDict() for row in source.users(spark).collect()] == [
        {"user_id": "u1", "attributes": {"age": "18-24"}}
    ]
    assert source.products(spark).columns == TABLES["products"].column_names
    assert source.days() == [DAY]


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _replace(old: str, new: str) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        path = folder / "mapping.toml"
        path.write_text(path.read_text().replace(old, new))

    return replace


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("mapping.toml"), "mapping.toml is missing"),
        (_remove(f"{DAY}/_SUCCESS"), "_SUCCESS is missing"),
        (_remove(f"{DAY}/impressions.csv"), "finds no file"),
        (_replace('user_id="who", product_id', 'user_id="whom", product_id'), "has no column 'whom'"),
        (_replace('user_id="who", product_id', "product_id"), "lacks user_id"),
        (_replace('scope="category"', 'scop="category"'), "lacks scope"),
        (_replace('position="pos"', 'place="pos"'), "maps place, which is not one of"),
        (_replace("{date}/clicks", "clicks"), "must name the day once"),
        (_replace("[clicks]", "[click]"), "is not a valid mapping"),
    ],
)
def test_what_is_wrong_is_named(
    spark: SparkSession, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = _drop(tmp_path / "drop")
    damage(folder)
    with pytest.raises(ValueError, match=message):
        FilesSource(folder).impressions(spark, DAY)
