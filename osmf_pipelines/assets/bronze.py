"""Events as the source delivers them: typed, one row per id, the refused ones kept with their reasons."""

from collections.abc import Iterator
from datetime import date
from functools import reduce
from statistics import median
from typing import Any

import dagster as dg

from osmf_pipelines.assets.publishing import Outcome, asset_specs, cached, check_specs, materialising, publish
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

_NAMES = ("bronze_impressions", "bronze_clicks", "quarantined_events", "ingest_ledger")
_EVENT_TYPES = {"bronze_impressions": "impression", "bronze_clicks": "click"}
_OUTCOMES = ("kept", "deduplicated", "quarantined")
_USUAL_DAYS = 7
Days = tuple[date, ...]
Counts = dict[date, dict[str, int]]


def build_bronze_asset(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Returns the asset that ingests the source's days."""

    @dg.multi_asset(
        name="ingest_events",
        specs=asset_specs(_NAMES, deps=["creatives"], group="events", partitions=partitions),
        check_specs=check_specs(_NAMES),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="spark",
    )
    def ingest_events(context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeResource]) -> Iterator[Outcome]:
        days = tuple(date.fromisoformat(key) for key in context.partition_keys)
        with materialising(context, lake, days):
            yield from _ingest(context, lake, days)

    return ingest_events


def _ingest(context: dg.AssetExecutionContext, resource: LakeResource, days: Days) -> Iterator[Outcome]:
    from osmf_pipelines.spark.ingest import count_by_day, ingest_events
    from osmf_pipelines.spark.quarantine import parse_clicks, parse_impressions

    lake, source, settings = resource.lake, resource.source, resource.settings
    pinned = lake.pin(["creatives"])
    read = {
        "bronze_impressions": reduce(_union, [source.impressions(lake.spark, day) for day in days]),
        "bronze_clicks": reduce(_union, [source.clicks(lake.spark, day) for day in days]),
    }
    parsed = {
        "bronze_impressions": parse_impressions(
            read["bronze_impressions"], pinned.read("creatives"), user_key=settings.user_key
        ),
        "bronze_clicks": parse_clicks(read["bronze_clicks"]),
    }
    events = {name: ingest_events(parsed[name], name) for name in read}
    with cached(*[frame for result in events.values() for frame in result.repeated]):
        counts = {}
        for name, result in events.items():
            rows = count_by_day(
                read=read[name], kept=result.bronze, quarantined=result.quarantined, deduplicated=result.duplicates
            ).collect()
            counts[name] = {row["source_date"]: row.asDict() for row in rows}
        common: dict[str, Any] = {"inputs": pinned.versions, "days": days}
        quarantined = _union(events["bronze_impressions"].quarantined, events["bronze_clicks"].quarantined)
        # Before the day can be refused: the evidence is there.
        yield from publish(context, resource, "quarantined_events", _stamped(quarantined), **common)
        usual = _usual_volumes(resource, days, counts["bronze_impressions"])
        for name, result in events.items():
            facts = [_facts(name, counts, day, usual, settings) for day in days]
            told = {outcome: sum(fact[f"num_{outcome}"] for fact in facts) for outcome in ("read", *_OUTCOMES)}
            yield from publish(context, resource, name, _stamped(result.bronze), facts=facts, metadata=told, **common)
        ledger = lake.spark.createDataFrame(list(_ledger_rows(counts, days)), TABLES["ingest_ledger"].ddl)
        yield from publish(context, resource, "ingest_ledger", ledger, **common)


def _union(first: Any, second: Any) -> Any:
    return first.unionByName(second)


def _stamped(frame: Any) -> Any:
    from pyspark.sql import functions as F

    return frame.withColumn("ingested_at", F.current_timestamp())


def _ledger_rows(counts: dict[str, Counts], days: Days) -> Iterator[tuple[date, str, str, int]]:
    for name, by_day in counts.items():
        for day in days:
            for outcome in _OUTCOMES:
                yield day, _EVENT_TYPES[name], outcome, by_day.get(day, {}).get(f"num_{outcome}", 0)


def _facts(
    name: str, counts: dict[str, Counts], day: date, usual: dict[date, float | None], settings: Settings
) -> dict[str, Any]:
    """What the suite of one bronze table wants to know of one day."""
    numbers = {f"num_{outcome}": counts[name].get(day, {}).get(f"num_{outcome}", 0) for outcome in ("read", *_OUTCOMES)}
    num_impressions = counts["bronze_impressions"].get(day, {}).get("num_read", 0)
    share = numbers["num_quarantined"] / max(numbers["num_read"], 1)
    typical = usual[day]
    volume_ratio = 1.0 if typical is None else num_impressions / typical
    return {
        **numbers,
        "source_date": str(day),
        "num_accounted": sum(numbers[f"num_{outcome}"] for outcome in _OUTCOMES),
        "quarantined_share": share,
        "quarantine_excess": max(share - settings.max_quarantined_share, 0.0),
        "num_impressions_read": num_impressions,
        "volume_ratio": volume_ratio,
        "volume_shortfall": max(settings.min_volume_ratio - volume_ratio, 0.0),
    }


def _usual_volumes(resource: LakeResource, days: Days, counts: Counts) -> dict[date, float | None]:
    """Impressions read on the days published before each day, their median; None where there is none."""
    volumes = {day: numbers["num_read"] for day, numbers in counts.items()}
    if resource.lake.exists("ingest_ledger"):
        published = resource.lake.read("ingest_ledger").where("event_type = 'impression'")
        rows = published.groupBy("source_date").sum("num_events").collect()
        volumes = {row["source_date"]: row["sum(num_events)"] for row in rows} | volumes
    usual: dict[date, float | None] = {}
    for day in days:
        before = [volumes[other] for other in sorted(volumes) if other < day][-_USUAL_DAYS:]
        usual[day] = float(median(before)) if before and median(before) > 0 else None
    return usual
