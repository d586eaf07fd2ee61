"""What a simulated shop delivers besides its logs: pictures, dimension tables and the file that maps their columns.

Logs belong in `simulate_logs.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pyspark.sql import SparkSession

from osmf_models.simulator.market import Market, creatives_of
from osmf_models.simulator.pictures import creative_pixels, cutout_pixels
from osmf_pipelines.spark.simulated_users import user_frame

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


def write_pictures(market: Market, drop: Path) -> None:
    """Writes cut-outs (RGBA), masks and ad images as PNG below `drop`/pictures."""
    folders = {name: drop / "pictures" / name for name in ("cutouts", "images", "masks")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for product in market.products:
        cutout = cutout_pixels(market, product.product_id)
        Image.fromarray(cutout).save(folders["cutouts"] / f"{product.product_id}.png")
        Image.fromarray(np.ascontiguousarray(cutout[..., 3])).save(folders["masks"] / f"{product.product_id}.png")
        pictures = creative_pixels(market, product.product_id)
        for creative, pixels in zip(creatives_of(market, product.product_id), pictures, strict=True):
            Image.fromarray(pixels).save(folders["images"] / f"{creative.creative_id}.png")


def write_dimensions(spark: SparkSession, market: Market, drop: Path) -> None:
    """Writes users, products and creatives below `drop`/dimensions, and `drop`/mapping.toml."""
    folder = drop / "dimensions"
    folder.mkdir()
    products = [
        (product.product_id, product.scope, product.title, product.price, f"pictures/cutouts/{product.product_id}.png")
        for product in market.products
    ]
    creatives = [
        (
            creative.creative_id,
            creative.product_id,
            f"pictures/images/{creative.creative_id}.png",
            f"pictures/masks/{creative.product_id}.png",
        )
        for product in market.products
        for creative in creatives_of(market, product.product_id)
    ]
    pd.DataFrame(products, columns=["item", "category", "name", "price", "cutout"]).to_parquet(
        folder / "products.parquet", index=False
    )
    pd.DataFrame(creatives, columns=["ad", "item", "picture", "mask"]).to_parquet(
        folder / "creatives.parquet", index=False
    )
    user_frame(spark, market).write.parquet(str(folder / "users.parquet"))
    names = ", ".join(f'"{attribute.name}"' for attribute in market.attributes)
    (drop / "mapping.toml").write_text(_MAPPING.format(attributes=names))
