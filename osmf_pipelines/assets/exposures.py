"""Exposures and their daily sums. Late clicks re-open the days that they touch, here and downstream."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import dagster as dg

from osmf_pipelines.assets.publishing import (
    Facts,
    Outcome,
    asset_specs,
    cached,
    check_specs,
    materialising,
    publish,
)
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

Days = tuple[date, ...]
Lake = dg.ResourceParam[LakeResource]
_SILVER = ("silver_exposures", "attribution_ledger")
_SILVER_INPUTS = ("bronze_impressions", "bronze_clicks", "users", "products")


def build_exposure_assets(partitions: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Returns the daily assets between bronze and the groups."""

    @dg.multi_asset(
        name="attribute_clicks",
        specs=asset_specs(_SILVER, deps=_SILVER_INPUTS, group="events", partitions=partitions),
        check_specs=check_specs(_SILVER),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="spark",
    )
    def attribute_clicks(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Outcome]:
        days = _days(context)
        with materialising(context, lake, days):
            yield from _attribute(context, lake, days)

    return [
        attribute_clicks,
        _daily("creative_stats", _creative_stats, partitions),
        _daily("cell_users", _cell_users, partitions),
    ]


def _daily(
    name: str,
    compute: Callable[[dg.AssetExecutionContext, LakeResource, Days], Iterator[Outcome]],
    partitions: dg.DailyPartitionsDefinition,
) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=name,
        specs=asset_specs([name], deps=["silver_exposures"], group="events", partitions=partitions),
        check_specs=check_specs([name]),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="spark",
    )
    def asset(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Outcome]:
        days = _days(context)
        with materialising(context, lake, days):
            yield from compute(context, lake, days)

    return asset


def _days(context: dg.AssetExecutionContext) -> Days:
    return tuple(date.fromisoformat(key) for key in context.partition_keys)


def _attribute(context: dg.AssetExecutionContext, resource: LakeResource, days: Days) -> Iterator[Outcome]:
    from osmf_pipelines.spark.attribute import days_to_read, days_touched, form_exposures, judge_clicks, set_clicks

    lake, settings = resource.lake, resource.settings
    pinned = lake.pin(_SILVER_INPUTS)
    window = {
        "attribution_window_hours": settings.attribution_window_hours,
        "click_lookback_days": settings.click_lookback_days,
    }
    bots = {"max_impressions_per_user_day": settings.max_impressions_per_user_day}
    impression_days, click_days = days_to_read(days, **window)
    impressions = pinned.read("bronze_impressions", impression_days)
    judged = judge_clicks(impressions, pinned.read("bronze_clicks", click_days), **window, **bots)
    of_days = pinned.read("bronze_impressions", days)
    exposures = form_exposures(
        of_days, judged, pinned.read("users"), pinned.read("products"), fold_key=settings.user_key, **bots
    )
    with cached(judged):
        ledger = _ledger(settings, days, of_days, pinned.read("bronze_clicks", days), judged)
        touched_days = days_touched(judged, days, click_lookback_days=settings.click_lookback_days)
        touched = {row["event_date"] for row in touched_days.collect()} - set(days)
        reopened = _published_days(resource, touched)
        with lake.claim("silver_exposures", reopened, run_id=context.run.run_id):
            if reopened:
                exposures = exposures.unionByName(set_clicks(lake.read("silver_exposures", reopened), judged))
            common: dict[str, Any] = {"inputs": pinned.versions, "days": days}

            def count_facts(candidate: Any) -> Facts:
                return _silver_facts(ledger, _exposures_by_day(candidate, judged), days)

            told = {name: sum(ledger[day, "click", name] for day in days) for name in _click_outcomes()}
            yield from publish(
                context,
                resource,
                "silver_exposures",
                exposures,
                facts=count_facts,
                reopened_days=reopened,
                metadata={"clicks": told},
                **common,
            )
    rows = [(day, kind, outcome, number) for (day, kind, outcome), number in sorted(ledger.items())]
    frame = lake.spark.createDataFrame([row for row in rows if row[2] != "read"], TABLES["attribution_ledger"].ddl)
    yield from publish(context, resource, "attribution_ledger", frame, **common)


def _published_days(resource: LakeResource, days: set[date]) -> Days:
    """Those of `days` that have exposures already; the others are judged when their own turn comes."""
    if not days or not resource.lake.exists("silver_exposures"):
        return ()
    published = resource.lake.read("silver_exposures", days).select("event_date").distinct().collect()
    return tuple(sorted(row["event_date"] for row in published))


Ledger = dict[tuple[date, str, str], int]


def _click_outcomes() -> tuple[str, ...]:
    from osmf_pipelines.spark.attribute import CLICK_OUTCOMES

    return CLICK_OUTCOMES


