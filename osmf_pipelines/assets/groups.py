"""Groups, rates, pairs and the training export, as of a day: each reads the evidence window that ends with it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from osmf_pipelines.assets.metadata import as_table, picture
from osmf_pipelines.assets.plots import plot_ctr_by_position, plot_pair_probabilities, plot_volume_by_day
from osmf_pipelines.assets.publishing import Facts, Outcome, asset_specs, cached, check_specs, materialising, publish
from osmf_pipelines.partitions import evidence_days
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings

if TYPE_CHECKING:
    from osmf_pipelines.spark.lake import PinnedTables

Lake = dg.ResourceParam[LakeResource]
Compute = Callable[[dg.AssetExecutionContext, LakeResource, date], Iterator[Outcome]]


def build_group_assets(partitions: dg.DailyPartitionsDefinition, settings: Settings) -> list[dg.AssetsDefinition]:
    """Returns the assets from the groups to the preference pairs."""
    window = window_mapping(settings)
    stats, users = (dg.AssetDep(name, partition_mapping=window) for name in ("creative_stats", "cell_users"))
    return [
        as_of_asset(
            "form_groups",
            ("user_groups", "group_features"),
            [stats, users, "creative_features", "product_splits"],
            _form_groups,
            partitions,
        ),
        as_of_asset("group_lineage", ("group_lineage",), ["user_groups", users], _group_lineage, partitions),
        as_of_asset("group_ctr", ("group_ctr",), [stats, "user_groups", "product_splits"], _group_ctr, partitions),
        as_of_asset(
            "preference_pairs",
            ("preference_pairs",),
            ["group_ctr", "group_features", "creatives", "product_splits"],
            _preference_pairs,
            partitions,
        ),
    ]


def window_mapping(settings: Settings) -> dg.TimeWindowPartitionMapping:
    """Returns which days of logs an asset as of a day reads."""
    return dg.TimeWindowPartitionMapping(
        start_offset=1 - settings.evidence_window_days, allow_nonexistent_upstream_partitions=True
    )


def as_of_asset(
    name: str,
    tables: tuple[str, ...],
    deps: Sequence[str | dg.AssetDep],
    compute: Compute,
    partitions: dg.DailyPartitionsDefinition,
    group: str = "pairs",
) -> dg.AssetsDefinition:
    """Returns the asset that computes tables as of a day.

    Args:
        name: of the asset.
        tables: that it publishes.
        deps: what they are computed from.
        compute: publishes them.
        partitions: days.
        group: under which Dagster shows it.
    """

    @dg.multi_asset(
        name=name,
        specs=asset_specs(tables, deps=deps, group=group, partitions=partitions),
        check_specs=check_specs(tables),
        pool="spark",
    )
    def asset(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Outcome]:
        day = date.fromisoformat(context.partition_key)
        with materialising(context, lake, (day,)):
            yield from compute(context, lake, day)

    return asset


def _form_groups(context: dg.AssetExecutionContext, resource: LakeResource, day: date) -> Iterator[Outcome]:
    from osmf_pipelines.spark.group import (
        count_suppressed_impressions,
        form_groups,
        list_group_features,
        list_scope_reports,
        list_user_groups,
    )
    from osmf_pipelines.spark.place_effects import fit_place_effects
    from osmf_pipelines.spark.stats import sum_by_day

    lake, settings = resource.lake, resource.settings
    pinned = lake.pin(("creative_stats", "cell_users", "creative_features", "product_splits"))
    days = evidence_days(day, settings.evidence_window_days)
    stats, splits = pinned.read("creative_stats", days), pinned.read("product_splits")
    formed = form_groups(
        stats,
        pinned.read("cell_users", days),
        pinned.read("creative_features"),
        splits,
        as_of_date=day,
        place_effects=fit_place_effects(stats),
        grouping=settings.grouping,
        min_users=settings.min_group_users,
        min_clicks=settings.min_group_clicks,
    )
    with cached(formed):
        reports = list_scope_reports(formed).drop("as_of_date").orderBy("scope").collect()
        user_groups = list_user_groups(formed)
        told = {
            "grouping": settings.grouping,
            "scopes": as_table([row.asDict() for row in reports]),
            "volume_by_day": picture(plot_volume_by_day(sum_by_day(stats)), "impressions and click rate by day"),
            "num_suppressed_impressions": count_suppressed_impressions(stats, user_groups),
        }

        def count_floor(candidate: Any) -> Facts:
            below = candidate.where(candidate["num_users"] < settings.min_group_users).count()
            held_out = _count_held_out_exemplars(candidate, lake.read("creatives"), splits)
            return [{"num_below_floor": below, "num_held_out_exemplars": held_out}]

        common: dict[str, Any] = {"inputs": pinned.versions, "days": (day,), "metadata": told}
        yield from publish(context, resource, "user_groups", user_groups, **common)
        features = list_group_features(formed)
        yield from publish(context, resource, "group_features", features, facts=count_floor, **common)


def _count_held_out_exemplars(group_features: Any, creatives: Any, splits: Any) -> int:
    from pyspark.sql import functions as F

    shown = group_features.select(F.explode(F.concat("top_creative_ids", "bottom_creative_ids")).alias("creative_id"))
    products = shown.join(creatives.select("creative_id", "product_id"), on="creative_id", how="left")
    return int(products.join(splits, on="product_id", how="left").where("split IS DISTINCT FROM 'train'").count())


def _group_lineage(context: dg.AssetExecutionContext, resource: LakeResource, day: date) -> Iterator[Outcome]:
    from pyspark.sql import functions as F

    from osmf_pipelines.spark.lineage import list_group_lineage

    pinned = resource.lake.pin(("user_groups", "cell_users"))
    groups = pinned.read("user_groups")
    before = groups.where(F.col("as_of_date") < F.lit(day)).agg(F.max("as_of_date")).collect()[0][0]
    frame = list_group_lineage(
        groups.where(F.col("as_of_date") == F.lit(day)),
        None if before is None else groups.where(F.col("as_of_date") == F.lit(before)),
        pinned.read("cell_users", evidence_days(day, resource.settings.evidence_window_days)),
        as_of_date=day,
        previous_as_of_date=before,
    )
    yield from publish(context, resource, "group_lineage", frame, inputs=pinned.versions, days=(day,))


def _group_ctr(context: dg.AssetExecutionContext, resource: LakeResource, day: date) -> Iterator[Outcome]:
    from osmf_pipelines.spark.ctr import group_ctr
    from osmf_pipelines.spark.place_effects import count_by_place, fit_place_effects

    pinned = resource.lake.pin(("creative_stats", "user_groups", "product_splits"))
    stats = pinned.read("creative_stats", evidence_days(day, resource.settings.evidence_window_days))
    effects = fit_place_effects(stats)
    frame = group_ctr(
        stats,
        pinned.read("user_groups", (day,)),
        pinned.read("product_splits"),
        as_of_date=day,
        place_effects=effects,
    )
    plot = plot_ctr_by_position(count_by_place(stats), effects.examination_rates)
    told = {"ctr_by_position": picture(plot, "click rate by position")}
    yield from publish(context, resource, "group_ctr", frame, inputs=pinned.versions, days=(day,), metadata=told)


def _preference_pairs(context: dg.AssetExecutionContext, resource: LakeResource, day: date) -> Iterator[Outcome]:
    from pyspark.sql import functions as F

    lake = resource.lake
    ready = resource.source.ready_pairs(lake.spark, day)
    pairs, told, pinned = _mined_pairs(resource, day) if ready is None else _ready_pairs(resource, day, ready)

    def count_faults(candidate: Any) -> Facts:
        ends = F.array_sort(F.array("chosen_creative_id", "rejected_creative_id"))
        both_ways = candidate.groupBy("group_id", ends.alias("ends")).count().where("count > 1").count()
        wrong = candidate.where("NOT is_scope_root").agg(F.avg(1 - F.col("chosen_better_probability"))).collect()[0][0]
        return [{"num_pairs_both_ways": both_ways, "expected_wrong_share": wrong or 0.0}]

    yield from publish(
        context,
        resource,
        "preference_pairs",
        pairs,
        inputs=pinned.versions,
        days=(day,),
        facts=count_faults,
        metadata=told,
    )


Pairs = tuple[Any, dict[str, Any], "PinnedTables"]


def _mined_pairs(resource: LakeResource, day: date) -> Pairs:
    """Pairs from the groups' click rates, and what is told of them."""
    from osmf_pipelines.spark.pairs import count_pairs, preference_pairs

    pinned = resource.lake.pin(("group_ctr", "product_splits"))
    rates, minimum = pinned.read("group_ctr", (day,)), resource.settings.min_pair_probability
    pairs = preference_pairs(rates, pinned.read("product_splits"), as_of_date=day, min_probability=minimum)
    counts = count_pairs(rates.where("NOT is_scope_root"), min_probability=minimum)
    told = {"pairs": "mined from clicks", **asdict(counts)}
    return pairs, {**told, **_plot_probabilities(pairs, minimum, counts.expected_wrong_share)}, pinned


def _ready_pairs(resource: LakeResource, day: date, ready: Any) -> Pairs:
    """Pairs that the source brought, and what is told of them."""
    from osmf_pipelines.spark.ready_pairs import take_ready_pairs

    pinned = resource.lake.pin(("group_features", "creatives", "product_splits"))
    groups = pinned.read("group_features", (day,))
    pairs = take_ready_pairs(ready, groups, pinned.read("creatives"), pinned.read("product_splits"), as_of_date=day)
    return pairs, {"pairs": "ready-made, from the source", **_plot_probabilities(pairs, 0.5, None)}, pinned


def _plot_probabilities(pairs: Any, minimum: float, wrong: float | None) -> dict[str, Any]:
    from osmf_pipelines.spark.pairs import count_by_probability

    plot = plot_pair_probabilities(count_by_probability(pairs), minimum, wrong)
    return {"pair_probabilities": picture(plot, "probabilities of the pairs kept")}
