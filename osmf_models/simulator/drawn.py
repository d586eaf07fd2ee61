"""The truth of pictures that the market did not draw: files of models' pictures, beside the logged creatives.

Shapes: `B` pictures, `S` most segments of a scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from PIL import Image

from osmf_models.simulator.market import Market
from osmf_models.simulator.shapes import Array
from osmf_models.simulator.truth import MeasuredPictures, click_rates, measure_pictures


@dataclass(frozen=True)
class DrawnCreative:
    """A creative that a model drew.

    Attributes:
        creative_id: by which logs name it.
        product_id: product of the market that it shows.
        image_path: file of the picture, as large as the market's.
        version: of the model; empty where that does not matter.
    """

    creative_id: str
    product_id: str
    image_path: str
    version: str = ""


def measure_drawn(market: Market, drawn: Sequence[DrawnCreative]) -> list[MeasuredPictures]:
    """Returns what the truth needs to know of each picture, B of them, from their files' pixels."""
    found = []
    for one in drawn:
        with Image.open(one.image_path) as image:
            pixels = np.asarray(image.convert("RGB"), np.float64) / 255.0
        found.append(measure_pictures(market, one.product_id, pixels[None]))
    return found


def drawn_rates(
    market: Market, drawn: Sequence[DrawnCreative], measured: Sequence[MeasuredPictures], day: date
) -> Array:
    """Returns the true click rate at position 1 of each picture in each segment of its scope, (B, S), else 0.

    Args:
        market: the truth.
        drawn: B of them.
        measured: of the same.
        day: on which they are shown.
    """
    rates = np.zeros((len(drawn), max(len(scope.segments) for scope in market.scopes)))
    for row, (one, picture) in enumerate(zip(drawn, measured, strict=True)):
        scope = market.product(one.product_id).scope
        for column, segment in enumerate(market.scope(scope).segments):
            rates[row, column] = click_rates(market, scope, segment.name, one.product_id, picture, day)[0]
    return rates
