"""The best picture that the market could draw for a mix of segments, found by search over scenes.

Candidates are rendered, rounded and measured like any other picture, so what is found can be shown and its click rate
is exact. Judging models does not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.market import Market
from osmf_models.simulator.pictures import Pixels, draw_pictures
from osmf_models.simulator.scenes import NUM_STYLES
from osmf_models.simulator.shapes import Array
from osmf_models.simulator.truth import MeasuredPictures, everyone, measure_pictures, mixed_click_rates

_NUM_CORNER_SEEDS = 3
_NUM_UNIFORM = 96
_NUM_REFINED = 64
_REFINE_SCALES = (0.25, 0.08)


@dataclass(frozen=True)
class BestPicture:
    """The best picture found.

    Attributes:
        image: RGB, (H, W, 3).
        style: of its scene, (5,) in [-1, 1].
        scene_seed: of its scene.
        ctr_rate: true click rate at position 1, mean over the mix of segments.
    """

    image: Pixels
    style: Array
    scene_seed: int
    ctr_rate: float


@dataclass(frozen=True)
class _Candidates:
    styles: Array  # (B, 5)
    seeds: NDArray[np.int64]  # (B,)
    images: Pixels  # (B, H, W, 3)
    measured: MeasuredPictures


def best_picture(market: Market, scope: str, segment_weights: Mapping[str, float], product_id: str) -> BestPicture:
    """Returns the best picture of a product for a weighted mix of the scope's segments.

    Click rates of a mix are convex in the style, so the search starts at the corners of the styles' cube and at
    uniform styles, each in several scenes, then refines around the best.
    """
    best = _pick(market, scope, segment_weights, product_id, _start(market, product_id))
    rng = np.random.default_rng([market.seed, 2, best.scene_seed])
    for scale in _REFINE_SCALES:
        styles = np.clip(best.style + rng.normal(0, scale, (_NUM_REFINED, NUM_STYLES)), -1, 1)
        seeds = np.where(np.arange(_NUM_REFINED) % 2, best.scene_seed, rng.integers(0, 2**40, _NUM_REFINED))
        found = _pick(market, scope, segment_weights, product_id, _measure(market, product_id, styles, seeds))
        best = max(best, found, key=lambda picture: picture.ctr_rate)
    return best


def oracle_ctr(market: Market, scope: str, segment_weights: Mapping[str, float], product_id: str) -> float:
    """Returns the best achievable true click rate of a product for a weighted mix of segments."""
    return best_picture(market, scope, segment_weights, product_id).ctr_rate


def best_single(market: Market, product_id: str) -> BestPicture:
    """Returns the one picture of a product that is best for all users of its scope together: one size fits all."""
    scope = market.product(product_id).scope
    return best_picture(market, scope, everyone(market, scope), product_id)


@lru_cache(maxsize=64)
def _start(market: Market, product_id: str) -> _Candidates:
    rng = np.random.default_rng([market.seed, 3, *product_id.encode()])
    corners = np.stack(np.meshgrid(*([[-1.0, 1.0]] * NUM_STYLES)), axis=-1).reshape(-1, NUM_STYLES)
    styles = np.concatenate([*[corners] * _NUM_CORNER_SEEDS, rng.uniform(-1, 1, (_NUM_UNIFORM, NUM_STYLES))])
    return _measure(market, product_id, styles, rng.integers(0, 2**40, len(styles)))


def _measure(market: Market, product_id: str, styles: Array, seeds: NDArray[np.int64]) -> _Candidates:
    images = draw_pictures(market, product_id, styles, seeds)
    return _Candidates(styles, seeds, images, measure_pictures(market, product_id, images / 255.0))


def _pick(
    market: Market, scope: str, segment_weights: Mapping[str, float], product_id: str, candidates: _Candidates
) -> BestPicture:
    rates = mixed_click_rates(market, scope, segment_weights, product_id, candidates.measured)
    best = int(rates.argmax())
    return BestPicture(
        candidates.images[best], candidates.styles[best], int(candidates.seeds[best]), float(rates[best])
    )
