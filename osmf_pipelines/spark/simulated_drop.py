"""What a simulated shop delivers besides its logs: pictures, dimension tables and the file that maps their columns.

Logs belong in `simulate_logs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image
from pyspark.sql import SparkSession

from osmf_models.simulator.market import Market, creatives_of
from osmf_models.simulator.pictures import creative_pixels, cutout_pixels
from osmf_models.simulator.users import Population
from osmf_pipelines.spark.simulated_files import user_ids, write_table

MAPPING_FILE_NAME = "mapping.toml"
_USERS_PER_FILE = 1_000_000
_MAPPING = """\
# Which of this shop's files and columns are which of OSMF's: ours = theirs.
[impressions]
files = "days/{{date}}/impressions.parquet"
[impressions.columns]
impression_id = "imp_id"
user_id = "uid"
product_id = "item"
creative_id = "ad"
impressed_at = "ts"
position = "pos"
slot_type = "slot"
propensity = "p"
experiment_id = "test"
arm = "arm"
model_version = "drawn_by"

[clicks]
files = "days/{{date}}/clicks.parquet"
[clicks.columns]
click_id = "click"
impression_id = "imp_id"
clicked_at = "ts"

[users]
files = "dimensions/users.parquet"
attributes = [{attributes}]
[users.columns]
user_id = "uid"

[products]
files = "dimensions/products.parquet"
[products.columns]
product_id = "item"
scope = "category"
title = "name"
price = "price"
cutout_path = "cutout"

[creatives]
files = "dimensions/creatives.parquet"
[creatives.columns]
creative_id = "ad"
product_id = "item"
image_path = "picture"
mask_path = "mask"
"""


def write_pictures(market: Market, drop: Path, progress: Callable[[float], None]) -> None:
    """Writes cut-outs (RGBA), masks and ad images as PNG below `drop`/pictures.

    Args:
        market: whose pictures.
        drop: the drop folder.
        progress: called with the share that is done.
    """
    folders = {name: drop / "pictures" / name for name in ("cutouts", "images", "masks")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for number, product in enumerate(market.products, 1):
        cutout = cutout_pixels(market, product.product_id)
        Image.fromarray(cutout).save(folders["cutouts"] / f"{product.product_id}.png")
        Image.fromarray(np.ascontiguousarray(cutout[..., 3])).save(folders["masks"] / f"{product.product_id}.png")
        pictures = creative_pixels(market, product.product_id)
        for creative, pixels in zip(creatives_of(market, product.product_id), pictures, strict=True):
            Image.fromarray(pixels).save(folders["images"] / f"{creative.creative_id}.png")
        progress(number / len(market.products))


def write_dimensions(spark: SparkSession, market: Market, drop: Path) -> None:
    """Writes users, products and creatives below `drop`/dimensions, and `drop`/mapping.toml last."""
    folder = drop / "dimensions"
    columns = {
        "item": [one.product_id for one in market.products],
        "category": [one.scope for one in market.products],
        "name": [one.title for one in market.products],
        "price": [one.price for one in market.products],
        "price_band": [one.price_band for one in market.products],
        "attributes": pa.array([one.attributes for one in market.products], pa.map_(pa.string(), pa.string())),
        "cutout": [f"pictures/cutouts/{one.product_id}.png" for one in market.products],
    }
    write_table(pa.table(columns), folder / "products.parquet")
    creatives = [one for product in market.products for one in creatives_of(market, product.product_id)]
    columns = {
        "ad": [one.creative_id for one in creatives],
        "item": [one.product_id for one in creatives],
        "picture": [f"pictures/images/{one.creative_id}.png" for one in creatives],
        "mask": [f"pictures/masks/{one.product_id}.png" for one in creatives],
    }
    write_table(pa.table(columns), folder / "creatives.parquet")
    _write_users(spark, market, folder / "users.parquet")
    names = ", ".join(f'"{attribute.name}"' for attribute in market.population.attributes)
    (drop / MAPPING_FILE_NAME).write_text(_MAPPING.format(attributes=names))


def _write_users(spark: SparkSession, market: Market, folder: Path) -> None:
    """Writes all users, a chunk a task, so that none of them passes the driver."""
    population = market.population
    num_chunks = -(-population.num_users // _USERS_PER_FILE)

    def write(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for frame in frames:
            for chunk in frame["id"]:
                first = int(chunk) * _USERS_PER_FILE
                users = np.arange(first, min(first + _USERS_PER_FILE, population.num_users))
                write_table(_users(population, users), folder / f"{chunk:05d}.parquet")
            yield frame

    spark.range(0, num_chunks, 1, num_chunks).mapInPandas(write, schema="id long").count()


def _users(population: Population, users: NDArray[np.int64]) -> pa.Table:
    values, is_missing = population.values(users), population.is_missing(users)
    columns = {"uid": user_ids(users)}
    for place, attribute in enumerate(population.attributes):
        known = pa.array(values[:, place], mask=is_missing[:, place])
        columns[attribute.name] = pc.take(pa.array(attribute.values), known)
    return pa.table(columns)
