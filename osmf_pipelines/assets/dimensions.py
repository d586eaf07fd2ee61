"""Snapshots of users, products and creatives, and what is decided or measured on them before anything is fitted."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from osmf_pipelines.assets.publishing import (
    CountFacts,
    Facts,
    Outcome,
    asset_specs,
    check_specs,
    materialising,
    publish,
)
from osmf_pipelines.resources.lake import LakeResource

Frames = dict[str, Any]
Result = tuple[Any, Facts | CountFacts]
_SPLIT_SEED = 0


def build_dimension_assets() -> list[dg.AssetsDefinition]:
    """Returns the snapshot assets."""
    return [
        _snapshot("users", (), _users),
        _snapshot("products", (), _products),
        _snapshot("creatives", ("products",), _creatives),
        _snapshot("product_splits", ("products",), _product_splits),
        _snapshot("product_masks", ("creatives",), _product_masks),
        _snapshot("creative_features", ("creatives", "products", "product_masks"), _creative_features),
    ]


def _snapshot(
    name: str, inputs: tuple[str, ...], compute: Callable[[LakeResource, Frames], Result]
) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=name,
        specs=asset_specs([name], deps=inputs, group="dimensions"),
        check_specs=check_specs([name]),
        pool="spark",
    )
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeResource]) -> Iterator[Outcome]:
        with materialising(context, lake):
            pinned = lake.lake.pin(inputs)
            frame, facts = compute(lake, {table: pinned.read(table) for table in inputs})
            yield from publish(context, lake, name, frame, inputs=pinned.versions, facts=facts)

    return asset


def _users(resource: LakeResource, _: Frames) -> Result:
    from pyspark.sql import functions as F

    from osmf_pipelines.spark.quarantine import hash_user_id

    users = resource.source.users(resource.lake.spark)
    return users.withColumn("user_id", hash_user_id(F.col("user_id"), resource.settings.user_key)), ()


def _products(resource: LakeResource, _: Frames) -> Result:
    return resource.source.products(resource.lake.spark), ()


def _creatives(resource: LakeResource, frames: Frames) -> Result:
    creatives = resource.source.creatives(resource.lake.spark)
    unknown = creatives.join(frames["products"], on="product_id", how="left_anti")
    return creatives, [{"num_unknown_products": unknown.count()}]


def _product_splits(resource: LakeResource, frames: Frames) -> Result:
    from osmf_pipelines.spark.pictures import hash_cutouts
    from osmf_pipelines.spark.split import split_products

    products = frames["products"]
    hashed = hash_cutouts(products)

    def count_missing(candidate: Any) -> Facts:
        missing = products.join(candidate, on="product_id", how="left_anti").count()
        unreadable = hashed.where("cutout_path IS NOT NULL AND cutout_sha256 IS NULL").count()
        return [{"num_products_missing": missing, "unreadable_share": unreadable / max(products.count(), 1)}]

    return split_products(hashed, seed=_SPLIT_SEED), count_missing


def _product_masks(resource: LakeResource, frames: Frames) -> Result:
    from osmf_pipelines.spark.masks import find_product_masks

    settings = resource.settings
    masks = find_product_masks(
        frames["creatives"],
        folder=settings.home / "masks",
        segmentation_model=settings.segmentation_model,
        segmentation_labels=settings.segmentation_labels,
    )

    def count_refused(candidate: Any) -> Facts:
        return [{"refused_share": candidate.where("refusal IS NOT NULL").count() / max(candidate.count(), 1)}]

    return masks, count_refused


def _creative_features(resource: LakeResource, frames: Frames) -> Result:
    from pyspark.sql import functions as F

    from osmf_pipelines.spark.pictures import measure_creatives

    is_finite = F.forall("feature_values", lambda value: F.abs(value) < F.lit(float("inf")))

    def count_not_finite(candidate: Any) -> Facts:
        return [{"num_not_finite": candidate.where(~F.coalesce(is_finite, F.lit(False))).count()}]

    return measure_creatives(frames["creatives"], frames["products"], frames["product_masks"]), count_not_finite
