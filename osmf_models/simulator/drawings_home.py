"""How lamps, chairs and mugs look, as layers of flat shapes.

Coordinates as in `shapes`: x to the right of the middle, y upwards from the foot. Colours and names of products do
not belong here.
"""

from __future__ import annotations

import numpy as np

from osmf_models.simulator.drawings_look import Look, gloss, mark, shadow, tinted
from osmf_models.simulator.shapes import (
    Array,
    Colour,
    Layer,
    Point,
    curve,
    ellipse,
    mirrored,
    polygon,
    ring,
    rounded_box,
    stroke,
)

_GLOW: Colour = (0.95, 0.88, 0.66)
_WOODS: tuple[Colour, ...] = ((0.66, 0.47, 0.29), (0.44, 0.29, 0.19), (0.76, 0.60, 0.42))


def draw_lamp(x: Array, y: Array, look: Look) -> list[Layer]:
    """Returns a table lamp, switched on."""
    wide, tall, detail = look.proportions
    half_width, top, rim = 0.31 + 0.025 * wide, 0.70 + 0.015 * tall, 0.35 + 0.02 * detail
    return [*_lamp_stand(x, y, rim, look), *_lamp_shade(x, y, half_width, (rim, top), look)]


def _lamp_stand(x: Array, y: Array, rim: float, look: Look) -> list[Layer]:
    detail, metal = look.proportions[2], tinted(look.accent, 0.85)
    base = np.maximum(ellipse(x, y, (0.0, 0.0), (0.165 + 0.02 * detail, 0.075)), -y)
    stem = rounded_box(x, y, (0.0, rim / 2 + 0.03), (0.024, rim / 2), 0.01)
    if look.variant == "cone table lamp":
        belly = ellipse(x, y, (0.0, 0.17), (0.085 + 0.02 * detail, 0.105))
    elif look.variant == "drum table lamp":
        belly = np.minimum(*(ellipse(x, y, (0.0, height), (0.075 + 0.015 * detail, 0.06)) for height in (0.12, 0.23)))
    else:
        belly = stem - 0.012
    return [
        Layer(stem, metal, 0.5),
        Layer(belly, metal),
        Layer(base, metal),
        gloss(ellipse(x, y, (-0.03, 0.19), (0.012, 0.05)), 0.5, 0.02),
        shadow(np.maximum(np.abs(x) - 0.03, rim - 0.05 - y), 0.5, 0.05),
    ]


def _lamp_shade(x: Array, y: Array, half_width: float, ends: Point, look: Look) -> list[Layer]:
    rim, top = ends
    if look.variant == "dome table lamp":
        shade = np.maximum(ellipse(x, y, (0.0, rim), (half_width, top - rim)), rim - y)
    else:
        narrow = half_width * (0.42 if look.variant == "cone table lamp" else 0.86)
        shade = polygon(x, y, mirrored([(narrow, top - 0.01), (half_width - 0.01, rim + 0.01)]), 0.01)
    trim = tinted(look.colour, 0.6)
    glow = np.maximum(shade, ellipse(x, y, (0.0, rim + 0.03), (half_width * 0.35, 0.09)))
    return [
        Layer(shade, look.colour, 0.8),
        Layer(glow, _GLOW, 0.0, 0.75, 0.28, is_on_product=True),
        mark(np.maximum(shade, y - rim - 0.026), trim),
        mark(np.maximum(shade, top - 0.02 - y), trim, 0.9),
    ]


def draw_chair(x: Array, y: Array, look: Look) -> list[Layer]:
    """Returns a chair, seen from the front and a little from the side."""
    if look.variant == "armchair":
        return _armchair(x, y, look)
    if look.variant == "shell chair":
        return _shell_chair(x, y, look)
    return _dining_chair(x, y, look)


def _wood(look: Look) -> Colour:
    return _WOODS[int((look.proportions[2] + 1) * 1.49)]


def _leg(x: Array, y: Array, top: Point, foot: Point, half_width: float) -> Array:
    """A leg that tapers a little and ends flat on the ground at the height of its foot."""
    (x0, y0), (x1, y1) = top, foot
    return polygon(
        x,
        y,
        [(x0 - half_width, y0), (x0 + half_width, y0), (x1 + half_width * 0.8, y1), (x1 - half_width * 0.8, y1)],
    )


