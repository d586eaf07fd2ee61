"""The drop folder that Spark writes, against the truth that it was drawn from."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import functions as F
from scipy.stats import chi2

from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import load_market, segment_shares_of
from osmf_models.simulator.mess import CLICK_KINDS, IMPRESSION_KINDS, USUAL, Mess
from osmf_models.simulator.pictures import creative_pixels
from osmf_models.simulator.serving import Policy
from osmf_models.simulator.truth import true_ctr
from osmf_pipelines.spark import simulate_logs as module
from osmf_pipelines.spark.simulate_logs import Logs, simulate_logs

START = date(2026, 3, 1)
NUM_PER_DAY = 100_000
LOGS = Logs(START, num_days=2, impressions_per_day=NUM_PER_DAY, seed=4, mess=Mess(duplicate_share=0.002))


@pytest.fixture(scope="module")
def market():
    return easy_market(11, num_products_per_scope=6, num_creatives_per_product=4, num_users=5_000)


@pytest.fixture(scope="module")
def output(spark, market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "easy"
    simulate_logs(spark, market, folder, LOGS)
    return folder


def read_days(spark, folder, name):
    return spark.read.parquet(*[str(path / f"{name}.parquet") for path in sorted((folder / "drop/days").iterdir())])


def hashes_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def told(folder: Path, log: str) -> dict[str, int]:
    """How many rows of each kind OUTPUT/truth/events.json tells, undelivered ones apart."""
    written = json.loads((folder / "truth/events.json").read_text())["written"]
    counts: dict[str, int] = {}
    for day, of_day in written.items():
        for kind, count in of_day.get(log, {}).items():
            if day != "not delivered":
                counts[kind] = counts.get(kind, 0) + (sum(count.values()) if isinstance(count, dict) else count)
    return counts


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
    assert clicks.join(shown, "imp_id").where("clicks.ts <= impressions.ts").count() == 0


def test_clicks_follow_the_truth_in_every_segment_creative_and_position(spark, market, output):
    """Files, joined again by their ids, against rates measured on the pictures."""
    impressions = read_days(spark, output, "impressions").distinct()
    clicks = read_days(spark, output, "clicks").select("imp_id").distinct().withColumn("clicked", F.lit(1))
    users = spark.read.parquet(str(output / "drop/dimensions/users.parquet"))
    names = sorted(attribute.name for attribute in market.population.attributes)
    cell = F.concat_ws("|", *[F.concat(F.lit(f"{name}="), F.col(name)) for name in names])
    counts = (
        impressions.join(clicks, "imp_id", "left")
        .join(users, "uid")
        .groupBy(cell.alias("cell"), "item", "ad", "pos")
        .agg(F.count("*").alias("n"), F.count("clicked").alias("k"))
        .toPandas()
    )
    counts["scope"] = counts.item.str.split("-").str[0]
    keys = set(zip(counts.scope, counts.cell, strict=True))
    segments = {key: next(iter(segment_shares_of(market, *key))) for key in keys}
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


def test_the_same_seed_gives_the_same_bytes_whatever_the_partitioning(spark, market, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 20_000)
    for tasks in (1, 3):
        monkeypatch.setattr(module, "_TASKS_PER_CORE", tasks)
        simulate_logs(spark, market, tmp_path / str(tasks), LOGS)
    one, other = (hashes_of(tmp_path / name / "drop") for name in ("1", "3"))
    assert one == other
    assert sum("impressions.parquet/of-2026-03-01-0000" in name and "again" not in name for name in one) == 5


def test_another_seed_gives_other_logs_and_another_market_seed_other_pictures(spark, market, output, tmp_path):
    simulate_logs(spark, market, tmp_path / "logs", replace(LOGS, seed=5, num_days=1))
    one, other = hashes_of(output / "drop"), hashes_of(tmp_path / "logs/drop")
    same = {name for name in other if one.get(name) == other[name]}
    assert {name.split("/")[0] for name in same} == {"pictures", "dimensions", "mapping.toml", "days"}
    assert all(name.endswith("_SUCCESS") for name in same if name.startswith("days/"))
    pixels = [creative_pixels(easy_market(seed, num_products_per_scope=1), "bag-000") for seed in (11, 12)]
    assert not np.array_equal(*pixels)


def test_a_run_that_was_interrupted_goes_on_and_ends_with_the_same_bytes(spark, market, output, tmp_path, monkeypatch):
    folder, parts = tmp_path / "interrupted", []

    def stop(name, share):
        parts.append(name)
        if name == "2026-03-02":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_logs(spark, market, folder, LOGS, stop)
    assert not (folder / "drop/days/2026-03-02/_SUCCESS").exists()
    with pytest.raises(ValueError, match="holds no part of these logs"):
        simulate_logs(spark, market, folder, replace(LOGS, seed=9))
    again = []
    simulate_logs(spark, market, folder, LOGS, lambda name, share: again.append(name))
    assert "2026-03-01" not in again
    assert hashes_of(folder / "drop") == hashes_of(output / "drop")


def test_a_greedy_shop_shows_what_was_clicked_and_logs_its_propensities(spark, market, tmp_path):
    logs = replace(LOGS, policy=Policy("epsilon_greedy", epsilon=0.4))
    simulate_logs(spark, market, tmp_path / "greedy", logs)
    days = [
        spark.read.parquet(str(tmp_path / f"greedy/drop/days/2026-03-0{number}/impressions.parquet")).distinct()
        for number in (1, 2)
    ]
    assert {row[0] for row in days[0].select("p").distinct().collect()} == {0.25}
    second = days[1].groupBy("item", "ad").agg(F.count("*").alias("n"), F.max("p").alias("p")).toPandas()
    assert sorted(second.p.round(6).unique()) == [0.1, 0.7]
    assert (second.groupby("item").p.sum().round(6) == 1).all()
    share = second.n / second.groupby("item").n.transform("sum")
    assert np.abs(share - second.p).max() < 0.05
    first = days[0].join(read_days(spark, tmp_path / "greedy", "clicks").select("imp_id", "click"), "imp_id", "left")
    rates = first.groupBy("item", "ad").agg((F.count("click") / F.count("*")).alias("rate")).toPandas()
    both = second.merge(rates, on=["item", "ad"])
    ranks = both.groupby("item").rate.rank(ascending=False)
    assert ranks[both.p > 0.5].mean() < 1.2


def test_the_drop_folder_holds_what_its_mapping_says_and_the_truth_lies_apart(spark, market, output):
    drop = output / "drop"
    mapping = tomllib.loads((drop / "mapping.toml").read_text())
    for name, table in mapping.items():
        frame = spark.read.parquet(str(drop / table["files"].format(date="2026-03-01")))
        assert set(table["columns"].values()) | set(table.get("attributes", [])) <= set(frame.columns), name
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
        ({"impressions_per_day": -5}, "impressions_per_day -5"),
        ({"mess": Mess(num_bots=3)}, "fewer bots or more impressions"),
        ({"mess": Mess(half_days=(1,))}, "half_days names a day"),
        ({"policy": Policy("fixed", propensities=(0.5, 0.5))}, "2 propensities for 4 creatives"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(spark, market, tmp_path, changed, message):
    logs = replace(Logs(START, num_days=1, impressions_per_day=10, seed=0), **changed)
    with pytest.raises(ValueError, match=message):
        simulate_logs(spark, market, tmp_path / "out", logs)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(spark, market, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        simulate_logs(spark, market, tmp_path, Logs(START, num_days=1, impressions_per_day=10, seed=0))
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_mess_is_extra_and_counted(spark, market, output, tmp_path):
    """The same seed with and without a mess: the same right events, and beside them the wrong ones that are counted."""
    folder = tmp_path / "messy"
    simulate_logs(spark, market, folder, replace(LOGS, mess=replace(USUAL, redelivered_share=0.0)))

    impressions, clicks = read_days(spark, folder, "impressions"), read_days(spark, folder, "clicks")
    right = impressions.where("imp_id LIKE 'i%'")
    clean = read_days(spark, output, "impressions")
    assert right.exceptAll(clean).count() == clean.exceptAll(right).count() == 0

    for log, frame, column, kinds in (
        ("impressions", impressions, "imp_id", IMPRESSION_KINDS),
        ("clicks", clicks, "click", CLICK_KINDS),
    ):
        letters: dict[str, int] = {}
        for kind, count in told(folder, log).items():
            letters[kinds[kind]] = letters.get(kinds[kind], 0) + count
        found = frame.groupBy(F.substring(column, 1, 1).alias("letter")).count().collect()
        assert letters == {row["letter"]: row["count"] for row in found}
    wrong = told(folder, "impressions")
    assert wrong["impression shown to a bot"] == 2 * 3 * 1500
    assert wrong["impression without a user"] == impressions.where("uid IS NULL").count()
    assert wrong["impression at position 0"] == impressions.where("pos = 0").count()
    assert wrong["impression by a wrong clock"] == impressions.where("imp_id LIKE 's%'").count()
    orphans = clicks.join(impressions, "imp_id", "left_anti")
    assert told(folder, "clicks")["click without an impression"] == orphans.where("click LIKE 'o%'").count()
    # A late click lies in a later day's folder; those of the last day have not come yet.
    second = spark.read.parquet(str(folder / "drop/days/2026-03-02/clicks.parquet"))
    late = second.where("click LIKE 'c%' AND to_date(ts) = DATE'2026-03-01'").select("click").distinct().count()
    assert 0.005 < late / read_days(spark, output, "clicks").count() < 0.02


def test_days_that_are_missing_half_or_drifted_are_such(spark, market, output, tmp_path):
    folder = tmp_path / "bad"
    mess = Mess(duplicate_share=0.0, missing_days=(0,), half_days=(1,), drifted_days=(2,))
    simulate_logs(spark, market, folder, replace(LOGS, num_days=3, mess=mess))
    assert sorted(path.name for path in (folder / "drop/days").iterdir()) == ["2026-03-02", "2026-03-03"]
    half = spark.read.parquet(str(folder / "drop/days/2026-03-02/impressions.parquet"))
    assert 0.49 < half.count() / NUM_PER_DAY < 0.51
    drifted = spark.read.parquet(str(folder / "drop/days/2026-03-03/impressions.parquet"))
    assert "advert" in drifted.columns
    assert "ad" not in drifted.columns
    clicks = [spark.read.parquet(str(folder / f"drop/days/2026-03-0{number}/clicks.parquet")) for number in (2, 3)]
    known = half.select("imp_id").union(drifted.select("imp_id"))
    orphans = clicks[0].union(clicks[1]).join(known, "imp_id", "left_anti").count()
    assert 0 < orphans == told(folder, "clicks")["click on an undelivered impression"]
    assert clicks[0].count() < 0.6 * read_days(spark, output, "clicks").count() / 2
