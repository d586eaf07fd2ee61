"""The true click rate of any picture: an exact function of its pixels, known to nobody but the evaluation.

rate at position 1 = product's base rate · exp(log lift of the taste at the style) · day's factor · quality, where the
style is measured outside the product and clipped to what scenes span, so that harsher is never better. How the market
is specified and how pictures are drawn do not belong here.

Shapes: `B` pictures, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np

from osmf_models.simulator.draws import Draws
from osmf_models.simulator.market import Market, segment_shares_of
from osmf_models.simulator.picture_quality import picture_quality
from osmf_models.simulator.pictures import cutout
from osmf_models.simulator.scene_features import measure_styles
from osmf_models.simulator.shapes import Array
from osmf_models.simulator.users import UNKNOWN

MAX_CLICK_RATE = 0.95


@dataclass(frozen=True)
class MeasuredPictures:
    """What the truth needs to know of pictures of one product.

    Attributes:
        styles: measured outside the product, clipped, (B, 9) in [-1, 1].
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


def day_factor(market: Market, day: date | None) -> float:
    """Returns what every click rate of a day is multiplied by; 1 for None."""
    if day is None:
        return 1.0
    own = Draws(market.seed).uniform("season", np.array([day.toordinal()]))[0]
    spread = market.season.daily_spread * np.sqrt(12)  # of a uniform draw
    return float(np.exp(market.season.weekdays[day.weekday()] + spread * (own - 0.5)))


def click_rates(
    market: Market, scope: str, segment: str, product_id: str, measured: MeasuredPictures, day: date | None = None
) -> Array:
    """Returns the true click rates at position 1 of measured pictures in one segment, (B,).

    Args:
        market: the market.
        scope: of the product.
        segment: of the scope.
        product_id: product that every picture shows.
        measured: the pictures.
        day: on which they are shown; None for the market's first day without a season.
    """
    taste = market.segment(scope, segment).taste
    lift = np.exp(taste.log_lift(measured.styles, market.days_since_start(day)))
    rates = market.product(product_id).base_rate * day_factor(market, day) * lift * measured.quality
    return np.minimum(rates, MAX_CLICK_RATE)


def true_ctr(
    market: Market,
    scope: str,
    segment: str,
    product_id: str,
    images: Array,
    masks: Array | None = None,
    day: date | None = None,
) -> Array:
    """Returns the true click rates at position 1 of pictures of a product in one segment, (B,)."""
    return click_rates(market, scope, segment, product_id, measure_pictures(market, product_id, images, masks), day)


def mixed_click_rates(
    market: Market,
    scope: str,
    segment_weights: Mapping[str, float],
    product_id: str,
    measured: MeasuredPictures,
    day: date | None = None,
) -> Array:
    """Returns the mean true click rates over a mix of segments, (B,); the weights need not sum to 1.

    Raises:
        ValueError: when the weights are negative or sum to 0.
    """
    weights = np.array(list(segment_weights.values()), dtype=float)
    if weights.sum() <= 0 or weights.min() < 0:
        raise ValueError(f"segment weights must be positive, got {dict(segment_weights)}.")
    rates = [click_rates(market, scope, segment, product_id, measured, day) for segment in segment_weights]
    return weights @ np.stack(rates) / weights.sum()


def segment_weights(market: Market, scope: str, cells: Mapping[str, float]) -> dict[str, float]:
    """Returns the weight of each segment among `cells` (cell to weight, for instance impressions)."""
    weights: dict[str, float] = {}
    for cell, weight in cells.items():
        for name, share in segment_shares_of(market, scope, cell).items():
            weights[name] = weights.get(name, 0.0) + float(weight) * share
    return weights


def everyone(market: Market, scope: str) -> dict[str, float]:
    """Returns the share of all users in each segment of a scope."""
    nobody_known = "|".join(f"{attribute.name}={UNKNOWN}" for attribute in market.population.attributes)
    return segment_shares_of(market, scope, nobody_known)