def _dining_chair(x: Array, y: Array, look: Look) -> list[Layer]:
    wide, tall, detail = look.proportions
    w, top, seat = 0.02 * wide, 0.70 + 0.015 * tall, 0.32 + 0.015 * detail
    wood, dark = look.colour, tinted(look.colour, 0.68)
    back_left, back_right = (-0.13 - w, seat + 0.10), (0.24 + w, seat + 0.07)
    front_left, front_right = (-0.26 - w, seat), (0.13 + w, seat - 0.03)
    posts = np.minimum(
        stroke(x, y, [back_left, (back_left[0] - 0.035, top - 0.025)], 0.026),
        stroke(x, y, [back_right, (back_right[0] + 0.035, top - 0.055)], 0.026),
    )
    rails = [
        polygon(x, y, [(-0.15 - w, high), (0.26 + w, high - 0.03), (0.26 + w, low - 0.03), (-0.15 - w, low)], 0.012)
        for high, low in ((top - 0.03, top - 0.13), (top - 0.17, top - 0.25))
    ]
    cushion = polygon(x, y, [front_left, front_right, back_right, back_left], 0.022)
    edge = polygon(
        x, y, [front_left, front_right, (front_right[0], front_right[1] - 0.05), (front_left[0], seat - 0.05)], 0.02
    )
    side = polygon(
        x, y, [front_right, back_right, (back_right[0], back_right[1] - 0.05), (front_right[0], seat - 0.08)], 0.015
    )
    return [
        Layer(_leg(x, y, (-0.12 - w, seat + 0.05), (-0.135 - w, 0.09), 0.024), tinted(dark, 0.7), 0.3),
        Layer(_leg(x, y, (0.23 + w, seat + 0.05), (0.255 + w, 0.065), 0.026), tinted(dark, 0.8), 0.3),
        Layer(posts, dark, 0.4),
        *[Layer(rail, wood, 0.6) for rail in rails],
        Layer(_leg(x, y, (-0.245 - w, seat), (-0.265 - w, 0.02), 0.030), dark, 0.4),
        Layer(_leg(x, y, (0.125 + w, seat - 0.03), (0.14 + w, 0.0), 0.032), dark, 0.4),
        Layer(side, tinted(dark, 0.8), 0.3),
        Layer(edge, dark, 0.3),
        Layer(cushion, look.accent, 0.5),
    ]


def _shell_chair(x: Array, y: Array, look: Look) -> list[Layer]:
    wide, tall, _ = look.proportions
    w, top, wood = 0.02 * wide, 0.70 + 0.015 * tall, _wood(look)
    back: list[Point] = [
        (-0.20 - w, 0.36),
        (-0.235 - w, 0.52),
        (-0.20 - w, top - 0.04),
        (0.0, top),
        (0.20 + w, top - 0.04),
        (0.235 + w, 0.52),
        (0.20 + w, 0.36),
        (0.0, 0.33),
    ]
    seat: list[Point] = [
        (-0.20 - w, 0.41),
        (-0.29 - w, 0.355),
        (-0.25 - w, 0.29),
        (0.0, 0.265),
        (0.25 + w, 0.29),
        (0.29 + w, 0.355),
        (0.20 + w, 0.41),
        (0.0, 0.385),
    ]
    shell = polygon(x, y, curve(back))
    pan = polygon(x, y, curve(seat))
    return [
        *[Layer(_leg(x, y, (s * 0.10, 0.29), (s * 0.15, 0.07), 0.022), tinted(wood, 0.65), 0.3) for s in (-1, 1)],
        *[Layer(_leg(x, y, (s * 0.18, 0.30), (s * (0.27 + w), 0.0), 0.032), wood, 0.4) for s in (-1, 1)],
        Layer(stroke(x, y, [(-0.20, 0.10), (0.20, 0.10)], 0.008), tinted(wood, 0.5), 0.2),
        Layer(shell, look.colour, 0.8),
        shadow(np.maximum(shell, ellipse(x, y, (0.0, 0.40), (0.24, 0.04))), 0.45, 0.10),
        gloss(ellipse(x, y, (-0.09, 0.60), (0.03, 0.06)), 0.25, 0.07),
        Layer(pan, tinted(look.colour, 1.04), 0.8),
        shadow(np.maximum(pan, y - 0.30), 0.3, 0.05),
    ]


