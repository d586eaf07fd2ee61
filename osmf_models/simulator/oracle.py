"""The best picture that the market could draw for a mix of segments, found by search over scenes.

Candidates are rendered, rounded and measured like any other picture, so what is found can be shown and its click rate
is exact. Judging models does not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.market import Market
from osmf_models.simulator.pictures import Pixels, draw_pictures
from osmf_models.simulator.scenes import NUM_STYLES
from osmf_models.simulator.shapes import Array
from osmf_models.simulator.truth import MeasuredPictures, everyone, measure_pictures, mixed_click_rates

_NUM_UNIFORM = 128
_PIXELS_AT_ONCE = 2**17
_NUM_GUESSED = 4096
_NUM_TRIED = 32
_NUM_REFINED = 48
_SCALES = (0.3, 0.15, 0.06, 0.0)  # of the steps away from the best so far, after each round


@dataclass(frozen=True)
class BestPicture:
    """The best picture found.

    Attributes:
        image: RGB, (H, W, 3).
        style: of its scene, (9,) in [-1, 1].
        scene_seed: of its scene.
        ctr_rate: true click rate at position 1, mean over the mix of segments.
    """

    image: Pixels
    style: Array
    scene_seed: int
    ctr_rate: float


@dataclass(frozen=True)
class _Candidates:
    styles: Array  # (B, 9)
    seeds: NDArray[np.int64]  # (B,)
    measured: MeasuredPictures


def best_picture(
    market: Market, scope: str, segment_weights: Mapping[str, float], product_id: str, day: date | None = None
) -> BestPicture:
    """Returns the best picture of a product for a weighted mix of the scope's segments.

    The search draws uniform styles, then those that would be best of thousands if scenes met their style exactly, then
    refines around the best picture found so far.
    """

    def pick(candidates: _Candidates) -> _Found:
        rates = mixed_click_rates(market, scope, segment_weights, product_id, candidates.measured, day)
        best = int(rates.argmax())
        return _Found(float(rates[best]), candidates.styles[best], int(candidates.seeds[best]))

    best = pick(_start(market, product_id))
    rng = np.random.default_rng([market.seed, 2, best.scene_seed])
    guessed = rng.uniform(-1, 1, (_NUM_GUESSED, NUM_STYLES))
    as_wished = MeasuredPictures(guessed, np.ones(len(guessed)))
    order = np.argsort(-mixed_click_rates(market, scope, segment_weights, product_id, as_wished, day))
    styles = guessed[order[:_NUM_TRIED]]
    for scale in _SCALES:
        found = pick(_near(market, product_id, styles, best.scene_seed, rng))
        best = max(best, found, key=lambda one: one.ctr_rate)
        styles = np.clip(best.style + rng.normal(0, scale, (_NUM_REFINED, NUM_STYLES)), -1, 1)
    image = draw_pictures(market, product_id, best.style[None], np.array([best.scene_seed]))[0]
    return BestPicture(image, best.style, best.scene_seed, best.ctr_rate)


def oracle_ctr(
    market: Market, scope: str, segment_weights: Mapping[str, float], product_id: str, day: date | None = None
) -> float:
    """Returns the best achievable true click rate of a product for a weighted mix of segments."""
    return best_picture(market, scope, segment_weights, product_id, day).ctr_rate


def best_single(market: Market, product_id: str, day: date | None = None) -> BestPicture:
    """Returns the one picture of a product that is best for all users of its scope together: one size fits all."""
    scope = market.product(product_id).scope
    return best_picture(market, scope, everyone(market, scope), product_id, day)


@dataclass(frozen=True)
class _Found:
    ctr_rate: float
    style: Array  # (9,)
    scene_seed: int


@lru_cache(maxsize=64)
def _start(market: Market, product_id: str) -> _Candidates:
    rng = np.random.default_rng([market.seed, 3, *product_id.encode()])
    styles = rng.uniform(-1, 1, (_NUM_UNIFORM, NUM_STYLES))
    return _measure(market, product_id, styles, rng.integers(0, 2**40, len(styles)))


def _near(market: Market, product_id: str, styles: Array, scene_seed: int, rng: np.random.Generator) -> _Candidates:
    """Pictures of these styles, every other one in the best scene so far."""
    seeds = np.where(np.arange(len(styles)) % 2, scene_seed, rng.integers(0, 2**40, len(styles)))
    return _measure(market, product_id, styles, seeds)


def _measure(market: Market, product_id: str, styles: Array, seeds: NDArray[np.int64]) -> _Candidates:
    """Draws and measures pictures, few at a time where they are large, and keeps none."""
    step = max(1, _PIXELS_AT_ONCE // market.image_px**2)
    parts = [
        measure_pictures(
            market, product_id, draw_pictures(market, product_id, styles[i : i + step], seeds[i : i + step]) / 255.0
        )
        for i in range(0, len(styles), step)
    ]
    measured = MeasuredPictures(
        np.concatenate([part.styles for part in parts]), np.concatenate([part.quality for part in parts])
    )
    return _Candidates(styles, seeds, measured)
