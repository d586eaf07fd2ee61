"""Flat shapes as signed distances, and how layers of them become one shaded, anti-aliased RGBA picture.

Coordinates are shares of the picture's side: x to the right, y downwards, both in [0, 1]; distances are negative
inside. What a shoe or a lamp looks like does not belong here.

Shapes: `S` side of the supersampled grid, `H W` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = tuple[float, float]
Colour = tuple[float, float, float]

_SUPERSAMPLING = 4
_BEVEL = 0.05  # width of the darker rim that makes a flat shape look round
_SPLINE_STEPS = 6


@dataclass(frozen=True)
class Layer:
    """One shape of a drawing, painted over the layers before it.

    Attributes:
        distance: signed distance to the outline, negative inside, (S, S).
        colour: RGB in [0, 1].
        roundness: how strongly the rim and the side away from the light darken, in [0, 1].
    """

    distance: Array
    colour: Colour
    roundness: float = 0.6


def grid(image_px: int) -> tuple[Array, Array]:
    """Returns x and y of the supersampled pixel centres, each (S, S)."""
    side = image_px * _SUPERSAMPLING
    centres = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(centres, centres)
    return x, y


def ellipse(x: Array, y: Array, centre: Point, radii: Point) -> Array:
    """Distance to an ellipse, exact on the outline and close to it."""
    u, v = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    return (np.hypot(u, v) - 1.0) * min(radii)


def rounded_box(x: Array, y: Array, centre: Point, half_sides: Point, radius: float) -> Array:
    """Distance to an upright rectangle with rounded corners."""
    u = np.abs(x - centre[0]) - half_sides[0] + radius
    v = np.abs(y - centre[1]) - half_sides[1] + radius
    return np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0) - radius


def stroke(x: Array, y: Array, points: list[Point], radius: float) -> Array:
    """Distance to a line of round pens through `points`."""
    return _distance_to_segments(x, y, points[:-1], points[1:]) - radius


def polygon(x: Array, y: Array, points: list[Point], radius: float = 0.0) -> Array:
    """Distance to a closed polygon, grown by `radius`, which rounds its corners."""
    ends = [*points[1:], points[0]]
    inside = np.zeros(x.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(points, ends, strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return np.where(inside, -1.0, 1.0) * _distance_to_segments(x, y, points, ends) - radius


def ring(x: Array, y: Array, centre: Point, radii: Point, half_width: float) -> Array:
    """Distance to an elliptical band around `centre`."""
    return np.abs(ellipse(x, y, centre, radii)) - half_width


def curve(points: list[Point]) -> list[Point]:
    """Returns a closed Catmull-Rom spline through `points`, as a polygon."""
    control = np.asarray(points)
    before, after, after_next = np.roll(control, 1, 0), np.roll(control, -1, 0), np.roll(control, -2, 0)
    t = np.linspace(0, 1, _SPLINE_STEPS, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (part[:, None] for part in (before, control, after, after_next))
    spline = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return [(float(px), float(py)) for px, py in spline.reshape(-1, 2)]


def flatten(layers: list[Layer], image_px: int) -> Array:
    """Returns the layers as one RGBA picture in [0, 1], (H, W, 4), colour not premultiplied."""
    x, y = grid(image_px)
    colour, alpha = np.zeros((*x.shape, 3)), np.zeros(x.shape)
    for layer in layers:
        cover = np.clip(0.5 - layer.distance * len(x), 0, 1)[..., None]
        colour = colour * (1 - cover) + _shaded(layer, x, y) * cover
        alpha = np.maximum(alpha, cover[..., 0])
    alpha_px, colour_px = _average(alpha[..., None]), _average(colour * alpha[..., None])
    return np.concatenate([colour_px / np.maximum(alpha_px, 1e-6), alpha_px], axis=-1).clip(0, 1)


def _shaded(layer: Layer, x: Array, y: Array) -> Array:
    """Colour under light from the upper left, darker at the rim."""
    rim = np.clip(-layer.distance / _BEVEL, 0, 1)
    light = 1.0 + layer.roundness * (0.34 * (rim * (2 - rim) - 0.8) - 0.36 * (x - 0.5) - 0.24 * (y - 0.5))
    return np.clip(np.asarray(layer.colour) * light[..., None], 0.0, 1.0)


def _distance_to_segments(x: Array, y: Array, starts: list[Point], ends: list[Point]) -> Array:
    nearest = np.full(x.shape, np.inf)
    for (x0, y0), (x1, y1) in zip(starts, ends, strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        nearest = np.minimum(nearest, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
    return np.sqrt(nearest)


def _average(values: Array) -> Array:
    side = len(values) // _SUPERSAMPLING
    return values.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING, -1).mean((1, 3))
