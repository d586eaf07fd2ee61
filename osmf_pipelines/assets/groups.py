"""Groups, rates, pairs and the training export, as of a day: each reads the evidence window that ends with it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import dagster as dg

from osmf_pipelines.assets.publishing import Facts, Outcome, check_specs, publish, table_metadata
from osmf_pipelines.partitions import evidence_days
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

Lake = dg.ResourceParam[LakeResource]


def build_group_assets(partitions: dg.DailyPartitionsDefinition, settings: Settings) -> list[dg.AssetsDefinition]:
    """Returns the assets from the groups to the training export."""
    window = dg.TimeWindowPartitionMapping(
        start_offset=1 - settings.evidence_window_days, allow_nonexistent_upstream_partitions=True
    )
    stats = [dg.AssetDep(name, partition_mapping=window) for name in ("creative_stats", "cell_users")]

    @dg.multi_asset(
        name="form_groups",
        specs=[
            dg.AssetSpec(
                name,
                deps=[*stats, "creative_features", "product_splits"],
                description=TABLES[name].grain,
                group_name="pairs",
                kinds={"spark", "delta"},
                metadata=table_metadata(name),
                partitions_def=partitions,
            )
            for name in ("user_groups", "group_features")
        ],
        check_specs=[*check_specs("user_groups"), *check_specs("group_features")],
        pool="spark",
    )
    def form_groups(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Outcome]:
        yield from _form_groups(context, lake)

    @dg.asset(deps=[*stats[:1], "user_groups", "product_splits"], **_options("group_ctr", partitions))
    def group_ctr(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Outcome]:
        yield from _group_ctr(context, lake)

    @dg.asset(deps=["group_ctr", "product_splits"], **_options("preference_pairs", partitions))
    def preference_pairs(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Outcome]:
        yield from _preference_pairs(context, lake)

    return [form_groups, group_ctr, preference_pairs]


def build_export_asset(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Returns the asset that writes what models are trained on."""

    @dg.asset(deps=list(_EXPORTED), **_options("training_export", partitions))
    def training_export(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Outcome]:
        yield from _training_export(context, lake)

    return training_export


def _options(name: str, partitions: dg.DailyPartitionsDefinition) -> dict[str, Any]:
    return {
        "description": TABLES[name].grain,
        "group_name": "pairs",
        "kinds": {"spark", "delta"},
        "metadata": table_metadata(name),
        "check_specs": check_specs(name),
        "partitions_def": partitions,
        "pool": "spark",
    }


def _form_groups(context: dg.AssetExecutionContext, resource: LakeResource) -> Iterator[Outcome]:
    from osmf_pipelines.spark.group import form_groups, list_group_features, list_scope_reports, list_user_groups
    from osmf_pipelines.spark.place_effects import fit_place_effects

    lake, settings, day = resource.lake, resource.settings, date.fromisoformat(context.partition_key)
    inputs = ("creative_stats", "cell_users", "creative_features", "product_splits")
    days = evidence_days(day, settings.evidence_window_days)
    stats, splits = lake.read("creative_stats", days), lake.read("product_splits")
    formed = form_groups(
        stats,
        lake.read("cell_users", days),
        lake.read("creative_features"),
        splits,
        as_of_date=day,
        place_effects=fit_place_effects(stats),
        min_users=settings.min_group_users,
        min_clicks=settings.min_group_clicks,
    ).cache()
    reports = list_scope_reports(formed).drop("as_of_date").orderBy("scope").collect()
    told = {"scopes": _as_table([row.asDict() for row in reports])}

    def count_floor(candidate: Any) -> Facts:
        below = candidate.where(candidate["num_users"] < settings.min_group_users).count()
        held_out = _count_held_out_exemplars(candidate, lake.read("creatives"), splits)
        return [{"num_below_floor": below, "num_held_out_exemplars": held_out}]

    common: dict[str, Any] = {"inputs": inputs, "days": (day,), "metadata": told}
    yield from publish(context, resource, "user_groups", list_user_groups(formed), **common)
    yield from publish(context, resource, "group_features", list_group_features(formed), facts=count_floor, **common)
    formed.unpersist()


def _count_held_out_exemplars(group_features: Any, creatives: Any, splits: Any) -> int:
    from pyspark.sql import functions as F

    shown = group_features.select(F.explode(F.concat("top_creative_ids", "bottom_creative_ids")).alias("creative_id"))
    products = shown.join(creatives.select("creative_id", "product_id"), on="creative_id", how="left")
    return int(products.join(splits, on="product_id", how="left").where("split IS DISTINCT FROM 'train'").count())


