"""The nine continuous styles of a scene, measured back from the pixels outside its product.

The first five are the default creative features of `image_features`; the other four (where the table begins, how
coarse the grain is, how much decoration lies about, how dark the product's shadow is) are known to the simulator alone.
How a scene of a given style is drawn and who likes it do not belong here.

Shapes: `B` pictures, `M` masks (`B`, or 1 where all pictures share one), `H W` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osmf_models.image_features import FEATURE_NAMES, Array, measure_images

Mask = NDArray[np.bool_]

STYLE_NAMES = (*FEATURE_NAMES, "horizon", "grain", "props", "shadow")
# What a style of 0 renders to, and how far a style of 1 is from it, outside the product; units as `measure_scenes`.
STYLE_CENTRE = np.array([0.57, 0.0, 0.185, 0.0215, 0.0, 0.53, 1.95, 0.023, 0.080])
STYLE_SCALE = np.array([0.13, 0.08, 0.080, 0.0090, 0.15, 0.15, 0.40, 0.019, 0.062])

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_TINY = 1e-9
_SHARPNESS = 24.0  # of the choice among rows at which the table may begin
_FINE_LAG_PX, _COARSE_LAG_PX = 2, 4
_FLAT = 1e-7  # mean squared bend below which a picture has no grain


@dataclass(frozen=True)
class Foot:
    """Where products stand, as shares of the picture's side; every field (M, 1, 1)."""

    row: Array
    centre: Array
    half_width: Array


def measure_styles(images: Array, masks: Array) -> Array:
    """Returns the style that pictures show outside their product, (B, 9) in [-1, 1]; arguments as `measure_scenes`.

    Scenes span about [-1, 1]; anything harsher is clipped, so that it is never better.
    """
    return np.clip((measure_scenes(images, masks) - STYLE_CENTRE) / STYLE_SCALE, -1.0, 1.0)


def measure_scenes(images: Array, masks: Array) -> Array:
    """Returns the styles of `images` in their own units, each measured outside the product.

    Args:
        images: RGB in [0, 1], (B, H, W, 3).
        masks: share of each pixel that the product covers, in [0, 1], (B, H, W).

    Returns:
        (B, 9), in the order of `STYLE_NAMES`: the five of `measure_images`; height at which the table begins, as share
        of the picture's height; logarithm of the grain's wavelength along x in pixels; mean departure of green minus
        the mean of red and blue from its row's mean, in [0, 1]; by how much luma at the product's foot is lower than
        beside it, in [-1, 1].

    Raises:
        ValueError: when the shapes disagree or a product covers a whole half of its picture.
    """
    features = measure_images(images, masks)
    # Masks that are one array seen B times are worked on once.
    one = masks[:1] if masks.strides[0] == 0 else masks
    scene = is_clear(one).astype(np.float64)
    red, green, blue = np.moveaxis(images, -1, 0)
    luma = images @ _LUMA
    more = [
        _horizon(red - blue, scene),
        _grain(luma, one),
        _props(green - (red + blue) / 2, scene),
        (luma * shadow_weights(one)).sum((1, 2)),
    ]
    return np.concatenate([features, np.stack(more, axis=1)], axis=1)


def is_clear(masks: Array) -> Mask:
    """Returns which pixels show nothing of the product, same shape: at its rim the scene mixes with its colours."""
    return np.less(masks, 0.02)


def find_foot(masks: Array) -> Foot:
    """Returns where the products of `masks` (M, H, W) stand; an empty mask stands where a small product would."""
    height, width = masks.shape[1:]
    solid: Mask = np.greater(masks, 0.5)
    rows: Mask = np.any(solid, axis=2)
    is_empty = ~rows.any(1)
    last = height - rows[:, ::-1].argmax(1)
    near = np.abs(np.arange(height) + 1 - last[:, None]) <= 0.08 * height
    columns = (solid & near[:, :, None]).any(1)
    left, right = columns.argmax(1), width - columns[:, ::-1].argmax(1)
    row = np.where(is_empty, 0.84, last / height)
    centre = np.where(is_empty, 0.5, (left + right) / 2 / width)
    half_width = np.where(is_empty, 0.25, np.maximum((right - left) / 2 / width, 0.08))
    return Foot(*(values[:, None, None] for values in (row, centre, half_width)))