def _armchair(x: Array, y: Array, look: Look) -> list[Layer]:
    wide, tall, detail = look.proportions
    w, top, seat = 0.015 * wide, 0.62 + 0.02 * tall, 0.30 + 0.012 * detail
    back = rounded_box(x, y, (0.0, (top + 0.13) / 2), (0.25 + w, (top - 0.13) / 2), 0.09)
    arms = [rounded_box(x, y, (s * (0.275 + w), 0.255), (0.065, 0.165), 0.06) for s in (-1, 1)]
    base = rounded_box(x, y, (0.0, 0.15), (0.25 + w, 0.06), 0.02)
    cushion = rounded_box(x, y, (0.0, seat - 0.055), (0.205 + w, 0.06), 0.035)
    pillow = rounded_box(x, y, (0.07, seat + 0.085), (0.085, 0.075), 0.035)
    buttons = [
        mark(ellipse(x, y, (across, top - height), (0.012, 0.012)), tinted(look.colour, 0.5))
        for across, height in ((-0.13, 0.09), (0.0, 0.09), (0.13, 0.09), (-0.065, 0.17), (0.065, 0.17))
    ]
    return [
        *[Layer(_leg(x, y, (s * 0.23, 0.11), (s * (0.26 + w), 0.0), 0.030), _wood(look), 0.4) for s in (-1, 1)],
        Layer(back, tinted(look.colour, 0.9), 0.9),
        *buttons,
        Layer(base, tinted(look.colour, 0.7), 0.4),
        shadow(np.maximum(back, ellipse(x, y, (0.0, seat), (0.2, 0.02))), 0.5, 0.10),
        Layer(cushion, tinted(look.colour, 1.05), 0.7),
        Layer(pillow, look.accent, 0.7),
        *[layer for arm in arms for layer in (shadow(arm - 0.01, 0.35, 0.04), Layer(arm, look.colour, 0.9))],
    ]


def draw_mug(x: Array, y: Array, look: Look) -> list[Layer]:
    """Returns a mug with its handle to the right."""
    wide, tall, detail = look.proportions
    half_width, top, middle = 0.225 + 0.018 * wide, 0.50 + 0.03 * tall, -0.07
    foot = half_width * {"straight mug": 0.96, "tapered mug": 0.66, "round mug": 0.70}[look.variant]
    bulge = half_width * {"straight mug": 0.0, "tapered mug": 0.05, "round mug": 0.30}[look.variant]
    side: list[Point] = [
        (foot + (half_width - foot) * share + bulge * float(np.sin(np.pi * share)) - 0.02, 0.02 + (top - 0.02) * share)
        for share in np.linspace(1.0, 0.0, 9)
    ]
    body = np.maximum(polygon(x, y, mirrored(side, middle), 0.02), y - top)
    belly = (half_width + foot) / 2 + bulge
    handle = ring(x, y, (middle + belly * 0.97, top * 0.53), (0.125 + 0.012 * detail, 0.135 + 0.018 * detail), 0.028)
    stripe = np.maximum(body, np.abs(y - top * 0.45) - 0.05 - 0.02 * detail)
    rim = ellipse(x, y, (middle, top), (half_width + 0.006, 0.050))
    return [
        Layer(handle, tinted(look.colour, 0.86), 0.6),
        shadow(np.maximum(handle, body - 0.02), 0.4, 0.04),
        Layer(body, look.colour, 0.9),
        Layer(stripe, look.accent, 0.8, is_on_product=True),
        gloss(
            stroke(x, y, [(middle - half_width * 0.62, top * 0.22), (middle - half_width * 0.62, top * 0.78)], 0.012),
            0.4,
        ),
        Layer(rim, tinted(look.colour, 1.12), 0.3),
        Layer(rim + 0.014, tinted(look.colour, 0.55), 0.2),
        Layer(
            np.maximum(rim + 0.016, ellipse(x, y, (middle, top - 0.014), (half_width, 0.042))), (0.34, 0.20, 0.11), 0.3
        ),
    ]
