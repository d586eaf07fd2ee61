"""How whole a picture is, from its pixels: 1 for anything that the market itself would draw, about 0 when broken.

A product of five smooth terms (this project's own design): no noise, no patch seams, no clipped pixels, no garish
colour, an undamaged product. Each is 1 up to the worst that clean scenes show and falls as a Gaussian beyond. Whether
anybody likes the picture does not belong here.

Shapes: `B` pictures, `H W` pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.shapes import Array

Mask = NDArray[np.bool_]

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_EVENLY = np.full(3, 1 / 3)
_PATCHES_PX = (4, 8, 16)
_MIN_PAIRS_PER_LINE, _MIN_LINES = 4, 3
# (largest value that costs nothing, further value that costs a factor exp(-1))
_NOISE = (0.060, 0.050)
_SEAMS = (0.012, 0.022)
_CLIPPED = (0.01, 0.10)
_GARISH = (0.44, 0.12)
_DAMAGE = (0.02, 0.07)


def picture_quality(images: Array, cutout: Array) -> Array:
    """Returns the quality of pictures of one product, in [0, 1], (B,).

    Args:
        images: RGB in [0, 1], (B, H, W, 3).
        cutout: the product as the market draws it, RGBA in [0, 1], (H, W, 4).

    Raises:
        ValueError: when the shapes disagree.
    """
    if images.ndim != 4 or images.shape[1:] != (*cutout.shape[:2], 3):
        raise ValueError(f"expected images (B, {cutout.shape[0]}, {cutout.shape[1]}, 3), got {images.shape}.")
    alpha = cutout[..., 3]
    is_scene: Mask = np.less(alpha, 0.01)
    red, green, blue = np.moveaxis(images, -1, 0)  # pairwise maxima are far quicker than one over an axis of three
    largest = np.maximum(np.maximum(red, green), blue)
    smallest = np.minimum(np.minimum(red, green), blue)
    is_clipped = _soft_step(largest, 0.985) + _soft_step(1.0 - smallest, 0.985)
    return (
        _fall(_second_difference(images, is_scene), _NOISE)
        * _fall(_seam_excess(images @ _LUMA, is_scene), _SEAMS)
        * _fall(_mean_where(is_clipped, is_scene), _CLIPPED)
        * _fall(_mean_where(largest - smallest, is_scene), _GARISH)
        * _fall(_mean_where(np.abs(images - cutout[..., :3]) @ _EVENLY, np.greater(alpha, 0.99)), _DAMAGE)
    )


def _fall(values: Array, limits: tuple[float, float]) -> Array:
    free, scale = limits
    return np.exp(-((np.maximum(values - free, 0.0) / scale) ** 2))


def _soft_step(values: Array, threshold: float) -> Array:
    return np.clip((values - threshold) / 0.01 + 0.5, 0.0, 1.0)


def _mean_where(values: Array, region: Mask) -> Array:
    return (values * region).sum((1, 2)) / max(region.sum(), 1)


def _second_difference(images: Array, is_scene: Mask) -> Array:
    """Root mean square bend from pixel to pixel, over the channels: large for noise, small for a soft grain."""
    total, count = np.zeros(len(images)), 0.0
    for axis in (0, 1):
        whole = np.lib.stride_tricks.sliding_window_view(is_scene, 3, axis).all(-1)
        bend = np.diff(images, n=2, axis=axis + 1)
        total += ((bend**2) @ _EVENLY * whole).sum((1, 2))
        count += whole.sum()
    return np.sqrt(total / max(count, 1))


def _seam_excess(luma: Array, is_scene: Mask) -> Array:
    """By how much luma jumps at the lines of a patch grid more than elsewhere, the worst grid, (B,).

    A jump is a step that differs from the steps on its two sides, so that a smooth grain has little of it; the median
    over a grid's lines is taken, so that one horizon is no seam.
    """
    excess = [np.zeros(len(luma))]
    for axis in (0, 1):
        whole = np.lib.stride_tricks.sliding_window_view(is_scene, 4, axis).all(-1)
        step = np.diff(luma, axis=axis + 1)
        before, at, after = (np.roll(step, shift, axis + 1) for shift in (1, 0, -1))
        inner = slice(1, step.shape[axis + 1] - 1)
        jump = np.take(np.abs(at - (before + after) / 2), range(inner.start, inner.stop), axis + 1) * whole
        per_line = jump.sum(2 - axis) / np.maximum(whole.sum(1 - axis), 1)
        is_seen = whole.sum(1 - axis) >= _MIN_PAIRS_PER_LINE
        for patch_px in _PATCHES_PX:
            is_seam = (np.arange(per_line.shape[1]) + 2) % patch_px == 0
            if (is_seam & is_seen).sum() >= _MIN_LINES:
                seams, others = per_line[:, is_seam & is_seen], per_line[:, ~is_seam & is_seen]
                excess.append(np.median(seams, axis=1) - others.mean(1))
    return np.max(excess, axis=0)
