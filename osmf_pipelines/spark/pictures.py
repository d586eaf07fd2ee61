"""Pictures read on the workers: hashes of cut-outs, features of creatives.

Decoding is guarded: an allowlist of formats and a limit of pixels, so that a hostile file costs nothing. What the
features mean is in `osmf_models.image_features`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_models.image_features import FEATURE_NAMES, measure_images
from osmf_pipelines.tables import TABLES

_FORMATS = ("PNG", "JPEG", "WEBP")
_MAX_PIXELS = 64_000_000


def hash_cutouts(products: DataFrame) -> DataFrame:
    """Returns `products` with `cutout_sha256`, null where there is no cut-out.

    Grain: one row per product given.
    """

    def hash_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            digests = [path and hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in batch["cutout_path"]]
            yield batch.assign(cutout_sha256=digests)

    return products.mapInPandas(hash_batches, f"{TABLES['products'].ddl}, cutout_sha256 string")


def measure_creatives(creatives: DataFrame, products: DataFrame) -> DataFrame:
    """Returns the table `creative_features`: measured on the picture, or the source's own where there is none.

    Grain: one row per creative that has a picture with a mask, or features of its source.

    Raises:
        ValueError: on the worker, when a picture cannot be read; it names the file.
    """
    table = TABLES["creative_features"]
    rows = creatives.join(products.select("product_id", "scope"), on="product_id", how="inner")
    rows = rows.where(
        (F.col("image_path").isNotNull() & F.col("mask_path").isNotNull()) | F.col("feature_values").isNotNull()
    )

    def measure_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            measured = batch.assign(mask_coverage=None)
            has_picture = batch["feature_values"].isna()
            if has_picture.any():
                pairs = batch[has_picture]
                values, coverage = _measure(pairs["image_path"], pairs["mask_path"])
                measured.loc[has_picture, "feature_values"] = pd.Series(list(values), index=pairs.index)
                names = [list(FEATURE_NAMES)] * len(pairs)
                measured.loc[has_picture, "feature_names"] = pd.Series(names, index=pairs.index)
                measured.loc[has_picture, "mask_coverage"] = coverage
            yield measured[table.column_names]

    return rows.mapInPandas(measure_batches, table.ddl)


def read_picture(path: str, mode: str) -> Image.Image:
    """Returns the picture at `path` in a Pillow `mode`.

    Raises:
        ValueError: when it is missing, of another format, too large or broken.
    """
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise ValueError(f"it has {picture.width} x {picture.height} pixels, at most {_MAX_PIXELS} are read")
            return picture.convert(mode)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"picture {path} cannot be read ({error}): use {', '.join(_FORMATS)}.") from error


def _measure(image_paths: pd.Series, mask_paths: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Features (B, 5) and mask coverages (B,) of pictures that may differ in size."""
    values, coverage = [], []
    for image_path, mask_path in zip(image_paths, mask_paths, strict=True):
        image = np.asarray(read_picture(image_path, "RGB"), dtype=np.float64) / 255
        mask = np.asarray(read_picture(mask_path, "L"), dtype=np.float64) / 255
        if mask.shape != image.shape[:2]:
            raise ValueError(f"mask {mask_path} is {mask.shape}, its picture {image_path} is {image.shape[:2]} (H, W).")
        values.append(measure_images(image[None], mask[None])[0])
        coverage.append(mask.mean())
    return np.array(values), np.array(coverage)
