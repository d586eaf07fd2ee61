"""Backdrops with a continuous style: a studio wall behind a table, drawn so that the style can be measured back.

A style has five entries in [-1, 1], in the order of `image_features.FEATURE_NAMES`. Everything else about a scene
(hues, grain, where the table begins, where the light falls) is nuisance, fixed by the scene's seed. Who likes which
style does not belong here.

The colours: a pixel of luma L with middle channel between red and blue has R - B = w and max - min = |w|. The wall
takes one sign of w and the table the other, so that the mean of w is the warmth and the mean of |w| the saturation;
the place of green between red and blue stays free (this project's own design).

Shapes: `B` scenes, `H W` pixels, `K` waves of the grain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osmf_models.image_features import FEATURE_NAMES, Array, measure_images

NUM_STYLES = len(FEATURE_NAMES)
# What a style of 0 renders to, and how far a style of 1 is from it, per feature, outside the product.
STYLE_CENTRE = np.array([0.53, 0.0, 0.26, 0.028, 0.0])
STYLE_SCALE = np.array([0.15, 0.13, 0.11, 0.016, 0.20])

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_NUM_WAVES = 5
_WAVELENGTH_PX = (5.0, 10.0)
_GAMUT = (0.03, 0.97)
_SHADOW = 0.15
_COLUMN = (slice(None), None, None)  # turns (B,) into (B, 1, 1)


@dataclass(frozen=True)
class _Nuisance:
    """What a scene's seed decides; every field (B,) but the last three, (B, K)."""

    horizon: Array  # share of the height at which the table begins
    wall_is_warm: Array  # 1 or -1
    wall_green: Array  # place of green between the smallest channel (0) and the largest (1)
    table_green: Array
    table_luma: Array  # luma step from wall to table
    light_x: Array
    light_strength: Array
    wave_angle: Array  # radians
    wave_length_px: Array
    wave_phase: Array  # radians


def render_scenes(styles: Array, image_px: int, seeds: NDArray[np.int64], product_alpha: Array | None = None) -> Array:
    """Returns one backdrop per style, RGB in [0, 1], (B, H, W, 3).

    Args:
        styles: in [-1, 1], (B, 5).
        image_px: side H = W of the picture.
        seeds: one per scene, (B,); the same style and seed give the same picture.
        product_alpha: where a product will stand, in [0, 1], (H, W): its shadow falls on the scene and the style is
            met outside it; None for an empty scene.

    Raises:
        ValueError: when the shapes disagree or a style leaves [-1, 1].
    """
    if styles.ndim != 2 or styles.shape[1] != NUM_STYLES or seeds.shape != styles.shape[:1]:
        raise ValueError(f"expected styles (B, {NUM_STYLES}) and seeds (B,), got {styles.shape} and {seeds.shape}.")
    if np.abs(styles).max(initial=0.0) > 1.0:
        raise ValueError("a style lies outside [-1, 1].")
    alpha = np.zeros((image_px, image_px)) if product_alpha is None else product_alpha
    nuisance = _draw_nuisance(seeds)
    target = STYLE_CENTRE + STYLE_SCALE * styles
    wall = _wall_cover(nuisance, image_px)
    luma = _lit_luma(nuisance, target, wall, alpha)
    luma = luma + _grain(nuisance, luma, target[:, 3], 1.0 - alpha)
    return _coloured(nuisance, luma, target, wall, 1.0 - alpha)


def place_product(scenes: Array, cutout: Array) -> Array:
    """Returns the scenes with one product standing in them, RGB in [0, 1], (B, H, W, 3).

    Args:
        scenes: RGB in [0, 1], (B, H, W, 3).
        cutout: the product at its place, RGBA in [0, 1], (H, W, 4).
    """
    colour, alpha = cutout[..., :3], cutout[..., 3:]
    return scenes * (1.0 - alpha) + colour * alpha


def normalise_features(features: Array) -> Array:
    """Returns measured features on the scale of styles: scenes span about [-1, 1], anything harsher is clipped."""
    return np.clip((features - STYLE_CENTRE) / STYLE_SCALE, -1.0, 1.0)


def measure_styles(images: Array, masks: Array) -> Array:
    """Returns the style that pictures show outside their product, (B, 5) in [-1, 1]; arguments as `measure_images`."""
    return normalise_features(measure_images(images, masks))


def _draw_nuisance(seeds: NDArray[np.int64]) -> _Nuisance:
    num_scalars = 7
    draws = np.stack([np.random.default_rng(int(seed)).random(num_scalars + 3 * _NUM_WAVES) for seed in seeds])
    scalars, waves = draws[:, :num_scalars].T, draws[:, num_scalars:].reshape(-1, 3, _NUM_WAVES)
    spread = np.pi * (waves[:, :1, :1] + 0.22 * (waves[:, :1] - 0.5))
    shortest, longest = _WAVELENGTH_PX
    return _Nuisance(
        horizon=0.50 + 0.14 * scalars[0],
        wall_is_warm=np.where(scalars[1] < 0.5, 1.0, -1.0),
        wall_green=0.3 + 0.45 * scalars[2],
        table_green=0.3 + 0.45 * scalars[3],
        table_luma=0.10 * (scalars[4] - 0.5),
        light_x=0.2 + 0.6 * scalars[5],
        light_strength=0.02 + 0.05 * scalars[6],
        wave_angle=spread[:, 0],
        wave_length_px=shortest + (longest - shortest) * waves[:, 1],
        wave_phase=2 * np.pi * waves[:, 2],
    )


