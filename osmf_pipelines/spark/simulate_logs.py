"""Writes a simulated market as a team's own drop folder: logs by day, dimensions, pictures, and a mapping file.

OUTPUT/drop is what a source may read; OUTPUT/truth is kept apart and only evaluation reads it. Every random draw is a
hash of the seed, a name and the impression's number, so that the content does not depend on partitioning and a day
can be written without the days before it. Users and pictures belong in `simulated_users.py` and `simulated_drop.py`,
who likes what in `osmf_models.simulator`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_models.simulator.market import Market, cell_probabilities, creatives_of, save_market, segment_of
from osmf_models.simulator.pictures import creative_pixels
from osmf_models.simulator.truth import click_rates, measure_pictures
from osmf_pipelines.spark.simulated_drop import write_dimensions, write_pictures
from osmf_pipelines.spark.simulated_mess import CLEAN, KINDS, Mess, wrong_clicks, wrong_impressions
from osmf_pipelines.spark.simulated_users import Draws, cell_frame, num_partitions, user_id

SLOT_TYPE = "feed"
_DAY_SECONDS = 86_400
_MICROS = 1_000_000
_MEAN_DELAY_SECONDS = 45.0  # of an exponential, whose largest double is below half an hour
_LATE_SHARE = 0.01  # of the clicks, uniform over the hours after the impression
_LATE_HOURS = 5.0


@dataclass(frozen=True)
class _Plan:
    """What every day's events are drawn from.

    Attributes:
        creatives: one row per creative: creative_index, item, ad, scope_index.
        cells: one row per user: user_index, cell_index.
        segments: one row per (scope_index, cell_index): segment_index.
        rates: one row per (creative_index, segment_index): true click rate at position 1.
    """

    market: Market
    draws: Draws
    start_date: date
    impressions_per_day: int
    mess: Mess
    creatives: DataFrame
    cells: DataFrame
    segments: DataFrame
    rates: DataFrame


def simulate_logs(
    spark: SparkSession,
    market: Market,
    output: Path,
    *,
    start_date: date,
    num_days: int,
    impressions_per_day: int,
    seed: int,
    mess: Mess = CLEAN,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Writes `output`/drop and `output`/truth.

    A click is written in the folder of the day on which it happens, a late one in the next; what comes after the last
    day is not there yet. OUTPUT/truth/events.json counts what was written.

    Args:
        spark: session.
        market: what is sold, to whom, and who likes what.
        output: a folder that is empty or does not exist.
        start_date: first day of the logs (UTC).
        num_days: days to write.
        impressions_per_day: distinct impressions a day.
        seed: of the logs; the same seed gives the same rows.
        mess: what goes wrong in the logs, and how often.
        progress: called with one line of text after each step.

    Raises:
        ValueError: when a setting is impossible; nothing is written then.
    """
    _check(output, num_days, impressions_per_day)
    tell = progress or (lambda line: None)
    drop = output / "drop"
    save_market(market, output / "truth")
    write_pictures(market, drop)
    write_dimensions(spark, market, drop)
    tell(f"{len(market.products)} products, {market.num_creatives_per_product} pictures each, {market.num_users} users")
    plan = _make_plan(spark, market, start_date, impressions_per_day, seed, mess)
    counts = {}
    for day_index in range(num_days):
        started = time.monotonic()
        day = start_date + timedelta(days=day_index)
        counts[day.isoformat()] = _write_day(spark, plan, day_index, drop / "days" / day.isoformat())
        seconds = time.monotonic() - started
        tell(f"{day}: {impressions_per_day:,} impressions, day {day_index + 1} of {num_days}, {seconds:.1f} s")
    (output / "truth" / "events.json").write_text(json.dumps(counts, indent=1))


