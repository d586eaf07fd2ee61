"""Backdrops with a continuous style: a studio wall behind a table, drawn so that the style can be measured back.

A style has nine entries in [-1, 1], in the order of `scene_features.STYLE_NAMES`. Everything else about a scene (hues,
where the light falls, where props lie) is nuisance, fixed by the scene's seed. The parts of a scene belong to
`backdrop`, who likes which style to the market.

The colours: a pixel of luma L has red minus blue w and green minus the mean of red and blue g, and so a largest minus
smallest channel of max(|w|, |w| / 2 + |g|). Wall and table have one w each, apart so far that the horizon shows, which
together make the warmth; g tops up the saturation; props change g alone (this project's own design).

Shapes: `B` scenes, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osmf_models.image_features import Array
from osmf_models.simulator.backdrop import (
    Nuisance,
    centres,
    draw_nuisance,
    light_pool,
    props,
    shadow_shape,
    wall_cover,
    waves,
)
from osmf_models.simulator.scene_features import (
    STYLE_CENTRE,
    STYLE_NAMES,
    STYLE_SCALE,
    is_clear,
    measure_scenes,
    shadow_weights,
)

NUM_STYLES = len(STYLE_NAMES)

_MAX_CORRECTION = 0.8  # of a style's scale
_GAMUT = (0.03, 0.97)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_MAX_WARMTH = 0.38  # of wall or table
_FULL_PROPS = 0.042  # target at which each cell holds a prop
_MAX_PROP = 0.22  # departure of one prop's green; where few props show, the target is missed
_MIN_GRAIN = 0.001  # step between pixels
_COLUMN = (slice(None), None, None)  # turns (B,) into (B, 1, 1)


@dataclass(frozen=True)
class _Fields:
    """Parts of scenes that no correction changes; every field (B, H, W)."""

    pool: Array  # luma of the lamp's light
    grain: Array  # luma, neutral in brightness, gradient and shadow, of mean squared step 1
    props: Array  # green minus the mean of red and blue, of mean size 1


@dataclass(frozen=True)
class _Place:
    """What the product's outline means for every scene behind it.

    Attributes:
        alpha: share of each pixel that the product covers, (H, W).
        pairs: whether a pixel and the next one down, and across, show scene alone, (H - 1, W) and (H, W - 1).
        weights: of each pixel's luma in brightness, gradient and shadow, (F, H, W); F is 2 where no shadow can be seen.
        fields: luma fields that together can change these in any wished way, (F, H, W).
    """

    alpha: Array
    pairs: tuple[Array, Array]
    weights: Array
    fields: Array


def render_scenes(styles: Array, image_px: int, seeds: NDArray[np.int64], product_alpha: Array | None = None) -> Array:
    """Returns one backdrop per style, RGB in [0, 1], (B, H, W, 3).

    Each scene is drawn, measured, and drawn again with its targets corrected by what was missed.

    Args:
        styles: in [-1, 1], (B, 9).
        image_px: side H = W of the picture.
        seeds: one per scene, (B,); the same style, seed and alpha give the same picture.
        product_alpha: where a product will stand, in [0, 1], (H, W): its shadow falls on the scene and the style is
            met outside it; None for an empty scene.

    Raises:
        ValueError: when the shapes disagree or a style leaves [-1, 1].
    """
    if styles.ndim != 2 or styles.shape[1] != NUM_STYLES or seeds.shape != styles.shape[:1]:
        raise ValueError(f"expected styles (B, {NUM_STYLES}) and seeds (B,), got {styles.shape} and {seeds.shape}.")
    if not np.abs(styles).max(initial=0.0) <= 1.0:
        raise ValueError("a style lies outside [-1, 1].")
    alpha = np.zeros((image_px, image_px)) if product_alpha is None else product_alpha
    if alpha.shape != (image_px, image_px):
        raise ValueError(f"expected a product_alpha ({image_px}, {image_px}), got {alpha.shape}.")
    if not len(styles):
        return np.zeros((0, image_px, image_px, 3))
    nuisance, place = draw_nuisance(seeds), _place(alpha)
    target = STYLE_CENTRE + STYLE_SCALE * styles
    fields = _fields(nuisance, place, target)
    masks = np.broadcast_to(alpha, (len(styles), image_px, image_px))
    missed = target - measure_scenes(_draw(nuisance, place, fields, target), masks)
    most = _MAX_CORRECTION * STYLE_SCALE
    return _draw(nuisance, place, fields, target + np.clip(missed, -most, most))


def place_product(scenes: Array, cutout: Array) -> Array:
    """Returns the scenes with one product standing in them, RGB in [0, 1], (B, H, W, 3).

    Args:
        scenes: RGB in [0, 1], (B, H, W, 3).
        cutout: the product at its place, RGBA in [0, 1], (H, W, 4).
    """
    colour, alpha = cutout[..., :3], cutout[..., 3:]
    return scenes * (1.0 - alpha) + colour * alpha


def _place(alpha: Array) -> _Place:
    visible, half = 1.0 - alpha, len(alpha) // 2
    upper = np.arange(len(alpha))[:, None] < half
    split = [visible * part / (visible * part).sum() for part in (upper, ~upper)]
    weights, fields = [visible / visible.sum(), split[0] - split[1]], [np.ones_like(alpha), _slope(len(alpha))]
    shadow = shadow_weights(alpha[None])[0]
    if alpha.max() > 0.5 and shadow.any():
        weights.append(shadow)
        fields.append(-shadow_shape(alpha))
    solid = (visible > 0.99).astype(float)
    return _Place(alpha, (solid[1:] * solid[:-1], solid[:, 1:] * solid[:, :-1]), np.stack(weights), np.stack(fields))


def _slope(image_px: int) -> Array:
    return np.cos(np.pi * centres(image_px))[:, None] * np.ones(image_px)


def _fields(nuisance: Nuisance, place: _Place, target: Array) -> _Fields:
    image_px, visible = len(place.alpha), is_clear(place.alpha)
    grain = _steered(waves(nuisance, np.exp(target[:, 6]), image_px), place, np.zeros((len(target), 3)))
    prop = props(nuisance, np.clip(target[:, 7] / _FULL_PROPS, 0.0, 1.0) ** 0.6, image_px)
    row_means = (prop * visible).sum(2) / np.maximum(visible.sum(1), 1)
    prop_size = (np.abs(prop - row_means[..., None]) * visible).sum((1, 2)) / np.maximum(visible.sum(), 1)
    return _Fields(
        pool=light_pool(nuisance, image_px),
        grain=grain / np.sqrt(_squared_step(grain, place))[_COLUMN],
        props=prop / np.maximum(prop_size, target[:, 7] / _MAX_PROP)[_COLUMN],
    )


def _draw(nuisance: Nuisance, place: _Place, fields: _Fields, target: Array) -> Array:
    """Scenes whose styles are about `target`, (B, 9) in the units of `measure_scenes`."""
    wall = wall_cover(target[:, 5], len(place.alpha))
    smooth = _steered(fields.pool - nuisance.table_luma[_COLUMN] * wall, place, target[:, [0, 4, 8]])
    grain_step = np.sqrt(np.maximum(target[:, 3] ** 2 - _squared_step(smooth, place), _MIN_GRAIN**2))
    luma = smooth + fields.grain * grain_step[_COLUMN]
    prop = fields.props * np.maximum(target[:, 7], 0.0)[_COLUMN]
    chroma = _within_gamut(_chroma(nuisance, place, target, wall), smooth, wall)
    return _coloured(luma, *chroma, prop)


def _steered(luma: Array, place: _Place, wished: Array) -> Array:
    """`luma` plus the fields that give it the `wished` brightness, gradient and shadow, (B, H, W)."""
    response = np.einsum("fhw,ghw->fg", place.weights, place.fields)
    missing = wished[:, : len(response)] - np.einsum("bhw,fhw->bf", luma, place.weights)
    return luma + np.einsum("bf,fg,ghw->bhw", missing, np.linalg.inv(response).T, place.fields, optimize=True)


def _squared_step(luma: Array, place: _Place) -> Array:
    down, across = place.pairs
    total = (np.diff(luma, axis=1) ** 2 * down).sum((1, 2)) + (np.diff(luma, axis=2) ** 2 * across).sum((1, 2))
    return total / (down.sum() + across.sum())


def _chroma(nuisance: Nuisance, place: _Place, target: Array, wall: Array) -> tuple[Array, Array]:
    """Red minus blue, and green minus the mean of red and blue, of each row, (B, H, 1)."""
    warmth, saturation, sign = target[:, 1], target[:, 2], nuisance.wall_is_warm
    visible = 1.0 - place.alpha
    share = (wall[..., 0] * visible.sum(1)).sum(1) / visible.sum()
    shares = np.stack([share, 1.0 - share])
    full = (saturation + sign * warmth) / (2 * share) + (saturation - sign * warmth) / (2 * (1 - share))
    most = (_MAX_WARMTH - np.abs(warmth)) / shares.max(0)
    apart = np.clip(full * nuisance.contrast, 0.10, np.minimum(most, full))
    red_blue = warmth + sign * apart * np.stack([1.0 - share, -share])
    size, other = np.abs(red_blue), np.abs(red_blue[::-1])
    wished = np.maximum(size, np.minimum(saturation, (saturation - shares[::-1] * other) / shares))
    hue = np.stack([nuisance.wall_green, nuisance.table_green])
    green = np.where(wished > size + 1e-3, np.sign(hue) * (wished - size / 2), hue * size / 2)
    return _by_row(red_blue, wall), _by_row(green, wall)


def _by_row(wall_and_table: Sequence[Array] | Array, wall: Array) -> Array:
    return wall_and_table[0][_COLUMN] * wall + wall_and_table[1][_COLUMN] * (1.0 - wall)


def _offsets(red_blue: Array, green: Array) -> tuple[Array, Array, Array]:
    """Red, green and blue less luma: their weighted sum is 0."""
    mean = -_LUMA[1] * green - (_LUMA[0] - _LUMA[2]) / 2 * red_blue
    return mean + red_blue / 2, mean + green, mean - red_blue / 2


def _within_gamut(chroma: tuple[Array, Array], luma: Array, wall: Array) -> tuple[Array, Array]:
    """The chroma of each row, less on all of wall or table where one of its rows would leave the gamut."""
    offsets, (low, high) = _offsets(*chroma), _GAMUT
    row_luma = luma.mean(2, keepdims=True)
    above = (high - row_luma) / np.maximum(np.maximum.reduce(offsets), 1e-9)
    below = (row_luma - low) / np.maximum(-np.minimum.reduce(offsets), 1e-9)
    room = np.clip(np.minimum(above, below), 0.2, 1.0)
    room = _by_row([np.where(part > 0.5, room, 1.0).min((1, 2)) for part in (wall, 1.0 - wall)], wall)
    return chroma[0] * room, chroma[1] * room


def _coloured(luma: Array, red_blue: Array, green: Array, prop: Array) -> Array:
    """Colours around `luma`, (B, H, W, 3); where they would leave the gamut, luma is clipped and props are fainter.

    Red minus blue stays the same all along a row.
    """
    base, (low, high) = _offsets(red_blue, green), _GAMUT
    luma = np.clip(luma, low - np.minimum.reduce(base), high - np.maximum.reduce(base))
    most_green = np.minimum(
        (high - luma - base[1]) / (1 - _LUMA[1]), (luma + np.minimum(base[0], base[2]) - low) / _LUMA[1]
    )
    least_green = np.maximum(
        (low - luma - base[1]) / (1 - _LUMA[1]), (luma + np.maximum(base[0], base[2]) - high) / _LUMA[1]
    )
    prop = np.clip(prop, least_green, most_green)
    outer = luma - _LUMA[1] * prop
    return np.stack([outer + base[0], outer + base[1] + prop, outer + base[2]], axis=-1)
