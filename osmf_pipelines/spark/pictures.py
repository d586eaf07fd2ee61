"""Pictures read on the workers: hashes of cut-outs, features of creatives.

Decoding is guarded: an allowlist of formats, limits of bytes and pixels, and one named error for whatever a broken
file does to its decoder. What the features mean is in `osmf_models.image_features`; masks belong in `masks`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_models.image_features import FEATURE_NAMES, measure_images
from osmf_pipelines.tables import TABLES

_FORMATS = ("PNG", "JPEG", "WEBP")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_MAX_BYTES = 256 * 2**20
_MAX_PIXELS = 25_000_000  # measuring one takes 2 GiB of a worker
_MIN_SIDE_PX = 16

Fault = Literal["missing", "unreadable", "too_large", "too_small"]


class PictureError(ValueError):
    """A file that is not a picture that we read; `fault` says why in one word."""

    def __init__(self, path: str, fault: Fault, detail: str):
        super().__init__(f"picture {path} cannot be read: {detail}.")
        self.fault = fault


def read_picture(path: str, mode: str) -> Image.Image:
    """Returns the picture at `path`, upright, in a Pillow `mode`.

    Raises:
        PictureError: as `read_picture_file` and `decode_picture`.
    """
    return decode_picture(read_picture_file(path), mode, path)


def read_picture_file(path: str) -> bytes:
    """Returns the bytes of a picture, undecoded.

    Raises:
        PictureError: missing, too_large (the file) or unreadable.
    """
    try:
        if not Path(path).is_file():
            raise PictureError(path, "missing", "there is no such file")
        num_bytes = Path(path).stat().st_size
        if num_bytes > _MAX_BYTES:
            raise PictureError(path, "too_large", f"it has {num_bytes} bytes, at most {_MAX_BYTES} are read")
        return Path(path).read_bytes()
    except OSError as error:
        raise PictureError(path, "unreadable", str(error)) from error


def decode_picture(data: bytes, mode: str, path: str) -> Image.Image:
    """Returns the picture in `data`, turned as its EXIF orientation says, in a Pillow `mode`.

    Args:
        data: a PNG, JPEG or WebP file.
        mode: of the result.
        path: where it came from, for the error.

    Raises:
        PictureError: too_large or too_small (pixels), or unreadable: another format, more than 8 bits a channel
            (Pillow would clip them), or broken.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise PictureError(path, "too_large", f"it has {picture.size} pixels, at most {_MAX_PIXELS} are read")
            if min(picture.size) < _MIN_SIDE_PX:
                raise PictureError(path, "too_small", f"it has {picture.size} pixels, a side needs {_MIN_SIDE_PX}")
            if picture.mode not in _EIGHT_BIT_MODES:
                raise PictureError(path, "unreadable", f"mode {picture.mode}; save it with 8 bits a channel")
            ImageOps.exif_transpose(picture, in_place=True)
            return picture.convert(mode)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(path, "too_large", str(error)) from error
    # Decoders answer broken bytes with errors of nearly every kind.
    except Exception as error:
        raise PictureError(path, "unreadable", f"{error}; use {', '.join(_FORMATS)}") from error


def hash_cutouts(products: DataFrame) -> DataFrame:
    """Returns `products` with `cutout_sha256` and `cutout_refusal`.

    Grain: one row per product given. Both are null where there is no cut-out. A file that cannot be read has no hash
        and the refusal cutout_missing, cutout_unreadable, cutout_too_large or cutout_too_small; cutout_opaque (no
        transparent pixel: it does not show the product alone) and cutout_empty (nothing else) keep their hash. Such a
        product counts as one without cut-out: it is split like any other and left out of the export.
    """

    def hash_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            checked = [_check_cutout(path) for path in batch["cutout_path"]]
            yield batch.assign(
                cutout_sha256=[digest for digest, _ in checked], cutout_refusal=[refusal for _, refusal in checked]
            )

    columns = ", ".join(f"`{name}` {type_}" for name, type_ in products.dtypes)
    return spread(products, "product_id").mapInPandas(
        hash_batches, f"{columns}, cutout_sha256 string, cutout_refusal string"
    )


def measure_creatives(creatives: DataFrame, products: DataFrame, product_masks: DataFrame) -> DataFrame:
    """Returns `creative_features`: the source's own, or measured on the picture outside the product's mask.

    A creative without a usable mask is measured over its whole picture, product included, and has no `mask_coverage`.

    Grain: one row per creative that has features of its source or a picture that `product_masks` did not refuse, and a
        product in `products`.

    Raises:
        ValueError: on the worker, when a picture or a mask has changed since `product_masks` was made.
    """
    table = TABLES["creative_features"]
    is_readable = ~F.coalesce(F.col("refusal").startswith("picture_"), F.lit(False))
    pictures = product_masks.where(is_readable).select(
        "creative_id",
        "image_path",
        "mask_path",
        F.when(F.col("mask_path").isNotNull(), F.col("mask_coverage")).alias("mask_coverage"),
    )
    rows = (
        creatives.drop("image_path", "mask_path")
        .join(products.select("product_id", "scope"), on="product_id", how="inner")
        .join(pictures, on="creative_id", how="left")
        .where(F.col("image_path").isNotNull() | F.col("feature_values").isNotNull())
        .withColumn("mask_coverage", F.when(F.col("feature_values").isNull(), F.col("mask_coverage")))
    )

    def measure_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            given = zip(batch["feature_values"], batch["image_path"], batch["mask_path"], strict=True)
            has_none = batch["feature_values"].isna()
            values = [_measure(image, mask) if own is None else own for own, image, mask in given]
            names = batch["feature_names"].where(~has_none, pd.Series([list(FEATURE_NAMES)] * len(batch), batch.index))
            yield batch.assign(feature_values=values, feature_names=names)[table.column_names]

    return spread(rows, "creative_id").mapInPandas(measure_batches, table.ddl)


def spread(rows: DataFrame, *keys: str) -> DataFrame:
    """Returns `rows` spread over `spark.sql.shuffle.partitions` partitions by a hash of `keys`.

    A row is small but its picture is not: left alone, Spark would decode every picture of a file of paths on one core.
    The same rows are always spread alike: a repartition by the keys themselves is left out where a join has already
    shuffled by them, and that shuffle may be made smaller at run time; one by their hash stays.
    """
    num_partitions = int(rows.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1)
    return rows.repartition(num_partitions, F.xxhash64(*keys))


def _check_cutout(path: str | None) -> tuple[str | None, str | None]:
    """Hash and refusal of a cut-out."""
    if path is None:
        return None, None
    try:
        data = read_picture_file(path)
        alpha = np.asarray(decode_picture(data, "RGBA", path).getchannel("A"))
    except PictureError as error:
        return None, f"cutout_{error.fault}"
    refusal = "cutout_opaque" if alpha.min() == 255 else "cutout_empty" if alpha.max() == 0 else None
    return hashlib.sha256(data).hexdigest(), refusal


def _measure(image_path: str, mask_path: str | None) -> NDArray[np.float64]:
    """Features of one picture outside its mask, (5,)."""
    try:
        image = np.asarray(read_picture(image_path, "RGB"), dtype=np.float64) / 255
        mask = np.zeros(image.shape[:2])
        if mask_path is not None:
            mask = np.asarray(read_picture(mask_path, "L"), dtype=np.float64) / 255
        return measure_images(image[None], mask[None])[0]
    except ValueError as error:
        raise ValueError(
            f"{image_path} or its mask {mask_path} has changed since `product_masks` was made ({error}): make "
            "`product_masks` again."
        ) from error
