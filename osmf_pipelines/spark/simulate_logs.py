"""Writes a simulated market as a team's own drop folder: logs by day, dimensions, pictures, and a mapping file.

OUTPUT/drop is what a source may read; OUTPUT/truth is kept apart and only evaluation reads it. Each task of Spark draws
a fixed range of impression numbers and writes its own Parquet files: they are the same to the byte whatever the
partitioning, and no event passes the driver. Users and pictures belong in `simulated_drop.py`, one file's columns in
`simulated_files.py`, who likes what in `osmf_models.simulator`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from osmf_models.simulator.events import Shop, draw_impressions, open_shop, rates_of_day
from osmf_models.simulator.market import Market, check_market, load_market, save_market
from osmf_models.simulator.mess import CLEAN, Mess, check_mess
from osmf_models.simulator.serving import UNIFORM, Policy, Serving, serve_day
from osmf_models.simulator.shapes import Array
from osmf_models.simulator.wrong_events import click_rows, count_clicks, count_impressions, deliveries, impression_rows
from osmf_pipelines.spark.simulated_drop import MAPPING_FILE_NAME, write_dimensions, write_pictures
from osmf_pipelines.spark.simulated_files import remove_unfinished, write_clicks, write_impressions

CHUNK_ROWS = 500_000
_TASKS_PER_CORE = 4
_SETTINGS, _EVENTS, _FINISHED = "settings.json", "events.json", "finished"
_NOT_DELIVERED, _UNFINISHED = "not delivered", ".unfinished"
_LAST_DAY = date(9998, 12, 31).toordinal()
_MAX_EVENTS = 10**12  # ids have twelve digits
_Counts = dict[str, Any]


@dataclass(frozen=True)
class Logs:
    """How a market's logs are written.

    Attributes:
        start_date: first day of the logs (UTC).
        num_days: days to write.
        impressions_per_day: right impressions a day.
        seed: of the logs; the same seed gives the same bytes.
        policy: which picture is shown.
        mess: what goes wrong, and how often.
    """

    start_date: date
    num_days: int
    impressions_per_day: int
    seed: int
    policy: Policy = UNIFORM
    mess: Mess = CLEAN


@dataclass(frozen=True)
class _Day:
    """What the tasks of one day are given."""

    shop: Shop
    mess: Mess
    num_days: int
    day_index: int
    rates: Array  # (C, S)
    serving: Serving
    drop: Path
    chunk_rows: int

    def is_delivered(self, day_index: int) -> bool:
        """Returns whether a day's log is delivered at all."""
        return 0 <= day_index < self.num_days and day_index not in self.mess.missing_days

    def name(self, day_index: int) -> str:
        """Returns under which name a day's rows are counted."""
        return self.shop.day(day_index).isoformat() if self.is_delivered(day_index) else _NOT_DELIVERED

    def folder(self, day_index: int) -> Path:
        """Returns the folder of a day's log."""
        return self.drop / "days" / self.shop.day(day_index).isoformat()


def simulate_logs(
    spark: SparkSession,
    market: Market,
    output: Path,
    logs: Logs,
    progress: Callable[[str, float], None] = lambda name, share: None,
) -> None:
    """Writes `output`/drop and `output`/truth; goes on at the day at which the same call was interrupted.

    A click is written in the folder of the day on which it happens, a late one in a later one; what comes after the
    last day is not there. OUTPUT/truth/events.json counts what was written, by day and kind.

    Args:
        spark: session; its workers must see `output`.
        market: what is sold, to whom, and who likes what.
        output: a folder that is empty, does not exist, or holds part of the same logs.
        logs: how many days of what.
        progress: called with the name of a part and how much of it is done, in [0, 1].

    Raises:
        ValueError: when a setting is impossible, or `output` holds something else; nothing is written then.
    """
    output = output.absolute()
    is_begun = check_request(market, output, logs)
    drop, truth = output / "drop", output / "truth"
    if (truth / _FINISHED).is_file():
        progress("is there already", 1.0)
        return
    if not is_begun:
        unfinished = output / f"truth{_UNFINISHED}"
        save_market(market, unfinished)
        (unfinished / _SETTINGS).write_text(_settings(logs))
        unfinished.rename(truth)
    remove_unfinished(drop)
    if not (drop / MAPPING_FILE_NAME).is_file():
        progress("pictures", 0.0)
        write_pictures(market, drop, lambda share: progress("pictures", share))
        write_dimensions(spark, market, drop)
    shop = open_shop(market, logs.seed, logs.start_date, logs.impressions_per_day)
    days: list[_Counts] = []
    for day_index in range(logs.num_days):
        days.append(_day_of_logs(spark, shop, logs, day_index, days, output, progress))
    report = _summed([{name: day[name] for name in ("right", "written")} for day in days])
    (truth / _EVENTS).write_text(json.dumps(report, indent=1, sort_keys=True))
    (truth / _FINISHED).touch()


