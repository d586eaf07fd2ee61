"""What the simulator says it spoilt is what the pipeline's ledgers say they found, for every kind, to the event."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.mess import USUAL
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.lake import Lake
from osmf_pipelines.spark.simulate_logs import Logs, simulate_logs
from tests.lake.jobs import run_job

pytestmark = pytest.mark.slow
FIRST_DAY, NUM_DAYS, MISSING, HALF = date(2026, 3, 2), 6, 1, 3
LOOKBACK_DAYS = 3  # the default of OSMF_CLICK_LOOKBACK_DAYS
QUARANTINED = {
    "missing_user_id": ["impression without a user"],
    "unknown_creative": ["impression of an unknown creative"],
    "position_below_1": ["impression at position 0"],
    "outside_source_date": ["impression by a wrong clock", "impression delivered again a day later"],
    "missing_impression_id": ["click without an impression id"],
    "conflicting_duplicate": ["impression told in two ways", "click told in two ways"],
}


@pytest.fixture(scope="module")
def told_and_lake(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Counter[Any], Lake]:
    """Six days, one missing and one half there, ingested around the missing one: what was written, and the lake."""
    root: Path = tmp_path_factory.mktemp("mess")
    market = easy_market(3, num_products_per_scope=4, num_creatives_per_product=4, num_users=3_000)
    mess = replace(USUAL, late_share=0.03, missing_days=(MISSING,), half_days=(HALF,))
    logs = Logs(FIRST_DAY, NUM_DAYS, impressions_per_day=120_000, seed=3, mess=mess)
    simulate_logs(spark, market, root / "market", logs)
    settings = Settings(home=root / "home", source_path=root / "market/drop", first_date=FIRST_DAY)
    instance = dg.DagsterInstance.ephemeral()
    for first, last in ((0, MISSING - 1), (MISSING + 1, NUM_DAYS - 1)):
        days = (FIRST_DAY + timedelta(days=first), FIRST_DAY + timedelta(days=last))
        assert run_job(settings, "ingest_days", *days, instance=instance).success
    return _told(root / "market/truth/events.json"), LakeResource(settings).lake


def _told(path: Path) -> Counter[Any]:
    """Delivered rows by kind; clicks by kind and age in days."""
    told: Counter[Any] = Counter()
    for day, logs in json.loads(path.read_text())["written"].items():
        if day != "not delivered":
            told.update(logs["impressions"])
            told.update({(kind, int(age)): n for kind, ages in logs["clicks"].items() for age, n in ages.items()})
    return told


def _found(lake: Lake, table: str, event_type: str) -> dict[str, int]:
    rows = lake.read(table).where(F.col("event_type") == event_type).groupBy("outcome").sum("num_events").collect()
    return {row["outcome"]: row["sum(num_events)"] for row in rows}


def _clicks(told: Counter[Any], *kinds: str, ages: range = range(NUM_DAYS + 1)) -> int:
    return sum(told[kind, age] for kind in kinds for age in ages)


def test_every_kind_of_mess_occurred(told_and_lake):
    told, _ = told_and_lake
    kinds = {kind for names in QUARANTINED.values() for kind in names if kind.startswith("impression")}
    assert all(told[kind] > 0 for kind in kinds | {"impression delivered twice", "impression shown to a bot"})
    assert told["click", 4] > 0
    assert told["click delivered again a day later", 1] > 0
    assert _clicks(told, "click on an undelivered impression") > 0


def test_impressions_come_to_what_was_told(told_and_lake):
    told, lake = told_and_lake
    quarantined = [kind for names in QUARANTINED.values() for kind in names if kind.startswith("impression")]
    assert _found(lake, "ingest_ledger", "impression") == {
        "kept": told["impression"] + told["impression shown to a bot"],
        "deduplicated": told["impression delivered twice"],
        "quarantined": sum(told[kind] for kind in quarantined),
    }
    assert _found(lake, "attribution_ledger", "impression") == {
        "exposure": told["impression"],
        "bot": told["impression shown to a bot"],
    }


def test_clicks_come_to_what_was_told(told_and_lake):
    told, lake = told_and_lake
    refused = _clicks(told, "click without an impression id", "click told in two ways")
    ingested = _found(lake, "ingest_ledger", "click")
    assert ingested["deduplicated"] == _clicks(told, "click delivered twice")
    assert ingested["quarantined"] == refused
    assert sum(ingested.values()) == sum(number for kind, number in told.items() if isinstance(kind, tuple))
    in_time, final, gone = range(LOOKBACK_DAYS + 1), range(LOOKBACK_DAYS + 1, LOOKBACK_DAYS + 2), range(5, NUM_DAYS + 1)
    again = "click delivered again a day later"
    right = ("click", "second click on an impression", again)
    assert _found(lake, "attribution_ledger", "click") == {
        "attributed": _clicks(told, "click", ages=in_time),
        "repeat": _clicks(told, "second click on an impression", ages=in_time),
        "duplicate": _clicks(told, again, ages=in_time),
        "past_lookback": _clicks(told, *right, ages=final),
        "orphan": _clicks(told, "click without an impression", "click on an undelivered impression")
        + _clicks(told, *right, ages=gone),
        "before_impression": _clicks(told, "click before its impression"),
        "outside_window": _clicks(told, "click a day after its impression"),
        "bot": _clicks(told, "click of a bot"),
        "conflict": 0,
    }


def test_each_refused_event_has_its_reason(told_and_lake):
    told, lake = told_and_lake
    reasons = lake.read("quarantined_events").select(F.explode("reasons").alias("reason"))
    found = {row["reason"]: row["count"] for row in reasons.groupBy("reason").count().collect()}
    assert found == {
        reason: sum(told[kind] + _clicks(told, kind) for kind in kinds) for reason, kinds in QUARANTINED.items()
    }
