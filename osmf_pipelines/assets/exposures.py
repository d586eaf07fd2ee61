"""Exposures and their daily sums."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg

from osmf_pipelines.assets.publishing import Facts, Outcome, check_specs, publish, table_metadata
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.tables import TABLES

Days = tuple[date, ...]
_ONE_DAY = timedelta(days=1)


def build_exposure_assets(partitions: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Returns the daily assets between bronze and the groups."""
    return [
        _daily("silver_exposures", ("bronze_impressions", "bronze_clicks", "users", "products"), _silver, partitions),
        _daily("creative_stats", ("silver_exposures",), _creative_stats, partitions),
        _daily("cell_users", ("silver_exposures",), _cell_users, partitions),
    ]


def _daily(
    name: str,
    inputs: tuple[str, ...],
    compute: Callable[[LakeResource, Days], tuple[Any, Callable[[Any], Facts]]],
    partitions: dg.DailyPartitionsDefinition,
) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        deps=list(inputs),
        description=TABLES[name].grain,
        group_name="events",
        kinds={"spark", "delta"},
        metadata=table_metadata(name),
        check_specs=check_specs(name),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="spark",
    )
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeResource]) -> Iterator[Outcome]:
        days = tuple(date.fromisoformat(key) for key in context.partition_keys)
        frame, facts = compute(lake, days)
        yield from publish(context, lake, name, frame, inputs=inputs, days=days, facts=facts)

    return asset


def _silver(resource: LakeResource, days: Days) -> tuple[Any, Callable[[Any], Facts]]:
    """Exposures of `days`: a click may come the day after its impression, so the neighbouring days are read too."""
    from pyspark.sql import functions as F

    from osmf_pipelines.spark.attribute import attribute_clicks, filter_bots

    lake, settings = resource.lake, resource.settings
    around = tuple(sorted({neighbour for day in days for neighbour in (day - _ONE_DAY, day, day + _ONE_DAY)}))
    impressions = lake.read("bronze_impressions", around)
    clicks = lake.read("bronze_clicks", around)
    kept = filter_bots(impressions, clicks, max_impressions_per_user_day=settings.max_impressions_per_user_day)
    attributed = attribute_clicks(
        kept.impressions,
        kept.clicks,
        lake.read("users"),
        lake.read("products"),
        attribution_window_hours=settings.attribution_window_hours,
        fold_key=settings.user_key,
    )

    def count_ledger(candidate: Any) -> Facts:
        shown = {"read": impressions, "bot": kept.bot_impressions}
        counts = _count(days, "source_date", **shown) | _count(days, "event_date", exposures=candidate)
        outcome = F.col("outcome")
        ledger = {name: attributed.click_ledger.where(outcome == name) for name in _CLICK_OUTCOMES}
        clicked = _count(days, "source_date", read=clicks, bot=kept.bot_clicks, **ledger)
        return [_ledger(day, counts, clicked) for day in days]

    return attributed.exposures.where(F.col("event_date").isin(list(days))), count_ledger


_CLICK_OUTCOMES = ("attributed", "repeat", "outside_window", "orphan")


def _count(days: Days, column: str, **frames: Any) -> dict[tuple[str, date], int]:
    """Rows of each frame on each day."""
    from osmf_pipelines.spark.ingest import count_by_day

    inside = {name: frame.withColumnRenamed(column, "source_date") for name, frame in frames.items()}
    rows = count_by_day(**inside).collect()
    found = {(name, row["source_date"]): row[f"num_{name}"] for row in rows for name in frames}
    return {(name, day): found.get((name, day), 0) for name in frames for day in days}


def _ledger(day: date, shown: dict[tuple[str, date], int], clicked: dict[tuple[str, date], int]) -> dict[str, Any]:
    num_clicks = clicked["read", day]
    return {
        "event_date": str(day),
        "num_impressions_read": shown["read", day],
        "num_impressions_accounted": shown["exposures", day] + shown["bot", day],
        "num_clicks_read": num_clicks,
        "num_clicks_accounted": sum(clicked[name, day] for name in (*_CLICK_OUTCOMES, "bot")),
        "orphan_share": clicked["orphan", day] / max(num_clicks, 1),
    }


def _creative_stats(resource: LakeResource, days: Days) -> tuple[Any, Callable[[Any], Facts]]:
    from pyspark.sql import functions as F

    from osmf_pipelines.spark.stats import aggregate_creative_stats

    exposures = resource.lake.read("silver_exposures", days)

    def count_sums(candidate: Any) -> Facts:
        sums = candidate.agg(F.sum("num_impressions").alias("num_impressions"), F.sum("num_clicks").alias("num_clicks"))
        behind = exposures.agg(
            F.count(F.lit(1)).alias("num_exposures"), F.count_if("is_clicked").alias("num_clicked_exposures")
        )
        return [row.asDict() for row in sums.crossJoin(behind).collect()]

    return aggregate_creative_stats(exposures), count_sums


def _cell_users(resource: LakeResource, days: Days) -> tuple[Any, Callable[[Any], Facts]]:
    from osmf_pipelines.spark.stats import list_cell_users

    return list_cell_users(resource.lake.read("silver_exposures", days)), lambda _: ()
