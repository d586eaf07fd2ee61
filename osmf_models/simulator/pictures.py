"""The market's own pictures: cut-outs, masks, logged creatives, and any other scene behind a product.

Pictures are rounded to 8 bits, as they are on disk, so that a click rate measured here is the rate of the file.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.market import Market, creatives_of
from osmf_models.simulator.products import Product, draw_cutout
from osmf_models.simulator.scenes import place_product, render_scenes
from osmf_models.simulator.shapes import Array

Pixels = NDArray[np.uint8]


def cutout_pixels(market: Market, product_id: str) -> Pixels:
    """Returns a product alone at its place, RGBA, (H, W, 4)."""
    return _cutout(market.product(product_id), market.image_px)


def cutout(market: Market, product_id: str) -> Array:
    """Returns a product alone at its place, RGBA in [0, 1], (H, W, 4)."""
    return cutout_pixels(market, product_id) / 255.0


def draw_pictures(market: Market, product_id: str, styles: Array, scene_seeds: NDArray[np.int64]) -> Pixels:
    """Returns a product in scenes of the given styles, (B, 9) in [-1, 1], as RGB, (B, H, W, 3)."""
    product = cutout(market, product_id)
    scenes = render_scenes(styles, market.image_px, scene_seeds, product[..., 3])
    return _rounded(place_product(scenes, product))


def creative_pixels(market: Market, product_id: str) -> Pixels:
    """Returns the pictures of a product's logged creatives, RGB, (number of creatives, H, W, 3)."""
    creatives = creatives_of(market, product_id)
    styles = np.array([creative.style for creative in creatives])
    return draw_pictures(market, product_id, styles, np.array([creative.scene_seed for creative in creatives]))


@lru_cache(maxsize=1024)
def _cutout(product: Product, image_px: int) -> Pixels:
    pixels = _rounded(draw_cutout(product, image_px))
    pixels[..., :3] *= pixels[..., 3:] > 0
    pixels.setflags(write=False)
    return pixels


def _rounded(images: Array) -> Pixels:
    return np.round(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)
