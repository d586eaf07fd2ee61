from __future__ import annotations

import json
import tomllib
from datetime import date

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import functions as F
from scipy.stats import chi2

from osmf_models.simulator.market import load_market, segment_of
from osmf_models.simulator.pictures import creative_pixels
from osmf_models.simulator.truth import true_ctr
from osmf_pipelines.spark import simulate_logs as module
from osmf_pipelines.spark.simulate_logs import simulate_logs
from osmf_pipelines.spark.simulated_mess import KINDS, USUAL, Mess

START = date(2026, 3, 1)
NUM_PER_DAY = 100_000


@pytest.fixture(scope="session")
def output(spark, market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "easy"
    simulate_logs(spark, market, folder, start_date=START, num_days=2, impressions_per_day=NUM_PER_DAY, seed=4)
    return folder


def read_days(spark, folder, name):
    return spark.read.parquet(*[str(path / f"{name}.parquet") for path in sorted((folder / "drop/days").iterdir())])


def test_every_event_arrives_and_few_arrive_twice(spark, output):
    impressions = read_days(spark, output, "impressions")
    total, distinct = impressions.count(), impressions.distinct().count()
    assert distinct == 2 * NUM_PER_DAY == impressions.select("imp_id").distinct().count()
    assert 0.001 < total / distinct - 1 < 0.003
    clicks = read_days(spark, output, "clicks")
    assert clicks.distinct().count() == clicks.select("click").distinct().count()
    assert clicks.join(impressions, "imp_id", "left_anti").count() == 0


def test_a_click_lies_in_the_folder_of_its_day_and_after_its_impression(spark, output):
    crossed = 0
    for day in ("2026-03-01", "2026-03-02"):
        folder = output / "drop/days" / day
        assert (folder / "_SUCCESS").is_file()
        shown = spark.read.parquet(str(folder / "impressions.parquet"))
        assert shown.where(F.to_date("ts") != F.lit(day)).count() == 0
        clicks = spark.read.parquet(str(folder / "clicks.parquet"))
        assert clicks.where(F.to_date("ts") != F.lit(day)).count() == 0
        crossed += clicks.join(shown, "imp_id", "left_anti").count()
    assert crossed > 0
    clicks, shown = (read_days(spark, output, name).alias(name) for name in ("clicks", "impressions"))
    both = clicks.join(shown, "imp_id")
    assert both.where("clicks.ts <= impressions.ts").count() == 0


def test_clicks_follow_the_truth_in_every_segment_creative_and_position(spark, market, output):
    impressions = read_days(spark, output, "impressions").distinct()
    clicks = read_days(spark, output, "clicks").select("imp_id").distinct().withColumn("clicked", F.lit(1))
    users = spark.read.parquet(str(output / "drop/dimensions/users.parquet"))
    names = sorted(attribute.name for attribute in market.attributes)
    cell = F.concat_ws("|", *[F.concat(F.lit(f"{name}="), F.col(name)) for name in names])
    counts = (
        impressions.join(clicks, "imp_id", "left")
        .join(users, "uid")
        .groupBy(cell.alias("cell"), "item", "ad", "pos")
        .agg(F.count("*").alias("n"), F.count("clicked").alias("k"))
        .toPandas()
    )
    counts["scope"] = counts.item.str.split("-").str[0]
    segments = {key: segment_of(market, *key) for key in set(zip(counts.scope, counts.cell, strict=True))}
    counts["segment"] = [segments[key] for key in zip(counts.scope, counts.cell, strict=True)]
    truth = {}
    for product in market.products:
        images = creative_pixels(market, product.product_id) / 255.0
        for segment in market.scope(product.scope).segments:
            rates = true_ctr(market, product.scope, segment.name, product.product_id, images)
            truth |= {(segment.name, f"{product.product_id}-c{i:02d}"): rate for i, rate in enumerate(rates)}
    found = counts.groupby(["scope", "segment", "ad", "pos"], as_index=False)[["n", "k"]].sum()
    examined = np.array(market.examination)[found.pos - 1]
    rate = np.array([truth[key] for key in zip(found.segment, found.ad, strict=True)]) * examined
    expected = found.n * rate
    statistic = ((found.k - expected) ** 2 / (expected * (1 - rate))).sum()
    assert 0.001 < chi2.sf(statistic, len(found)) < 0.999
    assert 0.03 < found.k.sum() / (found.n * examined).sum() < 0.06


def test_content_does_not_depend_on_partitions_or_on_the_number_of_days(spark, market, output, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "num_partitions", lambda num_rows: 7)
    settings = {"start_date": START, "num_days": 1, "impressions_per_day": NUM_PER_DAY, "seed": 4}
    simulate_logs(spark, market, tmp_path / "again", **settings)
    for name in ("impressions", "clicks"):
        path = f"drop/days/2026-03-01/{name}.parquet"
        one = spark.read.parquet(str(output / path))
        other = spark.read.parquet(str(tmp_path / "again" / path))
        assert one.exceptAll(other).count() == 0
        assert other.exceptAll(one).count() == 0


def test_the_drop_folder_holds_what_its_mapping_says_and_the_truth_lies_apart(spark, market, output):
    drop = output / "drop"
    mapping = tomllib.loads((drop / "mapping.toml").read_text())
    for name, table in mapping.items():
        frame = spark.read.parquet(str(drop / table["files"].format(date="2026-03-01")))
        assert set(table["columns"].values()) | set(table.get("attributes", [])) == set(frame.columns), name
    creatives = spark.read.parquet(str(drop / "dimensions/creatives.parquet")).toPandas()
    assert len(creatives) == len(market.products) * 4
    pixels = np.asarray(Image.open(drop / creatives.picture[5]))
    np.testing.assert_array_equal(pixels, creative_pixels(market, creatives.item[5])[1])
    assert np.asarray(Image.open(drop / creatives["mask"][5])).shape == (32, 32)
    assert load_market(output / "truth") == market
    assert not list(drop.rglob("market.json"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_days": 0}, "num_days is 0"),
        ({"impressions_per_day": -5}, "impressions_per_day is -5"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(spark, market, tmp_path, changed, message):
    settings = {"start_date": START, "num_days": 1, "impressions_per_day": 10, "seed": 0} | changed
    with pytest.raises(ValueError, match=message):
        simulate_logs(spark, market, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(spark, market, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        simulate_logs(spark, market, tmp_path, start_date=START, num_days=1, impressions_per_day=10, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_mess_is_extra_and_counted(spark, market, output, tmp_path):
    """The same seed with and without a mess: the same right events, and beside them the wrong ones that are counted."""
    folder = tmp_path / "messy"
    settings = {"start_date": START, "num_days": 2, "impressions_per_day": NUM_PER_DAY, "seed": 4}
    simulate_logs(spark, market, folder, **settings, mess=USUAL)

    impressions, clicks = read_days(spark, folder, "impressions"), read_days(spark, folder, "clicks")
    right = impressions.where("imp_id LIKE 'i%'")
    assert right.exceptAll(read_days(spark, output, "impressions")).count() == 0
    assert right.count() == read_days(spark, output, "impressions").count()

    told = json.loads((folder / "truth/events.json").read_text())
    assert {
        kind: sum(day.get(kind, 0) for day in told.values()) for kind in KINDS.values() if "impression" in kind
    } == {
        "impression": right.count(),
        "impression shown to a bot": 2 * 3 * 1500,
        "impression without a user": impressions.where("uid IS NULL").count(),
        "impression told in two ways": 2 * impressions.where("imp_id LIKE 'x%'").select("imp_id").distinct().count(),
        "click without an impression": clicks.join(impressions, "imp_id", "left_anti").where("click LIKE 'o%'").count(),
        "click before its impression": clicks.alias("c")
        .join(impressions.distinct().alias("i"), "imp_id")
        .where("c.ts < i.ts")
        .count(),
    }
    # A late click lies in the next day's folder; those of the last day have not come yet.
    clean = read_days(spark, output, "clicks").select("click").distinct()
    missing = clean.join(clicks, "click", "left_anti")
    assert 0.005 < missing.count() / clean.count() < 0.02
    second = spark.read.parquet(str(folder / "drop/days/2026-03-02/clicks.parquet"))
    late = second.where("click LIKE 'c%' AND to_date(ts) = DATE'2026-03-01'").select("click").distinct().count()
    assert 0.005 < late / clean.count() < 0.02


def test_an_impossible_mess_is_refused():
    with pytest.raises(ValueError, match=r"duplicate_share is 1\.0"):
        Mess(duplicate_share=1.0)
