"""The training export: Parquet shards and a manifest, in the form of `osmf_models.records`.

Spark writes the shards, so that an export of any size needs no driver memory; the manifest is written last and holds
the hash of every shard. Only what has pictures and evidence, in scopes that have groups, is exported;
`count_left_out` tells the rest. Masks are found in `masks`.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from PIL import Image
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from osmf_models.records import EXPORT_TABLES, ExportFile, ExportManifest
from osmf_pipelines.spark.group_vectors import add_feature_vectors, feature_normalisation, group_feature_layout
from osmf_pipelines.spark.pictures import PictureError, read_picture, spread

_ROWS_PER_SHARD = 50_000
_PICTURES_AT_ONCE = 64  # encoded in a worker's memory
_EXPORTED = "exported"
_SIDES = ("chosen_creative_id", "rejected_creative_id")


@dataclass(frozen=True)
class ExportInputs:
    """Published tables of one `as_of_date`, and the snapshots that they refer to.

    `products` carries the columns of `hash_cutouts`; persist it, it is read several times.
    """

    group_features: DataFrame
    group_ctr: DataFrame
    preference_pairs: DataFrame
    products: DataFrame
    product_splits: DataFrame
    creatives: DataFrame
    product_masks: DataFrame
    creative_features: DataFrame


_SORT_KEYS = {
    "groups": ("group_id",),
    "products": ("product_id",),
    "creatives": ("creative_id",),
    "generation_examples": ("group_id", "creative_id"),
    "preference_pairs": ("group_id", "chosen_creative_id", "rejected_creative_id"),
}
_PICTURE_MODES = {
    "products": {"cutout_png": "RGBA"},
    "creatives": {"image_png": "RGB", "mask_png": "L"},
}


def build_export_frames(inputs: ExportInputs) -> dict[str, DataFrame]:
    """Returns the tables of an export; their columns are those of `EXPORT_TABLES`, pictures still as paths.

    Grain: see `osmf_models.records`. Of scopes without groups nothing is exported; products without a usable cut-out,
        their creatives, creatives without a usable mask, and examples and pairs of any of these are left out. So are
        creatives of which no rate and no pair speaks: what models are compared with is what the logs tell of.

    Raises:
        ValueError: when there are no groups, or when their preference vectors are not over the same features.
    """
    products, creatives = _exported_products(inputs), _exported_creatives(inputs)
    log_rate = F.log("ctr_rate")
    of_product = Window.partitionBy("group_id", "product_id")
    examples = (
        inputs.group_ctr.where(~F.col("is_scope_root"))
        .withColumn("log_rate_lift", log_rate - F.avg(log_rate).over(of_product))
        .join(creatives.select("creative_id"), on="creative_id", how="left_semi")
        .join(products.select("product_id", "split"), on="product_id", how="inner")
    )
    return {
        "groups": add_feature_vectors(inputs.group_features, inputs.creative_features),
        "products": products.withColumnRenamed("cutout_path", "cutout_png"),
        "creatives": creatives.withColumnsRenamed({"image_path": "image_png", "mask_path": "mask_png"}),
        "generation_examples": examples,
        "preference_pairs": _drawable_pairs(inputs),
    }


def count_left_out(inputs: ExportInputs) -> dict[str, int]:
    """Returns how many products, creatives and pairs are not exported, by reason: `num_<table>_<reason>`.

    Each product and creative is counted once, under the first reason that holds: of_scope_without_groups,
    without_split (products), without_cutout or a refusal cutout_*; for creatives without_picture, a refusal picture_*
    or mask_*, without_mask, of_product_left_out, without_evidence (no rate and no pair: not shown in the window, or
    drawn by a model). Of pairs one number is told: those whose pictures are missing.
    """
    counts: dict[str, int] = {}
    for table, fates in (("products", _product_fates(inputs)), ("creatives", _creative_fates(inputs))):
        rows = fates.where(F.col("left_out").isNotNull()).groupBy("left_out").count().orderBy("left_out").collect()
        counts |= {f"num_{table}_{row['left_out']}": int(row["count"]) for row in rows}
    return counts | {"num_pairs_without_pictures": inputs.preference_pairs.count() - count_drawable_pairs(inputs)}


def count_drawable_pairs(inputs: ExportInputs) -> int:
    """Returns the number of pairs whose product and two creatives are exported."""
    return _drawable_pairs(inputs).count()


def write_export(
    inputs: ExportInputs, folder: Path, *, as_of_date: str, table_versions: dict[str, int]
) -> ExportManifest:
    """Writes an export into `folder`, replacing what was there; returns its manifest.

    Raises:
        ValueError: when there are no groups or no pictures; on the worker, when a picture is not square, not of the
            others' size, or has changed since `product_masks` was made.
    """
    frames = build_export_frames(inputs)
    layout = group_feature_layout(inputs.group_features)
    image_px = _image_px(frames["creatives"])
    # Spread by a hash: the bounds of a global sort go by a sample, which is another one each time.
    ordered = {
        name: spread(frame, *_SORT_KEYS[name]).sortWithinPartitions(*_SORT_KEYS[name]) for name, frame in frames.items()
    }
    for name, modes in _PICTURE_MODES.items():
        ordered[name] = _encode(ordered[name], modes, image_px)
    shutil.rmtree(folder, ignore_errors=True)
    files = [
        file
        for name, columns in EXPORT_TABLES.items()
        for file in _write_table(name, ordered[name].select(*columns), folder)
    ]
    mean, scale = feature_normalisation(frames["groups"])
    manifest = ExportManifest(as_of_date, image_px, layout, mean, scale, table_versions, tuple(files))
    manifest.write(folder)
    return manifest


def _product_fates(inputs: ExportInputs) -> DataFrame:
    """Products with their split and `left_out`: why they are not exported, or null."""
    scopes = inputs.group_features.select("scope", F.lit(True).alias("has_groups")).distinct()
    splits = inputs.product_splits.select("product_id", "split")
    left_out = (
        F.when(F.col("has_groups").isNull(), "of_scope_without_groups")
        .when(F.col("split").isNull(), "without_split")
        .when(F.col("cutout_path").isNull(), "without_cutout")
        .otherwise(F.col("cutout_refusal"))
    )
    products = inputs.products.join(scopes, on="scope", how="left").join(splits, on="product_id", how="left")
    return products.withColumn("left_out", left_out)


def _creative_fates(inputs: ExportInputs) -> DataFrame:
    """Creatives with their usable mask and `left_out`: why they are not exported, or null."""
    masks = inputs.product_masks.select("creative_id", "mask_path", "refusal")
    product_left_out = F.coalesce("left_out", F.lit(_EXPORTED)).alias("product_left_out")
    products = _product_fates(inputs).select("product_id", product_left_out)
    left_out = (
        F.when(F.col("product_left_out") == "of_scope_without_groups", "of_scope_without_groups")
        .when(F.col("image_path").isNull(), "without_picture")
        .when(F.col("refusal").isNotNull(), F.col("refusal"))
        .when(F.col("mask_path").isNull(), "without_mask")
        .when(~F.col("product_left_out").eqNullSafe(_EXPORTED), "of_product_left_out")
        .when(F.col("has_evidence").isNull(), "without_evidence")
    )
    creatives = inputs.creatives.select("creative_id", "product_id", "image_path")
    sides = [inputs.preference_pairs.select(F.col(name).alias("creative_id")) for name in _SIDES]
    told_of = reduce(DataFrame.union, sides, inputs.group_ctr.select("creative_id")).distinct()
    for known in (masks, told_of.withColumn("has_evidence", F.lit(True))):
        creatives = creatives.join(known, on="creative_id", how="left")
    return creatives.join(products, on="product_id", how="left").withColumn("left_out", left_out)


def _exported_products(inputs: ExportInputs) -> DataFrame:
    return _product_fates(inputs).where(F.col("left_out").isNull())


def _exported_creatives(inputs: ExportInputs) -> DataFrame:
    return _creative_fates(inputs).where(F.col("left_out").isNull())


def _drawable_pairs(inputs: ExportInputs) -> DataFrame:
    ids, pairs = _exported_creatives(inputs).select("creative_id"), inputs.preference_pairs
    for side in _SIDES:
        pairs = pairs.join(ids.withColumnRenamed("creative_id", side), on=side, how="left_semi")
    return pairs


def _image_px(creatives: DataFrame) -> int:
    first = creatives.orderBy("creative_id").select("image_png").first()
    if first is None:
        raise ValueError("no creative has a picture and a usable mask: there is nothing to train on.")
    return _read_again(first["image_png"], "RGB").width


def _encode(rows: DataFrame, modes: dict[str, str], image_px: int) -> DataFrame:
    """Replaces the paths in the columns of `modes` by PNG bytes, decoded and encoded anew; the order stays."""
    types = [f"`{name}` {'binary' if name in modes else type_}" for name, type_ in rows.dtypes]

    def encode_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            for start in range(0, len(batch), _PICTURES_AT_ONCE):
                part = batch.iloc[start : start + _PICTURES_AT_ONCE]
                pictures = {name: [_png(path, mode, image_px) for path in part[name]] for name, mode in modes.items()}
                yield part.assign(**pictures)

    return rows.mapInPandas(encode_batches, ", ".join(types))


def _png(path: str, mode: str, image_px: int) -> bytes:
    picture = _read_again(path, mode)
    if picture.size != (image_px, image_px):
        raise ValueError(
            f"picture {path} has {picture.size} pixels, an export needs all square and alike: {image_px} x {image_px}."
        )
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _read_again(path: str, mode: str) -> Image.Image:
    try:
        return read_picture(path, mode)
    except PictureError as error:
        raise ValueError(
            f"{error} It could be read when `product_masks` was made: make that again, then export."
        ) from error


def _write_table(name: str, ordered: DataFrame, folder: Path) -> list[ExportFile]:
    """Writes shards named by their order; the same rows in as many partitions give the same bytes."""
    staging = folder / f".{name}"
    ordered.write.option("maxRecordsPerFile", _ROWS_PER_SHARD).mode("overwrite").parquet(str(staging))
    (folder / name).mkdir()
    files = []
    for index, part in enumerate(sorted(staging.glob("part-*.parquet"))):
        path = folder / name / f"{index:05d}.parquet"
        part.replace(path)
        with path.open("rb") as shard:
            digest = hashlib.file_digest(shard, "sha256").hexdigest()
        num_rows, num_bytes = pq.read_metadata(path).num_rows, path.stat().st_size
        files.append(ExportFile(name, str(path.relative_to(folder)), num_rows, num_bytes, digest))
    shutil.rmtree(staging)
    return files
