"""Which products are for training, validation and test: decided before anything is fitted.

Held-out *users* are folds of exposures (`attribute`); later days are a matter of windows.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.tables import TABLES

_NUM_BUCKETS = 10_000
_TRAIN_BELOW = 7_000
_VALIDATION_BELOW = 8_500


def split_products(products_with_cutout_hash: DataFrame, *, seed: int) -> DataFrame:
    """Returns `product_splits`: 70% train, 15% validation, 15% test, by a hash of the product's picture.

    The hash looks at nothing but the seed and the unit, so adding or removing products never moves another. Products
    with the same cut-out are one unit; a null `cutout_sha256` (no cut-out, or none that can be read) makes the product
    a unit of its own, so a product whose cut-out is mended later may change sides.

    Grain: one row per product given.

    Args:
        products_with_cutout_hash: as `hash_cutouts` returns them.
        seed: another seed gives another split.
    """
    unit = F.coalesce(F.concat(F.lit("cutout:"), "cutout_sha256"), F.concat(F.lit("product:"), "product_id"))
    bucket = F.pmod(F.xxhash64(F.lit(seed), unit), F.lit(_NUM_BUCKETS))
    split = F.when(bucket < _TRAIN_BELOW, "train").when(bucket < _VALIDATION_BELOW, "validation").otherwise("test")
    return products_with_cutout_hash.withColumn("split", split).select(*TABLES["product_splits"].column_names)
