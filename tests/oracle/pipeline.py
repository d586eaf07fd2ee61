"""The real pipeline over a random log: from a drop folder to preference pairs, every table collected."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.sources.files import FilesSource
from osmf_pipelines.spark.attribute import days_to_read, days_touched, form_exposures, judge_clicks
from osmf_pipelines.spark.ctr import group_ctr
from osmf_pipelines.spark.ingest import IngestedEvents, count_by_day, ingest_events
from osmf_pipelines.spark.pairs import PairCounts, count_pairs, preference_pairs
from osmf_pipelines.spark.place_effects import PlaceEffects
from osmf_pipelines.spark.quarantine import hash_user_id, parse_clicks, parse_impressions
from osmf_pipelines.spark.stats import aggregate_creative_stats
from osmf_pipelines.tables import TABLES
from tests.oracle.clicks import ClickRules
from tests.oracle.events import Line, Row
from tests.oracle.random_logs import Log

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAPPING = """
[impressions]
files = "{date}/impressions.jsonl"
[impressions.columns]
impression_id = "impression_id"
user_id = "user_id"
product_id = "product_id"
creative_id = "creative_id"
impressed_at = "impressed_at"
position = "position"
slot_type = "slot_type"
propensity = "propensity"
experiment_id = "experiment_id"
arm = "arm"
model_version = "model_version"
[clicks]
files = "{date}/clicks.jsonl"
columns = {click_id = "click_id", impression_id = "impression_id", clicked_at = "clicked_at"}
[users]
files = "users.jsonl"
columns = {user_id = "user_id"}
attributes = ["age", "home=city"]
[products]
files = "products.jsonl"
columns = {product_id = "product_id", scope = "scope"}
[creatives]
files = "creatives.jsonl"
columns = {creative_id = "creative_id", product_id = "product_id"}
"""


@dataclass(frozen=True)
class Events:
    """What the pipeline makes of a log's events.

    Attributes:
        bronze: the frames bronze_impressions and bronze_clicks, one row per (source_date, id).
        stats: the frame creative_stats.
        rows: per table, its rows with times in UTC; judged_clicks are bronze_clicks with event_date and outcome.
        ledger: events per (source_date, event_type, outcome): read, kept, quarantined or deduplicated.
    """

    bronze: dict[str, DataFrame]
    stats: DataFrame
    rows: dict[str, list[Row]]
    ledger: Counter


@dataclass(frozen=True)
class Preferences:
    """What the pipeline makes of creative_stats: rows of both tables, and the counts told beside the pairs."""

    group_ctr: list[Row]
    preference_pairs: list[Row]
    counts: PairCounts


def write_drop(log: Log, folder: Path) -> None:
    """Writes the log as a drop folder of JSON Lines."""
    folder.mkdir(parents=True)
    (folder / "mapping.toml").write_text(_MAPPING)
    for day in log.impressions:
        (folder / str(day)).mkdir()
        _write_lines(folder / str(day) / "impressions.jsonl", log.impressions[day])
        _write_lines(folder / str(day) / "clicks.jsonl", log.clicks[day])
        (folder / str(day) / "_SUCCESS").touch()
    users = ({"user_id": user, **attributes} for user, attributes in log.attributes_of_user.items())
    _write_lines(folder / "users.jsonl", users)
    products = ({"product_id": product, "scope": scope} for product, scope in log.scope_of_product.items())
    _write_lines(folder / "products.jsonl", products)
    creatives = ({"creative_id": name, "product_id": product} for name, product in log.product_of_creative.items())
    _write_lines(folder / "creatives.jsonl", creatives)


def run_events(spark: SparkSession, folder: Path, rules: ClickRules, *, user_key: str) -> Events:
    """Runs the pipeline from a drop folder to creative_stats."""
    source = FilesSource(folder)
    shown, clicked = (
        reduce(DataFrame.unionByName, (read(spark, day) for day in source.days())).localCheckpoint()
        for read in (source.impressions, source.clicks)
    )
    parsed_impressions = parse_impressions(shown, source.creatives(spark), user_key=user_key)
    impressions = ingest_events(parsed_impressions, "bronze_impressions")
    clicks = ingest_events(parse_clicks(clicked), "bronze_clicks")
    for frame in (*impressions.repeated, *clicks.repeated):
        frame.cache()
    bronze = {
        name: events.bronze.withColumn("ingested_at", F.current_timestamp()).localCheckpoint()
        for name, events in (("bronze_impressions", impressions), ("bronze_clicks", clicks))
    }
    judged = judge_clicks(*bronze.values(), **asdict(rules)).localCheckpoint()
    exposures = form_exposures(
        bronze["bronze_impressions"],
        judged,
        source.users(spark).withColumn("user_id", hash_user_id(F.col("user_id"), user_key)),
        source.products(spark),
        max_impressions_per_user_day=rules.max_impressions_per_user_day,
        fold_key=user_key,
    ).localCheckpoint()
    stats = aggregate_creative_stats(exposures).localCheckpoint()
    quarantined = impressions.quarantined.unionByName(clicks.quarantined).localCheckpoint()
    frames = {"quarantined_events": quarantined, **bronze, "judged_clicks": judged, "silver_exposures": exposures}
    frames["creative_stats"] = stats
    ledger = _count("impression", shown, impressions, quarantined) + _count("click", clicked, clicks, quarantined)
    for frame in (*impressions.repeated, *clicks.repeated):
        frame.unpersist()
    return Events(bronze, stats, {name: collect_rows(frame) for name, frame in frames.items()}, ledger)


def run_day(events: Events, day: date, last_day: date, rules: ClickRules) -> tuple[list[Row], set[date]]:
    """Returns the clicks that the run of a day judges while logs end with `last_day`, and the days that it re-opens."""
    window = {
        "attribution_window_hours": rules.attribution_window_hours,
        "click_lookback_days": rules.click_lookback_days,
    }
    is_there = F.col("source_date") <= F.lit(last_day)
    impressions, clicks = (
        frame.where(is_there & F.col("source_date").isin(list(days)))
        for frame, days in zip(events.bronze.values(), days_to_read([day], **window), strict=True)
    )
    judged = judge_clicks(impressions, clicks, **asdict(rules)).localCheckpoint()
    touched = days_touched(judged, [day], click_lookback_days=rules.click_lookback_days).collect()
    return collect_rows(judged), {row["event_date"] for row in touched}


def run_preferences(
    events: Events,
    effects: PlaceEffects,
    group_of_cell: dict[tuple[str, str], str],
    log: Log,
    *,
    as_of_date: date,
    fitted_splits: tuple[str, ...],
    min_probability: float,
) -> Preferences:
    """Runs the pipeline from creative_stats and given groups to pairs."""
    spark = events.stats.sparkSession
    groups = [(as_of_date, scope, cell, group) for (scope, cell), group in group_of_cell.items()]
    splits = [(product, log.scope_of_product[product], split) for product, split in log.split_of_product.items()]
    product_splits = spark.createDataFrame(splits, TABLES["product_splits"].ddl)
    rates = group_ctr(
        events.stats,
        spark.createDataFrame(groups, TABLES["user_groups"].ddl),
        product_splits,
        as_of_date=as_of_date,
        place_effects=effects,
        fitted_splits=fitted_splits,
    ).localCheckpoint()
    pairs = preference_pairs(rates, product_splits, as_of_date=as_of_date, min_probability=min_probability)
    return Preferences(collect_rows(rates), collect_rows(pairs), count_pairs(rates, min_probability=min_probability))


def collect_rows(frame: DataFrame) -> list[Row]:
    """Returns the rows as dictionaries, moments as UTC datetimes whatever zone this process is in."""
    moments = [name for name, type_ in frame.dtypes if type_ == "timestamp"]
    rows = frame.withColumns({name: F.unix_micros(name) for name in moments}).collect()
    return [
        {name: _moment(value) if name in moments else value for name, value in row.asDict().items()} for row in rows
    ]


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


def _count(event_type: str, read: DataFrame, events: IngestedEvents, quarantined: DataFrame) -> Counter:
    frames = {
        "read": read,
        "kept": events.bronze,
        "quarantined": quarantined.where(F.col("event_type") == event_type),
        "deduplicated": events.duplicates,
    }
    rows = count_by_day(**frames).collect()
    return Counter({(row["source_date"], event_type, name): row[f"num_{name}"] for row in rows for name in frames})


def _write_lines(path: Path, lines: Iterable[Line]) -> None:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
