"""Events as the source delivers them: typed, one row per id, the refused ones kept with their reasons."""

from collections.abc import Iterator
from datetime import date
from functools import reduce
from typing import Any

import dagster as dg

from osmf_pipelines.assets.publishing import Outcome, check_specs, publish, table_metadata
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.tables import TABLES

_NAMES = ("bronze_impressions", "bronze_clicks", "quarantined_events")


def build_bronze_asset(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Returns the asset that ingests the source's days."""

    @dg.multi_asset(
        name="ingest_events",
        specs=[
            dg.AssetSpec(
                name,
                deps=["creatives"],
                description=TABLES[name].grain,
                group_name="events",
                kinds={"spark", "delta"},
                metadata=table_metadata(name),
                partitions_def=partitions,
            )
            for name in _NAMES
        ],
        check_specs=[spec for name in _NAMES for spec in check_specs(name)],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="spark",
    )
    def ingest_events(context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeResource]) -> Iterator[Outcome]:
        days = tuple(date.fromisoformat(key) for key in context.partition_keys)
        yield from _ingest(context, lake, days)

    return ingest_events


def _ingest(context: dg.AssetExecutionContext, resource: LakeResource, days: tuple[date, ...]) -> Iterator[Outcome]:
    from pyspark.sql import functions as F

    from osmf_pipelines.spark.ingest import count_by_day, ingest_events
    from osmf_pipelines.spark.quarantine import parse_clicks, parse_impressions

    lake, source, settings = resource.lake, resource.source, resource.settings
    read = {
        "bronze_impressions": reduce(_union, [source.impressions(lake.spark, day) for day in days]),
        "bronze_clicks": reduce(_union, [source.clicks(lake.spark, day) for day in days]),
    }
    parsed = {
        "bronze_impressions": parse_impressions(
            read["bronze_impressions"], lake.read("creatives"), user_key=settings.user_key
        ),
        "bronze_clicks": parse_clicks(read["bronze_clicks"]),
    }
    events = {name: ingest_events(parsed[name], name) for name in read}
    ingested_at = F.current_timestamp()
    quarantined = _union(events["bronze_impressions"].quarantined, events["bronze_clicks"].quarantined)
    yield from publish(
        context, resource, "quarantined_events", quarantined.withColumn("ingested_at", ingested_at), days=days
    )
    for name, result in events.items():
        counts = count_by_day(
            read=read[name], kept=result.bronze, quarantined=result.quarantined, duplicates=result.duplicates
        )
        facts = [_ledger(row.asDict(), settings.max_quarantined_share) for row in counts.collect()]
        frame = result.bronze.withColumn("ingested_at", ingested_at)
        yield from publish(
            context, resource, name, frame, inputs=["creatives"], days=days, facts=facts, metadata=_totals(facts)
        )


def _union(first: Any, second: Any) -> Any:
    return first.unionByName(second)


def _ledger(counts: dict[str, Any], max_quarantined_share: float) -> dict[str, Any]:
    """The facts of one day."""
    share = counts["num_quarantined"] / max(counts["num_read"], 1)
    return {
        **counts,
        "source_date": str(counts["source_date"]),
        "num_accounted": counts["num_kept"] + counts["num_quarantined"] + counts["num_duplicates"],
        "quarantined_share": share,
        "quarantine_excess": max(share - max_quarantined_share, 0.0),
    }


def _totals(facts: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("num_read", "num_kept", "num_duplicates", "num_quarantined")
    return {name: sum(day[name] for day in facts) for name in names}
