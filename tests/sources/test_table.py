"""Logs in tables: one day at a time, of any format, and what is said when a table is not as mapped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.settings import Settings
from osmf_pipelines.sources import open_source
from osmf_pipelines.sources.table import TableSource
from osmf_pipelines.spark.quarantine import parse_impressions
from tests.sources.conftest import DAY, DIMENSIONS, EVENT_COLUMNS, PAIR_COLUMNS, PAIRS, edit, write_dimensions

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
LOCATIONS = """
[impressions]
format = "parquet"
path = "impressions"
day_column = "dt"
[clicks]
table = "osmf_test_clicks"
day_column = "ts"
"""


@pytest.fixture(scope="module", autouse=True)
def clicks(spark: SparkSession) -> Iterator[None]:
    """A registered table: two clicks on 2026-03-02, at its first and last second, and one on the next day."""
    times = ["2026-03-02 00:00:00", "2026-03-02 23:59:59", "2026-03-03 00:00:00"]
    rows = spark.createDataFrame(
        [(f"k{index}", "i2", time) for index, time in enumerate(times)], "id string, imp string, ts string"
    )
    rows.withColumn("ts", F.to_timestamp("ts")).write.saveAsTable("osmf_test_clicks")
    yield
    spark.sql("DROP TABLE osmf_test_clicks")


def _impressions(spark: SparkSession) -> DataFrame:
    """One impression on each of 2026-03-01, 02, 03."""
    return spark.createDataFrame(
        [(f"i{day}", 7, "p1", "c1", f"2026-03-0{day} 10:00:00", day, f"2026-03-0{day}", "wide") for day in (1, 2, 3)],
        "imp string, who int, item string, ad string, ts string, pos int, dt string, unmapped string",
    )


@pytest.fixture(scope="module")
def warehouse(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Impressions as a Parquet table that is partitioned by its text or date `dt`."""
    folder = tmp_path_factory.mktemp("warehouse")
    _impressions(spark).write.partitionBy("dt").parquet(str(folder / "impressions"))
    return folder


@pytest.fixture
def shop(warehouse: Path, tmp_path: Path) -> Path:
    """A copy of the warehouse with its mapping."""
    shutil.copytree(warehouse, tmp_path / "shop")
    write_dimensions(tmp_path / "shop")
    (tmp_path / "shop" / "mapping.toml").write_text(LOCATIONS + EVENT_COLUMNS + DIMENSIONS)
    return tmp_path / "shop"


def _open(shop: Path) -> TableSource:
    return TableSource(shop, date(2026, 3, 1), now=lambda: NOW)


def _ids(frame: DataFrame) -> list[str]:
    return sorted(row[0] for row in frame.select(frame.columns[1]).collect())


def test_one_day_of_a_partitioned_table_is_read_and_no_other(spark: SparkSession, shop: Path) -> None:
    for file in (shop / "impressions" / "dt=2026-03-03").glob("*.parquet"):
        file.write_bytes(b"broken")
    source = _open(shop)
    events = source.impressions(spark, DAY)
    accepted = parse_impressions(events, source.creatives(spark), user_key="key").accepted.collect()
    assert [(row["impression_id"], row["position"], row["source_file"]) for row in accepted] == [
        ("i2", 2, "impressions")
    ]
    assert len(accepted[0]["user_id"]) == 32
    # A day without rows is no error of the source.
    assert source.impressions(spark, date(2026, 3, 5)).count() == 0


def test_payload_has_the_mapped_columns_of_a_wide_table(spark: SparkSession, shop: Path) -> None:
    (event,) = _open(shop).impressions(spark, DAY).collect()
    assert event["payload"] == '{"ad":"c1","imp":"i2","item":"p1","pos":2,"ts":"2026-03-02 10:00:00","who":7}'


def test_a_registered_table_is_read_by_the_date_of_a_timestamp(spark: SparkSession, shop: Path) -> None:
    assert _ids(_open(shop).clicks(spark, DAY)) == ["k0", "k1"]


def test_a_delta_table_by_text_in_its_own_form(spark: SparkSession, shop: Path) -> None:
    rows = _impressions(spark).withColumn("dt", F.regexp_replace("dt", "-", "").cast("int"))
    rows.write.format("delta").partitionBy("dt").save(str(shop / "delta"))
    edit(shop / "mapping.toml", 'format = "parquet"\npath = "impressions"', 'format = "delta"\npath = "delta"')
    with pytest.raises(ValueError, match=r"day_column 'dt' is of type int: name one of type date, .*%Y%m%d"):
        _open(shop).impressions(spark, DAY)
    edit(shop / "mapping.toml", 'day_column = "dt"', 'day_column = "dt"\nday_format = "%Y%m%d"')
    assert _ids(_open(shop).impressions(spark, DAY)) == ["i2"]