def _ledger(settings: Settings, days: Days, impressions: Any, clicks: Any, judged: Any) -> Ledger:
    """What became of each day's bronze rows, by (source_date, event_type, outcome); "read" is all of them."""
    from pyspark.sql import functions as F

    is_bot = F.col("num_user_impressions") > settings.max_impressions_per_user_day
    shown = impressions.groupBy("source_date").agg(
        F.count(F.lit(1)).alias("read"), F.count_if(is_bot).alias("bot"), F.count_if(~is_bot).alias("exposure")
    )
    read = clicks.groupBy("source_date").agg(F.count(F.lit(1)).alias("read"))
    came_to = judged.where(F.col("source_date").isin(list(days))).groupBy("source_date", "outcome").count()
    ledger: Ledger = {
        (day, event_type, name): 0
        for day in days
        for event_type, names in (("impression", ("read", "bot", "exposure")), ("click", ("read", *_click_outcomes())))
        for name in names
    }
    for event_type, counts in (("impression", shown), ("click", read)):
        for row in counts.collect():
            told = row.asDict()
            day = told.pop("source_date")
            ledger |= {(day, event_type, name): number for name, number in told.items()}
    ledger |= {(row["source_date"], "click", row["outcome"]): row["count"] for row in came_to.collect()}
    return ledger


def _exposures_by_day(exposures: Any, judged: Any) -> dict[date, dict[str, int]]:
    """Exposures of each day, those clicked, and the clicks that were attributed to the day."""
    from pyspark.sql import functions as F

    shown = exposures.groupBy("event_date").agg(
        F.count(F.lit(1)).alias("num_exposures"), F.count_if("is_clicked").alias("num_clicked_exposures")
    )
    attributed = judged.where(F.col("outcome") == "attributed").groupBy("event_date")
    clicks = attributed.agg(F.count(F.lit(1)).alias("num_attributed_clicks"))
    by_day = shown.join(clicks, on="event_date", how="outer").fillna(0)
    return {row["event_date"]: row.asDict() for row in by_day.collect()}


def _silver_facts(ledger: Ledger, exposures: dict[date, dict[str, int]], days: Days) -> list[dict[str, Any]]:
    facts = []
    for day in days:
        num_clicks = ledger[day, "click", "read"]
        of_day = exposures.get(day, {})
        facts.append(
            {
                "event_date": str(day),
                "num_impressions_read": ledger[day, "impression", "read"],
                "num_impressions_accounted": of_day.get("num_exposures", 0) + ledger[day, "impression", "bot"],
                "num_clicks_read": num_clicks,
                "num_clicks_accounted": sum(ledger[day, "click", name] for name in _click_outcomes()),
                "num_clicked_exposures": of_day.get("num_clicked_exposures", 0),
                "num_attributed_clicks": of_day.get("num_attributed_clicks", 0),
                "orphan_share": ledger[day, "click", "orphan"] / max(num_clicks, 1),
                "before_impression_share": ledger[day, "click", "before_impression"] / max(num_clicks, 1),
            }
        )
    return facts


def _creative_stats(context: dg.AssetExecutionContext, resource: LakeResource, days: Days) -> Iterator[Outcome]:
    from pyspark.sql import functions as F

    from osmf_pipelines.spark.stats import aggregate_creative_stats

    lake = resource.lake
    pinned = lake.pin(["silver_exposures"])
    since = lake.input_version("creative_stats", of="silver_exposures")
    stale = lake.days_reopened_since("silver_exposures", since) if since is not None else ()
    reopened = tuple(day for day in stale if day not in days)
    exposures = pinned.read("silver_exposures", (*days, *reopened))
    told: dict[str, int] = {}  # filled by `count_sums`, before it is shown

    def count_sums(candidate: Any) -> Facts:
        sums = candidate.groupBy("event_date").agg(
            F.sum("num_impressions").alias("num_impressions"), F.sum("num_clicks").alias("num_clicks")
        )
        is_evidence, is_clicked = F.col("model_version").isNull(), F.col("is_clicked")
        behind = exposures.groupBy("event_date").agg(
            F.count_if(is_evidence).alias("num_exposures"),
            F.count_if(is_evidence & is_clicked).alias("num_clicked_exposures"),
            F.count_if(~is_evidence).alias("num_drawn"),
        )
        rows = behind.join(sums, on="event_date", how="outer").fillna(0).collect()
        by_day = {row["event_date"]: row.asDict() for row in rows}
        told["num_impressions_of_drawn_creatives"] = sum(counts["num_drawn"] for counts in by_day.values())
        none = dict.fromkeys(("num_impressions", "num_clicks", "num_exposures", "num_clicked_exposures"), 0)
        return [none | by_day.get(day, {}) | {"event_date": str(day)} for day in (*days, *reopened)]

    with lake.claim("creative_stats", reopened, run_id=context.run.run_id):
        yield from publish(
            context,
            resource,
            "creative_stats",
            aggregate_creative_stats(exposures),
            inputs=pinned.versions,
            days=days,
            reopened_days=reopened,
            facts=count_sums,
            metadata=told,
        )


def _cell_users(context: dg.AssetExecutionContext, resource: LakeResource, days: Days) -> Iterator[Outcome]:
    from osmf_pipelines.spark.stats import list_cell_users

    pinned = resource.lake.pin(["silver_exposures"])
    frame = list_cell_users(pinned.read("silver_exposures", days))
    yield from publish(context, resource, "cell_users", frame, inputs=pinned.versions, days=days)