def _check(output: Path, num_days: int, impressions_per_day: int) -> None:
    if num_days < 1 or impressions_per_day < 1:
        raise ValueError(
            f"num_days is {num_days} and impressions_per_day is {impressions_per_day}: both must be at least 1."
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is not empty: name another folder or remove it.")


def _make_plan(
    spark: SparkSession, market: Market, start_date: date, impressions_per_day: int, seed: int, mess: Mess
) -> _Plan:
    creatives, rates = _creative_rates(market)
    segments = [
        (
            scope_index,
            cell_index,
            [segment.name for segment in scope.segments].index(segment_of(market, scope.name, cell)),
        )
        for scope_index, scope in enumerate(market.scopes)
        for cell_index, cell in enumerate(cell_probabilities(market))
    ]
    return _Plan(
        market,
        Draws(seed),
        start_date,
        impressions_per_day,
        mess,
        creatives=spark.createDataFrame(creatives),
        cells=cell_frame(spark, market),
        segments=spark.createDataFrame(pd.DataFrame(segments, columns=["scope_index", "cell_index", "segment_index"])),
        rates=spark.createDataFrame(rates),
    )


def _creative_rates(market: Market) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the creatives and their true click rates, as in `_Plan`, measured from the files' pixels."""
    scope_names = [scope.name for scope in market.scopes]
    creatives: list[tuple[int, str, str, int]] = []
    rates: list[tuple[int, int, float]] = []
    for product in market.products:
        measured = measure_pictures(market, product.product_id, creative_pixels(market, product.product_id) / 255.0)
        first = len(creatives)
        for number, creative in enumerate(creatives_of(market, product.product_id), first):
            creatives.append((number, product.product_id, creative.creative_id, scope_names.index(product.scope)))
        for segment_index, segment in enumerate(market.scope(product.scope).segments):
            found = click_rates(market, product.scope, segment.name, product.product_id, measured)
            rates += [(number, segment_index, float(rate)) for number, rate in enumerate(found, first)]
    return (
        pd.DataFrame(creatives, columns=["creative_index", "item", "ad", "scope_index"]),
        pd.DataFrame(rates, columns=["creative_index", "segment_index", "rate"]),
    )


def _events(spark: SparkSession, plan: _Plan, day_index: int) -> DataFrame:
    """Draws a day's impressions.

    Grain: one row per impression number.
    """
    market, draws, number = plan.market, plan.draws, F.col("id")
    first = day_index * plan.impressions_per_day
    num_creatives = len(market.products) * market.num_creatives_per_product
    midnight = _seconds_until(plan.start_date + timedelta(days=day_index))
    rows = spark.range(first, first + plan.impressions_per_day, 1, num_partitions(plan.impressions_per_day)).select(
        number.alias("number"),
        draws.index("user", number, market.num_users).alias("user_index"),
        draws.index("creative", number, num_creatives).alias("creative_index"),
        (draws.index("position", number, len(market.examination)) + 1).cast("int").alias("position"),
        ((_second_of_day(draws.uniform("time", number)) + midnight) * _MICROS).alias("impressed_micros"),
    )
    return rows.join(F.broadcast(plan.creatives), "creative_index", how="inner")


def _clicked(plan: _Plan, events: DataFrame) -> DataFrame:
    """Keeps the events that are clicked, with `clicked_micros`: probability = true rate · examination."""
    draws, number = plan.draws, F.col("number")
    known = (
        events.join(plan.cells, "user_index", how="inner")
        .join(F.broadcast(plan.segments), ["scope_index", "cell_index"], how="inner")
        .join(F.broadcast(plan.rates), ["creative_index", "segment_index"], how="inner")
    )
    examination = F.element_at(F.lit(list(plan.market.examination)), F.col("position"))
    clicked_micros = F.col("impressed_micros") + _click_delay_seconds(draws, number) * _MICROS
    return known.where(draws.uniform("click", number) < F.col("rate") * examination).withColumn(
        "clicked_micros", clicked_micros
    )


def _seconds_until(day: date) -> int:
    return (day - date(1970, 1, 1)).days * _DAY_SECONDS


def _second_of_day(uniform: Column) -> Column:
    """Fewest impressions around midnight, most around noon."""
    share = uniform + F.lit(0.6 / (2 * math.pi)) * F.sin(uniform * F.lit(2 * math.pi))
    return F.floor(share * (_DAY_SECONDS - 1)).cast("bigint")


def _click_delay_seconds(draws: Draws, number: Column) -> Column:
    is_late = draws.uniform("late", number) < _LATE_SHARE
    delay = draws.uniform("delay", number)
    usual = F.lit(1) - F.lit(_MEAN_DELAY_SECONDS) * F.log(F.lit(1.0) - delay)
    return F.floor(F.when(is_late, delay * F.lit(_LATE_HOURS * 3600)).otherwise(usual)).cast("bigint")


def _write_day(spark: SparkSession, plan: _Plan, day_index: int, folder: Path) -> dict[str, int]:
    """Writes one day's folder, its marker last; returns how many rows of which kind."""
    day = plan.start_date + timedelta(days=day_index)
    today = _events(spark, plan, day_index)
    impressions, clicks = folder / "impressions.parquet", folder / "clicks.parquet"
    _impressions(plan, today).write.parquet(str(impressions))
    delivered = _happened(plan, _seen_until(spark, plan, day_index), day).where(~_is_late(plan))
    if day_index > 0:
        yesterday = _seen_until(spark, plan, day_index - 1).where(_is_late(plan))
        delivered = delivered.unionByName(_happened(plan, yesterday, day - timedelta(days=1)))
    wrong = wrong_clicks(today, plan.draws, plan.mess, _seconds_until(day) * _MICROS)
    _clicks(plan, delivered, wrong).write.parquet(str(clicks))
    (folder / "_SUCCESS").touch()
    return _count_kinds(spark, {impressions: "imp_id", clicks: "click"})


def _seen_until(spark: SparkSession, plan: _Plan, day_index: int) -> DataFrame:
    """The impressions that a click of this day can follow."""
    today = _events(spark, plan, day_index)
    if day_index == 0:
        return today
    day = plan.start_date + timedelta(days=day_index)
    return today.unionByName(_last_hours(_events(spark, plan, day_index - 1), day))


def _happened(plan: _Plan, events: DataFrame, day: date) -> DataFrame:
    """The clicks on `events` that happen on `day`."""
    start = _seconds_until(day) * _MICROS
    return _clicked(plan, events).where(F.col("clicked_micros").between(start, start + _DAY_SECONDS * _MICROS - 1))


def _is_late(plan: _Plan) -> Column:
    return plan.draws.uniform("late delivery", F.col("number")) < plan.mess.late_share


def _count_kinds(spark: SparkSession, id_columns: dict[Path, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for path, column in id_columns.items():
        rows = spark.read.parquet(str(path)).groupBy(F.substring(column, 1, 1).alias("prefix")).count().collect()
        counts |= {KINDS[row["prefix"]]: row["count"] for row in rows}
    return counts


def _last_hours(events: DataFrame, day: date) -> DataFrame:
    """Keeps the events of the day before `day` from which a click can still come."""
    return events.where(F.col("impressed_micros") >= int(_seconds_until(day) - _LATE_HOURS * 3600) * _MICROS)


def _impressions(plan: _Plan, events: DataFrame) -> DataFrame:
    """Grain: one row per delivered impression; a few are delivered twice, a few are wrong."""
    seen = events.withColumns({"prefix": F.lit("i"), "uid": user_id(F.col("user_index"))})
    rows = _delivered(plan, seen, "impression").drop("delivery")
    return rows.unionByName(wrong_impressions(seen, plan.draws, plan.mess)).select(
        _event_id("prefix").alias("imp_id"),
        "uid",
        "item",
        "ad",
        F.timestamp_micros("impressed_micros").alias("ts"),
        F.col("position").alias("pos"),
        F.lit(SLOT_TYPE).alias("slot"),
        F.lit(1.0 / plan.market.num_creatives_per_product).alias("p"),
    )


def _clicks(plan: _Plan, clicked: DataFrame, wrong: DataFrame) -> DataFrame:
    """Grain: one row per delivered click; a few are delivered twice, a few are wrong."""
    right = clicked.select(F.lit("c").alias("prefix"), "number", F.lit("i").alias("imp_prefix"), "clicked_micros")
    return (
        _delivered(plan, right, "click")
        .drop("delivery")
        .unionByName(wrong)
        .select(
            _event_id("prefix").alias("click"),
            _event_id("imp_prefix").alias("imp_id"),
            F.timestamp_micros("clicked_micros").alias("ts"),
        )
    )


def _delivered(plan: _Plan, events: DataFrame, name: str) -> DataFrame:
    """Repeats the share of events that at-least-once delivery sends twice."""
    is_repeated = plan.draws.uniform(f"repeated {name}", F.col("number")) < plan.mess.duplicate_share
    return events.withColumn("delivery", F.explode(F.sequence(F.lit(1), F.lit(1) + is_repeated.cast("int"))))


def _event_id(prefix: str) -> Column:
    return F.concat(F.col(prefix), F.lpad(F.col("number").cast("string"), 12, "0"))
