"""Measurable properties of an ad image outside the product's mask: the default creative features.

Numpy only, so that Spark workers, the simulator and evaluation can all use it. What anybody *likes* about a picture
does not belong here.

Shapes: `B` pictures, `H W` pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEATURE_NAMES = ("brightness", "warmth", "saturation", "texture", "gradient")
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_MIN_WEIGHT = 1e-9


def measure_images(images: Array, masks: Array) -> Array:
    """Returns the features of `images`, each measured outside its product.

    Args:
        images: RGB in [0, 1], (B, H, W, 3).
        masks: share of each pixel that the product covers, in [0, 1], (B, H, W).

    Returns:
        (B, 5), in the order of `FEATURE_NAMES`: mean luma in [0, 1]; mean red minus blue in [-1, 1]; mean of largest
        minus smallest channel in [0, 1]; root mean square of the luma steps between neighbouring pixels in [0, 1];
        mean luma of the upper half minus that of the lower half in [-1, 1].

    Raises:
        ValueError: when the shapes disagree or a product covers a whole half of its picture.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or masks.shape != images.shape[:3]:
        raise ValueError(f"expected images (B, H, W, 3) and masks (B, H, W), got {images.shape} and {masks.shape}.")
    scene = 1.0 - masks
    luma = images @ _LUMA
    half = images.shape[1] // 2
    if min(scene[:, :half].sum((1, 2)).min(), scene[:, half:].sum((1, 2)).min()) < 1.0:
        raise ValueError("a product covers the whole upper or lower half of its picture: no scene is left to measure.")
    brightness = _weighted_mean(luma, scene)
    warmth = _weighted_mean(images[..., 0] - images[..., 2], scene)
    saturation = _weighted_mean(images.max(-1) - images.min(-1), scene)
    texture = np.sqrt(_mean_squared_step(luma, scene))
    gradient = _weighted_mean(luma[:, :half], scene[:, :half]) - _weighted_mean(luma[:, half:], scene[:, half:])
    return np.stack([brightness, warmth, saturation, texture, gradient], axis=1)


def _weighted_mean(values: Array, weights: Array) -> Array:
    return (values * weights).sum((1, 2)) / np.maximum(weights.sum((1, 2)), _MIN_WEIGHT)


def _mean_squared_step(luma: Array, scene: Array) -> Array:
    """Mean squared luma difference between neighbours, pairs that touch the product left out."""
    total, weight = np.zeros(len(luma)), np.zeros(len(luma))
    for axis in (1, 2):
        pairs = np.take(scene, range(1, scene.shape[axis]), axis) * np.take(scene, range(scene.shape[axis] - 1), axis)
        pairs = (pairs > 0.99).astype(np.float64)
        total += (np.diff(luma, axis=axis) ** 2 * pairs).sum((1, 2))
        weight += pairs.sum((1, 2))
    return total / np.maximum(weight, _MIN_WEIGHT)
