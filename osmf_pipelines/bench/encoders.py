"""Creative features of a simulated market, by the default measurements or by an encoder that knows nothing of them.

Shapes: `C` creatives of all products, `K` creatives of one product, `H W` pixels, `d` features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osmf_models.image_features import FEATURE_NAMES, measure_images
from osmf_models.simulator.market import Market
from osmf_models.simulator.pictures import creative_pixels, cutout

Array = NDArray[np.float64]
_NUM_BLOCKS = 8
_NUM_COMPONENTS = 12
_MIN_SPREAD = 1e-6  # of the largest: less is rounding


@dataclass(frozen=True)
class Features:
    """Names (d,) and values (C, d) of the features of a market's creatives, in the order of its products."""

    names: tuple[str, ...]
    values: Array


def measure_default(market: Market) -> Features:
    """Returns the pipeline's default creative features."""
    values = [measure_images(pictures, masks) for pictures, masks in _pictures(market)]
    return Features(FEATURE_NAMES, np.concatenate(values))


def encode_pixels(market: Market) -> Features:
    """Returns principal components of the scenes' colours on a grid of 8 x 8, differences between products left out.

    Nothing is known to it of light, warmth or texture, and what is finer than a block it does not see at all.
    """
    grids = [_colour_grid(pictures, masks) for pictures, masks in _pictures(market)]
    centred = np.concatenate([grid - grid.mean(axis=0) for grid in grids])
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    kept = np.flatnonzero(spread > _MIN_SPREAD * spread.max())[:_NUM_COMPONENTS]
    components = centred @ directions[kept].T / (spread[kept] / np.sqrt(len(centred)))
    return Features(tuple(f"component_{n + 1}" for n in range(components.shape[1])), components)


ENCODERS: dict[str, Callable[[Market], Features]] = {"default": measure_default, "pixels": encode_pixels}


def _pictures(market: Market) -> list[tuple[Array, Array]]:
    """Pictures (K, H, W, 3) and masks (K, H, W) of each product."""
    found = []
    for product in market.products:
        pictures = creative_pixels(market, product.product_id) / 255.0
        found.append((pictures, np.broadcast_to(cutout(market, product.product_id)[..., 3], pictures.shape[:3])))
    return found


def _colour_grid(pictures: Array, masks: Array) -> Array:
    """Mean colour outside the product in each block, that of the whole scene where a block holds no scene, (K, 192)."""
    scene = (1.0 - masks)[..., None]
    whole = (pictures * scene).sum((1, 2)) / scene.sum((1, 2))
    sums, weights = _block_sums(pictures * scene), _block_sums(scene)
    grid = np.where(weights > 1e-6, sums / np.maximum(weights, 1e-6), whole[:, None, None])
    return grid.reshape(len(pictures), -1)


def _block_sums(values: Array) -> Array:
    """Sums over blocks, (K, 8, 8, channels); the last row and column of blocks take what does not divide."""
    edges = np.linspace(0, values.shape[1], _NUM_BLOCKS + 1).astype(int)[:-1]
    return np.add.reduceat(np.add.reduceat(values, edges, axis=1), edges, axis=2)
