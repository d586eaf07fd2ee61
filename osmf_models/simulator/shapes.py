"""Flat shapes as signed distances, and how layers of them become one shaded, anti-aliased RGBA picture.

Coordinates are those of a drawing, as shares of the picture's side at scale 1: x to the right of the product's middle,
y upwards from its foot; distances are negative inside. What a shoe or a lamp looks like does not belong here.

Shapes: `S` side of the supersampled grid, `H W` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = tuple[float, float]
Colour = tuple[float, float, float]

_SUPERSAMPLING = 2
_BEVEL = 0.05  # width of the darker rim that makes a flat shape look round
_SPLINE_STEPS = 5
_DARKEST, _KNEE, _LIGHTEST = 0.03, 0.78, 0.96  # colours between the knee and the lightest are compressed, not clipped


@dataclass(frozen=True)
class Placement:
    """Where a product stands and how large; an input of every drawing.

    Attributes:
        scale: 1 is the drawing as designed, in [0.7, 1.1].
        x: horizontal middle of the drawing, as a share of the side, 0.5 in the middle.
        foot: height at which the product stands, as a share of the side from the top.
    """

    scale: float
    x: float
    foot: float


@dataclass(frozen=True)
class Layer:
    """One shape of a drawing, painted over the layers before it.

    Attributes:
        distance: signed distance to the outline, negative inside, (S, S).
        colour: RGB in [0, 1].
        roundness: how strongly the rim and the side away from the light darken, in [0, 1].
        opacity: in (0, 1].
        softness: width over which the outline fades, 0 for a sharp edge.
        is_on_product: whether it only tints what the layers before it have painted, as a highlight or a seam does.
    """

    distance: Array
    colour: Colour
    roundness: float = 0.6
    opacity: float = 1.0
    softness: float = 0.0
    is_on_product: bool = False


def grid(image_px: int, placement: Placement) -> tuple[Array, Array]:
    """Returns the drawing's x and y at the supersampled pixel centres, each (S, S)."""
    side = image_px * _SUPERSAMPLING
    centres = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid((centres - placement.x) / placement.scale, (placement.foot - centres) / placement.scale)
    return x, y


def ellipse(x: Array, y: Array, centre: Point, radii: Point) -> Array:
    """Distance to an ellipse, to first order around the outline."""
    u, v = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    level, slope = np.hypot(u, v), np.hypot(u / radii[0], v / radii[1])
    return np.where(slope < 1e-6, -min(radii), level * (level - 1.0) / np.maximum(slope, 1e-6))


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
            rows = np.flatnonzero((y0 > y[:, 0]) != (y1 > y[:, 0]))
            inside[rows] ^= x[rows] < (x1 - x0) * (y[rows] - y0) / (y1 - y0) + x0
    return np.where(inside, -1.0, 1.0) * _distance_to_segments(x, y, points, ends) - radius


def ring(x: Array, y: Array, centre: Point, radii: Point, half_width: float) -> Array:
    """Distance to an elliptical band around `centre`."""
    return np.abs(ellipse(x, y, centre, radii)) - half_width


def curve(points: list[Point]) -> list[Point]:
    """Returns a closed Catmull-Rom spline through `points`, as a polygon."""
    control = np.asarray(points)
    return _spline(np.roll(control, 1, 0), control, np.roll(control, -1, 0), np.roll(control, -2, 0))


def smooth(points: list[Point]) -> list[Point]:
    """Returns an open Catmull-Rom spline from the first of `points` to the last."""
    control = np.asarray([points[0], *points, points[-1]])
    return [*_spline(control[:-3], control[1:-2], control[2:-1], control[3:]), points[-1]]


def arc(centre: Point, radii: Point, start: float, end: float, num_points: int = 13) -> list[Point]:
    """Returns points along an ellipse, from angle `start` to `end` in degrees, 0 to the right and 90 upwards."""
    angles = np.radians(np.linspace(start, end, num_points))
    return [(centre[0] + radii[0] * float(np.cos(a)), centre[1] + radii[1] * float(np.sin(a))) for a in angles]


def mirrored(right_side: list[Point], middle: float = 0.0) -> list[Point]:
    """Returns the closed outline whose right side is given as (distance from the middle, height)."""
    return [(middle + dx, py) for dx, py in right_side] + [(middle - dx, py) for dx, py in reversed(right_side)]


def flatten(x: Array, y: Array, layers: list[Layer]) -> Array:
    """Returns the layers as one RGBA picture in [0, 1], (H, W, 4), colour not premultiplied; x, y as from `grid`."""
    step = float(x[0, 1] - x[0, 0])
    premultiplied, alpha = np.zeros((*x.shape, 3)), np.zeros((*x.shape, 1))
    for layer in layers:
        cover = np.clip(0.5 - layer.distance / max(step, layer.softness), 0, 1)
        part = _bounds(cover)
        cover = cover[part][..., None]
        cover = layer.opacity * (cover * cover * (3 - 2 * cover) if layer.softness > 0 else cover)
        painted = cover * alpha[part] if layer.is_on_product else cover
        colour = _shaded(layer, x[part], y[part], layer.distance[part])
        premultiplied[part] += colour * painted - premultiplied[part] * cover
        if not layer.is_on_product:
            alpha[part] += cover * (1 - alpha[part])
    alpha_px, premultiplied_px = _average(alpha), _average(premultiplied)
    return np.concatenate([premultiplied_px / np.maximum(alpha_px, 1e-6), alpha_px], axis=-1).clip(0, 1)


def _bounds(cover: Array) -> tuple[slice, slice]:
    """The smallest window of rows and columns outside which nothing is covered."""
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _shaded(layer: Layer, x: Array, y: Array, distance: Array) -> Array:
    """Colour under light from the upper left, darker at the rim, never at the ends of its range, (S, S, 3)."""
    rim = np.clip(-distance / _BEVEL, 0, 1)
    light = 1.0 + layer.roundness * (0.34 * (rim * (2 - rim) - 0.8) - 0.36 * x + 0.24 * (y - 0.35))
    lit = np.asarray(layer.colour) * light[..., None]
    room = _LIGHTEST - _KNEE
    return np.maximum(np.where(lit > _KNEE, _KNEE + room * np.tanh((lit - _KNEE) / room), lit), _DARKEST)


def _spline(p0: Array, p1: Array, p2: Array, p3: Array) -> list[Point]:
    """Catmull-Rom points from each p1 towards its p2; every argument (number of stretches, 2)."""
    t = np.linspace(0, 1, _SPLINE_STEPS, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (part[:, None] for part in (p0, p1, p2, p3))
    points = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return [(float(px), float(py)) for px, py in points.reshape(-1, 2)]


def _distance_to_segments(x: Array, y: Array, starts: list[Point], ends: list[Point]) -> Array:
    nearest = np.full(x.shape, np.inf)
    for (x0, y0), (x1, y1) in zip(starts, ends, strict=True):
        dx, dy = x1 - x0, y1 - y0
        u, v = x[:1] - x0, y[:, :1] - y0  # a row and a column: the grid is upright
        along = np.clip((u * dx + v * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        np.minimum(nearest, (u - along * dx) ** 2 + (v - along * dy) ** 2, out=nearest)
    return np.sqrt(nearest)


def _average(values: Array) -> Array:
    side = len(values) // _SUPERSAMPLING
    return values.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING, -1).mean((1, 3))