def _rows(image_px: int) -> Array:
    return (np.arange(image_px) + 0.5) / image_px


def _wall_cover(nuisance: _Nuisance, image_px: int) -> Array:
    """Share of each row that is wall, with an edge about a pixel and a half soft, (B, H, 1)."""
    softness_px = 1.5
    return np.clip((nuisance.horizon[:, None] - _rows(image_px)) * image_px / softness_px + 0.5, 0, 1)[..., None]


def _lit_luma(nuisance: _Nuisance, target: Array, wall: Array, alpha: Array) -> Array:
    """Luma of wall and table under a soft pool of light, of the wished mean and vertical gradient, (B, H, W)."""
    image_px = wall.shape[1]
    visible = 1.0 - alpha
    y, x = _rows(image_px)[:, None], _rows(image_px)[None, :]
    pool = np.exp(-(((x - nuisance.light_x[_COLUMN]) / 0.45) ** 2) - ((y - 0.4) / 0.5) ** 2)
    luma = nuisance.light_strength[_COLUMN] * pool - nuisance.table_luma[_COLUMN] * wall - _shadow(alpha)
    slope = np.cos(np.pi * y) * np.ones(image_px)
    missing = (target[:, 4] - _upper_minus_lower(luma, visible)) / _upper_minus_lower(slope[None], visible)
    luma = luma + missing[_COLUMN] * slope
    return luma + (target[:, 0] - _visible_mean(luma, visible))[_COLUMN]


def _grain(nuisance: _Nuisance, luma: Array, target_step: Array, visible: Array) -> Array:
    """A wavy grain that brings the root mean square luma step up to `target_step`, (B, H, W)."""
    pixels = np.arange(luma.shape[1])
    frequency = 2 * np.pi / nuisance.wave_length_px
    across = (frequency * np.cos(nuisance.wave_angle))[..., None] * pixels
    down = (frequency * np.sin(nuisance.wave_angle))[..., None] * pixels + nuisance.wave_phase[..., None]
    waves = np.einsum("bkh,bkw->bhw", np.cos(down), np.cos(across)) - np.einsum(
        "bkh,bkw->bhw", np.sin(down), np.sin(across)
    )
    waves -= _visible_mean(waves, visible)[_COLUMN]
    missing = np.maximum(target_step**2 - _squared_step(luma, visible), 0.0)
    return waves * np.sqrt(missing / _squared_step(waves, visible))[_COLUMN]


def _visible_mean(values: Array, visible: Array) -> Array:
    return (values * visible).sum((-2, -1)) / visible.sum()


def _upper_minus_lower(values: Array, visible: Array) -> Array:
    half = len(visible) // 2
    return _visible_mean(values[:, :half], visible[:half]) - _visible_mean(values[:, half:], visible[half:])


def _squared_step(luma: Array, visible: Array) -> Array:
    down = _visible_mean(np.diff(luma, axis=1) ** 2, np.minimum(visible[1:], visible[:-1]))
    across = _visible_mean(np.diff(luma, axis=2) ** 2, np.minimum(visible[:, 1:], visible[:, :-1]))
    return (down + across) / 2


def _coloured(nuisance: _Nuisance, luma: Array, target: Array, wall: Array, visible: Array) -> Array:
    """Colours of the wished mean warmth and saturation around `luma`, kept inside the gamut, (B, H, W, 3)."""
    sign, share = nuisance.wall_is_warm, _visible_mean(wall * np.ones_like(visible), visible)
    wall_chroma = (target[:, 2] + sign * target[:, 1]) / (2 * share)
    table_chroma = (target[:, 2] - sign * target[:, 1]) / (2 * (1 - share))
    offsets = wall[..., None] * _chroma(sign * wall_chroma, nuisance.wall_green)[_COLUMN]
    offsets = offsets + (1 - wall)[..., None] * _chroma(-sign * table_chroma, nuisance.table_green)[_COLUMN]
    low, high = _GAMUT
    luma = np.clip(luma, low + 0.02, high - 0.02)
    room = np.minimum((high - luma) / (offsets.max(-1) + 1e-9), (luma - low) / (-offsets.min(-1) + 1e-9))
    return luma[..., None] + offsets * np.minimum(room, 1.0)[..., None]


def _chroma(warmth: Array, green: Array) -> Array:
    """RGB offsets with R - B = `warmth`, green at share `green` between the smaller and the larger, luma 0, (B, 3)."""
    red, blue = np.maximum(warmth, 0.0), np.maximum(-warmth, 0.0)
    offsets = np.stack([red, green * np.abs(warmth), blue], axis=-1)
    return offsets - (offsets @ _LUMA)[:, None]


def _shadow(alpha: Array) -> Array:
    """Luma that a product takes from the table around its foot, (H, W)."""
    size = len(alpha)
    rows, columns = np.flatnonzero(alpha.max(1) > 0.5), np.flatnonzero(alpha.max(0) > 0.5)
    if not len(rows):
        return np.zeros_like(alpha)
    foot, centre, half_width = rows[-1] / size, columns.mean() / size, len(columns) / 2 / size
    y, x = _rows(size)[:, None], _rows(size)[None, :]
    return _SHADOW * np.exp(-(((x - centre) / (0.85 * half_width)) ** 4) - ((y - foot - 0.02) / 0.055) ** 2)