def shadow_weights(masks: Array) -> Array:
    """Returns the weight of each pixel's luma in the shadow's strength, (M, H, W): beside the foot less at the foot."""
    height, width = masks.shape[1:]
    foot = find_foot(masks)
    y, x = _centres(height)[:, None], _centres(width)
    across = (x - foot.centre) / foot.half_width
    rows = np.exp(-(((y - foot.row - 0.02) / 0.04) ** 2)) * is_clear(masks)
    beside, below = rows * (1.0 - np.exp(-(across**6))), rows * np.exp(-((across / 0.5) ** 2))
    totals = [part.sum((1, 2))[:, None, None] for part in (beside, below)]
    is_seen = np.minimum(*totals) > 1e-6
    return is_seen * (beside / np.maximum(totals[0], _TINY) - below / np.maximum(totals[1], _TINY))


@dataclass(frozen=True)
class Split:
    """Rows split into those above and those below, for each row (but the first) at which the lower part may begin.

    Attributes:
        between: variance between the two parts, (B, H - 1).
        above: mean value of the upper part, (B, H - 1).
        below: mean value of the lower part, (B, H - 1).
    """

    between: Array
    above: Array
    below: Array


def split_rows(values: Array, scene: Array) -> Split:
    """Returns how rows split into two levels of `values` (B, H, W), measured where `scene` (M, H, W) is 1."""
    height, width = scene.shape[1:]
    weight = np.minimum(scene.sum(2) / (0.05 * width), 1.0)
    num_above, sum_above = np.cumsum(weight, 1), np.cumsum(weight * _row_means(values, scene), 1)
    num_below, sum_below = num_above[:, -1:] - num_above, sum_above[:, -1:] - sum_above
    above, below = sum_above / np.maximum(num_above, _TINY), sum_below / np.maximum(num_below, _TINY)
    between = num_above * num_below / height**2 * (above - below) ** 2
    return Split(between[:, :-1], above[:, :-1], below[:, :-1])


def _centres(num_px: int) -> Array:
    return (np.arange(num_px) + 0.5) / num_px


def _row_means(values: Array, scene: Array) -> Array:
    return (values * scene).sum(2) / np.maximum(scene.sum(2), _TINY)


def _horizon(warmth: Array, scene: Array) -> Array:
    """Share of the height at which rows split best into two levels of red minus blue (Otsu's criterion, softened)."""
    height = scene.shape[1]
    between = split_rows(warmth, scene).between
    likely = ((between + _TINY) / (between.max(1, keepdims=True) + _TINY)) ** _SHARPNESS
    return (likely * np.arange(1, height)).sum(1) / likely.sum(1) / height


def _grain(luma: Array, masks: Array) -> Array:
    """Logarithm of the wavelength along x in pixels, from how luma bends over two lags.

    A wave of wave number k bends by -4 sin²(k lag / 2) times itself, so the two bends have the ratio 2 + 2 cos(2k)
    at each pixel, whatever the wave's height, phase and slope in y (this project's own design). Rows at the foot count
    little: there the shadow bends.
    """
    span, step, height = _COARSE_LAG_PX, _FINE_LAG_PX, masks.shape[1]
    middle = luma[:, :, span:-span]
    fine = luma[:, :, span - step : -span - step] + luma[:, :, span + step : -span + step or None] - 2 * middle
    coarse = luma[:, :, : -2 * span] + luma[:, :, 2 * span :] - 2 * middle
    solid = np.cumsum(np.pad(is_clear(masks), ((0, 0), (0, 0), (1, 0))), axis=2)
    is_whole: Mask = solid[:, :, 2 * span + 1 :] - solid[:, :, : -2 * span - 1] == 2 * span + 1
    from_foot = _centres(height)[:, None] - find_foot(masks).row
    weight = is_whole * np.where(from_foot > -0.10, 0.001, 1.0)
    total = np.maximum(weight.sum((1, 2)), _TINY)
    bends = [(bend**2 * weight).sum((1, 2)) / total + _FLAT for bend in (fine, coarse)]
    cosine = np.clip(np.sqrt(bends[1] / bends[0]) / 2 - 1, -0.999, 0.98)
    return np.log(4 * np.pi / np.arccos(cosine))


def _props(green: Array, scene: Array) -> Array:
    departure = np.abs(green - _row_means(green, scene)[:, :, None])
    return (departure * scene).sum((1, 2)) / np.maximum(scene.sum((1, 2)), _TINY)