def _group_ctr(context: dg.AssetExecutionContext, resource: LakeResource) -> Iterator[Outcome]:
    from osmf_pipelines.spark.ctr import group_ctr
    from osmf_pipelines.spark.place_effects import fit_place_effects

    lake, day = resource.lake, date.fromisoformat(context.partition_key)
    inputs = ("creative_stats", "user_groups", "product_splits")
    stats = lake.read("creative_stats", evidence_days(day, resource.settings.evidence_window_days))
    effects = fit_place_effects(stats)
    frame = group_ctr(
        stats,
        lake.read("user_groups", (day,)),
        lake.read("product_splits"),
        as_of_date=day,
        place_effects=effects,
    )
    yield from publish(context, resource, "group_ctr", frame, inputs=inputs, days=(day,))


def _preference_pairs(context: dg.AssetExecutionContext, resource: LakeResource) -> Iterator[Outcome]:
    from pyspark.sql import functions as F

    from osmf_pipelines.spark.pairs import count_pairs, preference_pairs

    lake, settings, day = resource.lake, resource.settings, date.fromisoformat(context.partition_key)
    rates = lake.read("group_ctr", (day,))
    minimum = settings.min_pair_probability
    pairs = preference_pairs(rates, lake.read("product_splits"), as_of_date=day, min_probability=minimum)
    counts = count_pairs(rates.where("NOT is_scope_root"), min_probability=minimum)
    wrong = counts.expected_wrong_share or 0.0

    def count_faults(candidate: Any) -> Facts:
        ends = F.array_sort(F.array("chosen_creative_id", "rejected_creative_id"))
        both_ways = candidate.groupBy("group_id", ends.alias("ends")).count().where("count > 1").count()
        return [{"num_pairs_both_ways": both_ways, "expected_wrong_share": wrong}]

    inputs = ("group_ctr", "product_splits")
    yield from publish(
        context,
        resource,
        "preference_pairs",
        pairs,
        inputs=inputs,
        days=(day,),
        facts=count_faults,
        metadata=asdict(counts),
    )


_EXPORTED = (
    "group_features",
    "group_ctr",
    "preference_pairs",
    "products",
    "product_splits",
    "creatives",
    "creative_features",
)


def _training_export(context: dg.AssetExecutionContext, resource: LakeResource) -> Iterator[Outcome]:
    from osmf_pipelines.spark.export import ExportInputs, write_export

    lake, day = resource.lake, date.fromisoformat(context.partition_key)
    as_of = dict.fromkeys(("group_features", "group_ctr", "preference_pairs"), (day,))
    inputs = ExportInputs(**{name: lake.read(name, as_of.get(name)) for name in _EXPORTED})
    folder = resource.settings.home / "exports" / str(day)
    versions = {name: lake.version(name) for name in _EXPORTED}
    manifest = write_export(inputs, folder, as_of_date=str(day), table_versions=versions)
    rows = []
    for name in sorted({file.table for file in manifest.files}):
        shards = [file for file in manifest.files if file.table == name]
        num_rows = sum(file.num_rows for file in shards)
        rows.append((day, name, num_rows, len(shards), manifest.data_hash, str(folder)))
    frame = lake.spark.createDataFrame(rows, TABLES["training_export"].ddl)
    is_training = inputs.preference_pairs["split"] == "train"
    exported = {row[1]: row[2] for row in rows}["preference_pairs"]
    facts = {
        "num_pairs_missing": _count_drawable(inputs) - exported,
        "num_training_pairs": inputs.preference_pairs.where(is_training).count(),
    }
    yield from publish(context, resource, "training_export", frame, inputs=_EXPORTED, days=(day,), facts=[facts])


def _count_drawable(inputs: Any) -> int:
    """Pairs whose two creatives have a picture and a mask."""
    drawable = [
        row["creative_id"]
        for row in inputs.creatives.where("image_path IS NOT NULL AND mask_path IS NOT NULL").collect()
    ]
    pairs = inputs.preference_pairs
    return int(
        pairs.where(pairs["chosen_creative_id"].isin(drawable) & pairs["rejected_creative_id"].isin(drawable)).count()
    )


def _as_table(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a table in Dagster's metadata."""
    if not rows:
        return "none"
    text = [{name: str(value) for name, value in row.items()} for row in rows]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in text])