def check_request(market: Market, output: Path, logs: Logs) -> bool:
    """Returns whether `output` holds a part of these very logs already.

    Raises:
        ValueError: when a setting is impossible, or `output` holds something else.
    """
    check_market(market)
    if min(logs.num_days, logs.impressions_per_day) < 1 or logs.seed < 0:
        raise ValueError(
            f"num_days is {logs.num_days}, impressions_per_day {logs.impressions_per_day} and seed {logs.seed}: "
            "there must be at least one day and one impression, and no negative seed."
        )
    if (
        logs.num_days * logs.impressions_per_day > _MAX_EVENTS
        or logs.num_days > _LAST_DAY - logs.start_date.toordinal()
    ):
        raise ValueError(
            f"{logs.num_days} days from {logs.start_date} with {logs.impressions_per_day} impressions each: "
            f"logs end before the year 9999 and hold at most {_MAX_EVENTS:,} impressions."
        )
    check_mess(logs.mess, logs.impressions_per_day, logs.num_days)
    none_yet = np.zeros((len(market.products), market.num_creatives_per_product))
    serve_day(logs.policy, none_yet.reshape(-1, 1), len(market.examination), none_yet, none_yet)
    if not output.exists() or (output.is_dir() and all(path.suffix == _UNFINISHED for path in output.iterdir())):
        return False
    settings = output / "truth" / _SETTINGS
    if settings.is_file() and settings.read_text() == _settings(logs) and load_market(settings.parent) == market:
        return True
    raise ValueError(f"{output} is not empty and holds no part of these logs: name another folder or remove it.")


def _settings(logs: Logs) -> str:
    return json.dumps(asdict(logs), indent=1, default=str)


def _day_of_logs(
    spark: SparkSession,
    shop: Shop,
    logs: Logs,
    day_index: int,
    days_before: list[_Counts],
    output: Path,
    progress: Callable[[str, float], None],
) -> _Counts:
    """Writes what comes of one day's impressions, marks its folder as complete, and returns its counts."""
    name = shop.day(day_index).isoformat()
    record = output / "truth" / "days" / f"{name}.json"
    if record.is_file():
        return dict(json.loads(record.read_text()))
    shown, clicked = _so_far(shop, days_before, "impressions"), _so_far(shop, days_before, "clicks")
    rates = rates_of_day(shop, day_index)
    day = _Day(
        shop,
        logs.mess,
        logs.num_days,
        day_index,
        rates,
        serve_day(logs.policy, rates, len(shop.market.examination), shown, clicked),
        output / "drop",
        CHUNK_ROWS,
    )
    counts = _summed(list(_run_tasks(spark, day, lambda share: progress(name, share))))
    if day.is_delivered(day_index):
        (day.folder(day_index) / "_SUCCESS").touch()
    record.parent.mkdir(exist_ok=True)
    unfinished = record.with_suffix(_UNFINISHED)
    unfinished.write_text(json.dumps(counts))
    unfinished.replace(record)
    return counts


def _so_far(shop: Shop, days_before: list[_Counts], what: str) -> Array:
    """Counts of each creative over the days before, (P, K)."""
    counts = np.zeros(len(shop.market.products) * shop.market.num_creatives_per_product)
    for day in days_before:
        counts += day["creatives"][what]
    return counts.reshape(len(shop.market.products), -1)


def _run_tasks(spark: SparkSession, day: _Day, progress: Callable[[float], None]) -> Iterator[_Counts]:
    """Draws and writes a day's impressions, a chunk a task; yields the counts of each."""
    num_chunks = -(-day.shop.impressions_per_day // day.chunk_rows)
    batch = _TASKS_PER_CORE * spark.sparkContext.defaultParallelism
    progress(0.0)
    for first in range(0, num_chunks, batch):
        last = min(first + batch, num_chunks)

        def write(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            for frame in frames:
                yield pd.DataFrame({"counts": [json.dumps(_write_chunk(day, int(chunk))) for chunk in frame["id"]]})

        chunks = spark.range(first, last, 1, last - first)
        for row in chunks.mapInPandas(write, schema="counts string").collect():
            yield json.loads(row["counts"])
        progress(last / num_chunks)


def _write_chunk(day: _Day, chunk: int) -> _Counts:
    """Draws and writes one chunk of a day's impressions; returns what it wrote, by day of delivery and kind."""
    shop, mess, index = day.shop, day.mess, day.day_index
    first, last = chunk * day.chunk_rows, min((chunk + 1) * day.chunk_rows, shop.impressions_per_day)
    numbers = index * shop.impressions_per_day + np.arange(first, last)
    events = draw_impressions(shop, day.rates, day.serving, numbers)
    written: list[_Counts] = []
    for delivered, part, shown in deliveries(impression_rows(shop, mess, events, index), index):
        if day.is_delivered(delivered):
            path = day.folder(delivered) / "impressions.parquet" / f"of-{shop.day(index)}-{chunk:05d}{part}.parquet"
            write_impressions(shown, shop, path, is_drifted=delivered in mess.drifted_days)
        written.append({day.name(delivered): {"impressions": count_impressions(shown)}})
    for delivered, part, clicks in deliveries(click_rows(shop, mess, events, index), index):
        if day.is_delivered(delivered):
            path = day.folder(delivered) / "clicks.parquet" / f"of-{shop.day(index)}-{chunk:05d}{part}.parquet"
            write_clicks(clicks, path)
        written.append({day.name(delivered): {"clicks": count_clicks(clicks)}})
    creatives = {
        "impressions": np.bincount(events.creative, minlength=len(day.rates)),
        "clicks": np.bincount(events.creative[events.is_clicked], minlength=len(day.rates)),
    }
    return {
        "right": {"impressions": len(numbers), "clicks": int(events.is_clicked.sum())},
        "written": _summed(written),
        "creatives": {name: counts.tolist() for name, counts in creatives.items()},
    }


def _summed(counts: list[_Counts]) -> _Counts:
    """Adds up nested counts, name by name; lists entry by entry."""
    total: _Counts = {}
    for part in counts:
        for name, value in part.items():
            if isinstance(value, dict):
                total[name] = _summed([total.get(name, {}), value])
            elif isinstance(value, list):
                total[name] = np.add(total.get(name, 0), value).tolist()
            else:
                total[name] = total.get(name, 0) + value
    return total
