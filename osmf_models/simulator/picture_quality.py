"""How whole a picture is, from its pixels: 1 for anything that the market itself would draw, about 0 when broken.

A product of smooth terms, one for each defect (this project's own design): noise, patch seams, hues that wander,
clipped pixels, garish colour, a damaged product. Each is 1 up to a margin that clean scenes keep with room to spare
and falls as a Gaussian beyond. Whether anybody likes the picture does not belong here.

Shapes: `B` pictures, `H W` pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from osmf_models.image_features import Array
from osmf_models.simulator.scene_features import is_clear, split_rows

Mask = NDArray[np.bool_]

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_PATCHES_PX = (4, 6, 8, 12, 16, 32)
_EDGE_PX, _FAINT_HORIZON = 2, 0.08
_MIN_PAIRS_PER_LINE, _MIN_LINES = 4, 3
_MANY_STAND_OUT, _FEW_STAND_OUT = 1.3, 2.2  # times the usual jump that a seam must exceed
# Per defect: largest value that costs nothing, further value that costs a factor exp(-1).
_LIMITS = {
    "noise": (0.086, 0.045),
    "seams": (0.0135, 0.022),
    "wandering_hue": (0.100, 0.100),
    "clipped": (0.01, 0.10),
    "garish": (0.35, 0.10),
    "damage": (0.0, 1.0),
}
_LUMA_DAMAGE, _COLOUR_DAMAGE = (0.012, 0.045), (0.019, 0.050)


def picture_quality(images: Array, cutout: Array) -> Array:
    """Returns the quality of pictures of one product, in [0, 1], (B,); arguments as `measure_defects`."""
    quality = np.ones(len(images))
    for name, size in measure_defects(images, cutout).items():
        free, scale = _LIMITS[name]
        quality = quality * np.exp(-((np.maximum(size - free, 0.0) / scale) ** 2))
    return quality


def measure_defects(images: Array, cutout: Array) -> dict[str, Array]:
    """Returns the size of each defect in pictures of one product, each (B,).

    Args:
        images: RGB in [0, 1], (B, H, W, 3).
        cutout: the product as the market draws it, RGBA in [0, 1], (H, W, 4).

    Returns:
        `noise`: root mean square bend of the channels from pixel to pixel; `seams`: by how much more luma jumps at the
        lines of a patch grid; `wandering_hue`: mean departure of red minus blue from the wall's and the table's, as
        share of the step between the two; `clipped`: share of channel values at the end of their range; `garish`: mean
        of largest minus smallest channel; `damage`: departure from the cut-out within the product, 1 if plain to see.

    Raises:
        ValueError: when the shapes disagree.
    """
    if images.ndim != 4 or images.shape[1:] != (*cutout.shape[:2], 3):
        raise ValueError(f"expected images (B, {cutout.shape[0]}, {cutout.shape[1]}, 3), got {images.shape}.")
    is_scene = is_clear(cutout[..., 3])
    red, green, blue = np.moveaxis(images, -1, 0)  # pairwise maxima are far quicker than one over an axis of three
    largest = np.maximum(np.maximum(red, green), blue)
    smallest = np.minimum(np.minimum(red, green), blue)
    is_clipped = _soft_step(largest, 0.985) + _soft_step(1.0 - smallest, 0.985)
    return {
        "noise": _bend(images, is_scene),
        "seams": _seam_excess(images @ _LUMA, is_scene),
        "wandering_hue": _wandering_hue(red - blue, is_scene),
        "clipped": _mean_where(is_clipped, is_scene),
        "garish": _mean_where(largest - smallest, is_scene),
        "damage": _damage(images - cutout[..., :3], np.greater(cutout[..., 3], 0.99)),
    }


def _soft_step(values: Array, threshold: float) -> Array:
    return np.clip((values - threshold) / 0.01 + 0.5, 0.0, 1.0)


def _mean_where(values: Array, region: Mask) -> Array:
    return (values * region).sum((1, 2)) / max(region.sum(), 1)


def _wandering_hue(warmth: Array, is_scene: Mask) -> Array:
    """Mean departure of red minus blue from its two levels above and below the best horizon, as share of their step.

    Rows near that horizon are left out, so that a blurred edge costs nothing.
    """
    region = _away_from_product(is_scene)
    split = split_rows(warmth, region[None].astype(np.float64))
    best, rows = split.between.argmax(1)[:, None], np.arange(warmth.shape[1])
    above, below = (np.take_along_axis(level, best, 1) for level in (split.above, split.below))
    departure = np.abs(warmth - np.where(rows <= best, above, below)[..., None])
    weight = region * (np.abs(rows - best - 0.5) > _EDGE_PX)[..., None]
    mean = (departure * weight).sum((1, 2)) / np.maximum(weight.sum((1, 2)), 1)
    return mean / np.maximum(np.abs(above - below)[:, 0], _FAINT_HORIZON)


def _away_from_product(is_scene: Mask) -> Mask:
    """Scene pixels that touch no pixel of the product."""
    padded = np.pad(is_scene, 1, constant_values=True)
    return padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _damage(departure: Array, is_product: Mask) -> Array:
    """The worse of luma and colour, each in units of what is plain to see, less what compression does."""
    luma = np.sqrt(_mean_where((departure @ _LUMA) ** 2, is_product))
    colour = _mean_where(np.abs(departure).mean(-1), is_product)
    sizes = [(size - free) / scale for size, (free, scale) in ((luma, _LUMA_DAMAGE), (colour, _COLOUR_DAMAGE))]
    return np.maximum(*sizes)


def _bend(images: Array, is_scene: Mask) -> Array:
    """Root mean square bend from pixel to pixel, over the channels: large for noise, small for a soft grain."""
    total, count = np.zeros(len(images)), 0.0
    for axis in (0, 1):
        whole = np.lib.stride_tricks.sliding_window_view(is_scene, 3, axis).all(-1)
        bend = np.diff(images, n=2, axis=axis + 1)
        total += ((bend**2).mean(-1) * whole).sum((1, 2))
        count += whole.sum()
    return np.sqrt(total / max(count, 1))


def _seam_excess(luma: Array, is_scene: Mask) -> Array:
    """By how much luma jumps at the lines of a patch grid more than elsewhere, the worst grid, (B,).

    The median over a grid's lines is taken, so that one horizon is no seam; lines that are too few for it must stand
    out more, and be upright.
    """
    excess = [np.zeros(len(luma))]
    for axis in (0, 1):
        jump, is_seen = _jumps(luma, is_scene, axis)
        for patch_px in _PATCHES_PX:
            is_seam = is_seen & ((np.arange(len(is_seen)) + 2) % patch_px == 0)
            is_other, is_many = is_seen & ~is_seam, is_seam.sum() >= _MIN_LINES
            if is_other.any() and (is_many or (axis == 1 and is_seam.any())):
                usual = jump[:, is_other].mean(1) * (_MANY_STAND_OUT if is_many else _FEW_STAND_OUT)
                excess.append(np.median(jump[:, is_seam], axis=1) - usual)
    return np.max(excess, axis=0)


def _jumps(luma: Array, is_scene: Mask, axis: int) -> tuple[Array, Mask]:
    """Mean jump of luma over each line between pixels along `axis`, (B, lines), and whether the line is seen, (lines,).

    A jump is a step that differs from the steps on its two sides, so that a smooth grain has little of it.
    """
    whole: Mask = np.all(np.lib.stride_tricks.sliding_window_view(is_scene, 4, axis), axis=-1)
    step = np.moveaxis(np.diff(luma, axis=axis + 1), axis + 1, 1)
    jump = np.abs(step[:, 1:-1] - (step[:, :-2] + step[:, 2:]) / 2) * np.moveaxis(whole, axis, 0)
    num_pairs = whole.sum(1 - axis)
    return jump.sum(2) / np.maximum(num_pairs, 1), num_pairs >= _MIN_PAIRS_PER_LINE
