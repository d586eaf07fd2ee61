"""The true click rate of any picture: an exact function of its pixels, known to nobody but the evaluation.

rate at position 1 = product's base rate · exp(taste · style) · quality, where the style is measured outside the
product and clipped to what scenes span, so that harsher is never better. How the market is specified and how pictures
are drawn do not belong here.

Shapes: `B` pictures, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from osmf_models.simulator.market import Market, cell_probabilities, segment_of
from osmf_models.simulator.picture_quality import picture_quality
from osmf_models.simulator.pictures import cutout
from osmf_models.simulator.scenes import measure_styles
from osmf_models.simulator.shapes import Array

MAX_CLICK_RATE = 0.95


@dataclass(frozen=True)
class MeasuredPictures:
    """What the truth needs to know of pictures of one product.

    Attributes:
        styles: measured outside the product, clipped, (B, 5) in [-1, 1].
        quality: in [0, 1], (B,).
    """

    styles: Array
    quality: Array


def measure_pictures(market: Market, product_id: str, images: Array, masks: Array | None = None) -> MeasuredPictures:
    """Measures pictures of one product.

    Args:
        market: the market.
        product_id: product that every picture shows.
        images: RGB in [0, 1], (B, H, W, 3).
        masks: where the product is, in [0, 1], (B, H, W); None for the market's own cut-out.
    """
    own = cutout(market, product_id)
    masks = np.broadcast_to(own[..., 3], images.shape[:3]) if masks is None else masks
    return MeasuredPictures(measure_styles(images, masks), picture_quality(images, own))


def click_rates(market: Market, scope: str, segment: str, product_id: str, measured: MeasuredPictures) -> Array:
    """Returns the true click rates at position 1 of measured pictures in one segment, (B,)."""
    log_lift = measured.styles @ np.asarray(market.segment(scope, segment).taste)
    rates = market.product(product_id).base_rate * np.exp(log_lift) * measured.quality
    return np.minimum(rates, MAX_CLICK_RATE)


def true_ctr(
    market: Market, scope: str, segment: str, product_id: str, images: Array, masks: Array | None = None
) -> Array:
    """Returns the true click rates at position 1 of pictures of a product in one segment, (B,)."""
    return click_rates(market, scope, segment, product_id, measure_pictures(market, product_id, images, masks))


def mixed_click_rates(
    market: Market, scope: str, segment_weights: Mapping[str, float], product_id: str, measured: MeasuredPictures
) -> Array:
    """Returns the mean true click rates over a mix of segments, (B,); the weights need not sum to 1.

    Raises:
        ValueError: when the weights are negative or sum to 0.
    """
    weights = np.array(list(segment_weights.values()), dtype=float)
    if weights.sum() <= 0 or weights.min() < 0:
        raise ValueError(f"segment weights must be positive, got {dict(segment_weights)}.")
    rates = [click_rates(market, scope, segment, product_id, measured) for segment in segment_weights]
    return weights @ np.stack(rates) / weights.sum()


def segment_weights(market: Market, scope: str, cells: Mapping[str, float]) -> dict[str, float]:
    """Returns the weight of each segment among `cells` (cell to weight, for instance impressions)."""
    weights: dict[str, float] = {}
    for cell, weight in cells.items():
        name = segment_of(market, scope, cell)
        weights[name] = weights.get(name, 0.0) + float(weight)
    return weights


def everyone(market: Market, scope: str) -> dict[str, float]:
    """Returns the share of all users in each segment of a scope."""
    return segment_weights(market, scope, cell_probabilities(market))