def test_pairs_of_a_table_by_day(spark: SparkSession, shop: Path) -> None:
    pairs = spark.createDataFrame(PAIRS).withColumn("dt", F.lit(DAY))
    pairs.write.parquet(str(shop / "pairs"))
    with (shop / "mapping.toml").open("a") as mapping:
        mapping.write('[preference_pairs]\nformat = "parquet"\npath = "pairs"\nday_column = "dt"\n' + PAIR_COLUMNS)
    today, tomorrow = (_open(shop).ready_pairs(spark, day) for day in (DAY, date(2026, 3, 3)))
    assert today is not None
    assert tomorrow is not None
    assert (today.count(), tomorrow.count()) == (2, 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('path = "impressions"', 'path = "nowhere"', r"\[impressions\] 'nowhere' cannot be read: .*PATH_NOT_FOUND"),
        ('format = "parquet"', 'format = "parkett"', r"\[impressions\] .*Failed to find the data source: parkett"),
        ('user_id = "who"', 'user_id = "whom"', r"impressions has no column 'whom' .*\(did you mean 'who'\?\)"),
        ('day_column = "dt"', 'day_column = "ds"', r"impressions has no column 'ds' that mapping.toml names in"),
        ('day_column = "dt"', 'day_column = "pos"', r"day_column 'pos' is of type int"),
        (
            'path = "impressions"',
            'path = "impressions"\noptions = {password = "env:OSMF_TEST_UNSET"}',
            r"option password is read from the environment, where OSMF_TEST_UNSET is not set",
        ),
    ],
)
def test_what_is_wrong_is_named(spark: SparkSession, shop: Path, old: str, new: str, message: str) -> None:
    edit(shop / "mapping.toml", old, new)
    with pytest.raises(ValueError, match=message):
        _open(shop).impressions(spark, DAY)


def test_an_unknown_table_and_a_broken_one_are_named(spark: SparkSession, shop: Path) -> None:
    edit(shop / "mapping.toml", "osmf_test_clicks", "osmf_no_clicks")
    with pytest.raises(ValueError, match=r"\[clicks\] 'osmf_no_clicks' cannot be read: .*TABLE_OR_VIEW_NOT_FOUND"):
        _open(shop).clicks(spark, DAY)
    for file in (shop / "impressions").rglob("*.parquet"):
        file.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"\[impressions\] 'impressions' cannot be read: .*CANNOT_READ_FILE_FOOTER"):
        _open(shop).impressions(spark, DAY)


def test_an_option_is_taken_from_the_environment(
    spark: SparkSession, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSMF_TEST_GLOB", "dt=2026-03-03*")
    options = 'options = {recursiveFileLookup = false, pathGlobFilter = "env:OSMF_TEST_GLOB"}'
    edit(shop / "mapping.toml", 'path = "impressions"', f'path = "impressions"\n{options}')
    with pytest.raises(ValueError, match="UNABLE_TO_INFER_SCHEMA"):
        _open(shop).impressions(spark, DAY)
    monkeypatch.setenv("OSMF_TEST_GLOB", "*.parquet")
    assert _ids(_open(shop).impressions(spark, DAY)) == ["i2"]


@pytest.mark.parametrize(
    ("hour", "settle_hours", "last"),
    [(5, "", date(2026, 3, 8)), (6, "", date(2026, 3, 9)), (0, "settle_hours = 0", date(2026, 3, 9))],
)
def test_days_are_those_that_have_settled(shop: Path, hour: int, settle_hours: str, last: date) -> None:
    (shop / "mapping.toml").write_text(f"{settle_hours}\n{(shop / 'mapping.toml').read_text()}")
    source = TableSource(shop, date(2026, 3, 1), now=lambda: datetime(2026, 3, 10, hour, tzinfo=UTC))
    assert source.days() == [date(2026, 3, day) for day in range(1, last.day + 1)]
    assert source.delivery_of(last) == ""


def test_there_are_no_days_before_the_first(shop: Path) -> None:
    assert TableSource(shop, date(2026, 3, 10), now=lambda: NOW).days() == []


def test_a_day_that_has_not_settled_is_not_read(spark: SparkSession, shop: Path) -> None:
    source = TableSource(shop, date(2026, 3, 1), now=lambda: datetime(2026, 3, 3, 5, 59, tzinfo=UTC))
    with pytest.raises(ValueError, match=r"settle at 2026-03-03 06:00 UTC, 6 hours after its end"):
        source.impressions(spark, DAY)


def test_settings_open_a_table_source_with_their_first_date(shop: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, source="table", source_path=shop, first_date=date(2026, 3, 1))
    assert open_source(settings).days()[0] == date(2026, 3, 1)
