"""How bottles and phones look, as layers of flat shapes.

Coordinates as in `shapes`: x to the right of the middle, y upwards from the foot. Colours and names of products do
not belong here.
"""

from __future__ import annotations

import numpy as np

from osmf_models.simulator.drawings_look import (
    INK,
    PAPER,
    STEEL,
    Look,
    blended,
    gloss,
    mark,
    readable_on,
    shadow,
    tinted,
)
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
    smooth,
    stroke,
)

_CORK: Colour = (0.70, 0.53, 0.36)
_APPS: tuple[Colour, ...] = (
    (0.85, 0.35, 0.28),
    (0.86, 0.72, 0.30),
    (0.30, 0.66, 0.42),
    (0.88, 0.88, 0.88),
    (0.34, 0.52, 0.84),
)


def draw_bottle(x: Array, y: Array, look: Look) -> list[Layer]:
    """Returns a bottle, closed and upright."""
    if look.variant == "glass bottle":
        return _glass_bottle(x, y, look)
    if look.variant == "thermos bottle":
        return _thermos(x, y, look)
    return _sports_bottle(x, y, look)


def _highlights(x: Array, y: Array, half_width: float, ends: Point, strength: float) -> list[Layer]:
    """The reflections of a round, upright body."""
    low, high = ends
    bright = stroke(x, y, [(-half_width * 0.55, low), (-half_width * 0.55, high)], half_width * 0.10)
    edge = stroke(x, y, [(half_width * 0.78, low), (half_width * 0.78, high)], half_width * 0.04)
    dark = stroke(x, y, [(half_width * 0.45, low), (half_width * 0.45, high)], half_width * 0.10)
    return [shadow(dark, 0.22, 0.08), gloss(bright, strength, 0.03), gloss(edge, strength * 0.5, 0.02)]


def _sports_bottle(x: Array, y: Array, look: Look) -> list[Layer]:
    wide, tall, detail = look.proportions
    half_width, top = 0.165 + 0.014 * wide, 0.70 + 0.015 * tall
    shoulder, grip = top - 0.17, top * (0.42 + 0.03 * detail)
    side: list[Point] = [
        (half_width * 0.62, shoulder + 0.03),
        (half_width, shoulder - 0.06),
        (half_width, grip + 0.06),
        (half_width * 0.84, grip),
        (half_width, grip - 0.06),
        (half_width, 0.02),
    ]
    body = polygon(x, y, mirrored([*smooth(side), (half_width * 0.94, 0.0)]))
    cap = rounded_box(x, y, (0.0, shoulder + 0.055), (half_width * 0.78, 0.045), 0.018)
    spout = polygon(x, y, mirrored([(0.035, top - 0.01), (0.040, top - 0.04), (0.075, shoulder + 0.09)]), 0.01)
    ribs = np.maximum(cap, np.abs(x % 0.03 - 0.015) - 0.004)
    return [
        Layer(spout, tinted(look.accent, 0.9), 0.5),
        Layer(body, look.colour, 0.9),
        *_highlights(x, y, half_width, (0.07, shoulder - 0.07), 0.45),
        *[mark(np.maximum(body, np.abs(y - grip - dy) - 0.006), tinted(look.colour, 0.6)) for dy in (-0.03, 0.0, 0.03)],
        mark(_drop(x, y, (0.01, grip - 0.17), 0.050), readable_on(look.colour), 0.9),
        Layer(cap, look.accent, 0.7),
        mark(ribs, INK, 0.35),
    ]


def _drop(x: Array, y: Array, centre: Point, radius: float) -> Array:
    px, py = centre
    tip: list[Point] = [
        (px - radius * 0.86, py + radius * 0.5),
        (px, py + radius * 2.1),
        (px + radius * 0.86, py + radius * 0.5),
    ]
    return np.minimum(ellipse(x, y, centre, (radius, radius)), polygon(x, y, tip))


def _thermos(x: Array, y: Array, look: Look) -> list[Layer]:
    wide, tall, detail = look.proportions
    half_width, top = 0.155 + 0.014 * wide, 0.70 + 0.015 * tall
    shoulder = top - 0.19 - 0.01 * detail
    side: list[Point] = [
        (half_width * 0.70, shoulder + 0.045),
        (half_width * 0.94, shoulder),
        (half_width, shoulder - 0.05),
        (half_width, 0.015),
    ]
    body = polygon(x, y, mirrored([*smooth(side), (half_width * 0.94, 0.0)]))
    neck = rounded_box(x, y, (0.0, shoulder + 0.055), (half_width * 0.70, 0.022), 0.004)
    cap = rounded_box(x, y, (0.0, (top + shoulder + 0.07) / 2), (half_width * 0.80, (top - shoulder - 0.07) / 2), 0.022)
    loop = ring(x, y, (half_width * 0.80, top - 0.055), (0.075, 0.055), 0.016)
    return [
        Layer(loop, tinted(look.accent, 0.8), 0.4),
        Layer(neck, STEEL, 0.8),
        Layer(body, look.colour, 0.9),
        mark(np.maximum(body, y - 0.055), STEEL),
        mark(np.maximum(body, np.abs(y - 0.060) - 0.005), INK, 0.5),
        mark(np.maximum(body, np.abs(y - shoulder + 0.055) - 0.008), look.accent),
        *_highlights(x, y, half_width, (0.05, shoulder - 0.03), 0.5),
        Layer(cap, look.accent, 0.8),
        gloss(
            stroke(x, y, [(-half_width * 0.45, shoulder + 0.1), (-half_width * 0.45, top - 0.03)], 0.010), 0.45, 0.02
        ),
    ]


def _glass_bottle(x: Array, y: Array, look: Look) -> list[Layer]:
    wide, tall, detail = look.proportions
    half_width, top = 0.175 + 0.012 * wide, 0.715 + 0.010 * tall
    shoulder, neck = 0.40 + 0.02 * detail, 0.062
    side: list[Point] = [
        (neck, top - 0.05),
        (neck, shoulder + 0.14),
        (neck * 1.35, shoulder + 0.09),
        (half_width * 0.88, shoulder + 0.02),
        (half_width, shoulder - 0.05),
        (half_width, 0.02),
    ]
    body = polygon(x, y, mirrored([*smooth(side), (half_width * 0.94, 0.0)]))
    lip = rounded_box(x, y, (0.0, top - 0.075), (neck + 0.012, 0.018), 0.008)
    cork = rounded_box(x, y, (0.0, top - 0.030), (neck * 0.80, 0.030), 0.010)
    label = np.maximum(body + 0.0, np.abs(y - shoulder * 0.45) - 0.105)
    empty = np.maximum(body + 0.012, shoulder + 0.06 - y)
    return [
        Layer(cork, _CORK, 0.5),
        Layer(body, look.colour, 0.9),
        Layer(empty, blended(look.colour, PAPER, 0.45), 0.4, is_on_product=True),
        mark(label, PAPER),
        mark(np.maximum(label, np.abs(np.abs(y - shoulder * 0.45) - 0.088) - 0.006), look.accent),
        mark(_drop(x, y, (0.0, shoulder * 0.45 - 0.02), 0.036), look.colour),
        *_highlights(x, y, half_width, (0.05, shoulder - 0.05), 0.55),
        gloss(stroke(x, y, [(-neck * 0.4, shoulder + 0.13), (-neck * 0.4, top - 0.11)], 0.008), 0.5, 0.02),
        Layer(lip, tinted(look.colour, 0.85), 0.4),
    ]


def draw_phone(x: Array, y: Array, look: Look) -> list[Layer]:
    """Returns a mobile phone upright: its screen, its back with the camera, or both."""
    wide, tall, _ = look.proportions
    if look.variant == "flagship phone":
        half: Point = (0.158 + 0.010 * wide, 0.325 + 0.012 * tall)
        front: Point = (half[0] * 0.92, half[1] * 0.95)
        return [
            *_phone_back(x, y, (-0.13, half[1]), half, look),
            *_phone_front(x, y, (0.14, front[1]), front, look),
        ]
    half = (0.180 + 0.012 * wide, 0.350 + 0.010 * tall)
    draw = _phone_front if look.variant == "slim phone" else _phone_back
    return draw(x, y, (0.0, half[1]), half, look)


def _phone_back(x: Array, y: Array, centre: Point, half: Point, look: Look) -> list[Layer]:
    body = rounded_box(x, y, centre, half, 0.055)
    bump_half = (half[0] * 0.46, half[0] * (0.52 + 0.05 * look.proportions[2]))
    bump: Point = (centre[0] - half[0] + bump_half[0] + 0.03, centre[1] + half[1] - bump_half[1] - 0.03)
    lenses = [(-0.42, 0.42), (-0.42, -0.42), (0.42, 0.0)]
    layers = [
        *_buttons(x, y, centre, half, look.colour),
        Layer(body, tinted(look.colour, 0.7), 0.3),
        Layer(body + 0.010, look.colour, 0.7),
        gloss(np.maximum(body + 0.02, np.abs(x - centre[0] + (y - centre[1]) * 0.55) - 0.03), 0.16, 0.06),
        shadow(rounded_box(x, y, (bump[0] + 0.006, bump[1] - 0.010), bump_half, 0.045), 0.4, 0.03),
        Layer(rounded_box(x, y, bump, bump_half, 0.045), tinted(look.colour, 0.82), 0.5),
    ]
    for across, up in lenses:
        lens: Point = (bump[0] + across * bump_half[0], bump[1] + up * bump_half[1])
        radius = bump_half[0] * 0.36
        layers += [
            Layer(ellipse(x, y, lens, (radius + 0.007, radius + 0.007)), STEEL, 0.3),
            Layer(ellipse(x, y, lens, (radius, radius)), INK, 0.3),
            mark(ellipse(x, y, lens, (radius * 0.55, radius * 0.55)), (0.16, 0.22, 0.36)),
            gloss(ellipse(x, y, (lens[0] - radius * 0.35, lens[1] + radius * 0.35), (0.010, 0.010)), 0.8, 0.01),
        ]
    flash = ellipse(x, y, (bump[0] + 0.42 * bump_half[0], bump[1] + 0.66 * bump_half[1]), (0.012, 0.012))
    logo = ellipse(x, y, (centre[0], centre[1] - half[1] * 0.15), (0.032, 0.032))
    return [*layers, mark(flash, (0.92, 0.88, 0.70)), mark(logo, readable_on(look.colour), 0.6)]


def _phone_front(x: Array, y: Array, centre: Point, half: Point, look: Look) -> list[Layer]:
    body = rounded_box(x, y, centre, half, 0.055)
    screen = rounded_box(x, y, centre, (half[0] - 0.022, half[1] - 0.022), 0.038)
    floor, height = centre[1] - half[1], 2 * half[1]
    hill: list[Point] = [
        (centre[0] - 0.4, floor - 0.1),
        (centre[0] - 0.25, floor + height * 0.22),
        (centre[0] - 0.02, floor + height * 0.40),
        (centre[0] + 0.25, floor + height * 0.30),
        (centre[0] + 0.4, floor - 0.1),
    ]
    sun = ellipse(x, y, (centre[0] + half[0] * 0.3, floor + height * 0.52), (half[0] * 0.24, half[0] * 0.24))
    clear = blended(look.colour, PAPER, 0.35)
    return [
        *_buttons(x, y, centre, half, look.colour),
        Layer(body, tinted(look.colour, 0.8), 0.3),
        Layer(body + 0.008, INK, 0.2),
        Layer(screen, clear, 0.2),
        mark(np.maximum(screen, sun), (0.94, 0.84, 0.55)),
        mark(np.maximum(screen, polygon(x, y, curve(hill))), tinted(look.colour, 0.62)),
        *_apps(x, y, centre, half),
        *_clock(x, y, (centre[0], centre[1] + half[1] * 0.56), half[0] * 1.2, readable_on(clear)),
        mark(rounded_box(x, y, (centre[0], centre[1] + half[1] - 0.045), (half[0] * 0.26, 0.012), 0.012), INK),
        mark(stroke(x, y, [(centre[0] - 0.05, floor + 0.036), (centre[0] + 0.05, floor + 0.036)], 0.004), PAPER),
        gloss(np.maximum(screen, centre[1] - y - (x - centre[0]) * 2.2 + 0.12), 0.12, 0.01),
    ]


def _apps(x: Array, y: Array, centre: Point, half: Point) -> list[Layer]:
    """Two rows of app icons above the lower edge of the screen."""
    pitch, layers = (half[0] - 0.022) / 2.15, []
    for row in range(2):
        for column in range(4):
            place: Point = (centre[0] + (column - 1.5) * pitch, centre[1] - half[1] + 0.085 + row * pitch * 1.1)
            icon = rounded_box(x, y, place, (pitch * 0.36, pitch * 0.36), pitch * 0.12)
            layers.append(mark(icon, _APPS[(row * 3 + column) % len(_APPS)]))
    return layers


def _clock(x: Array, y: Array, middle: Point, width: float, colour: Colour) -> list[Layer]:
    """The time 10:08, as four digits `width` wide in all."""
    (px, py), digit = middle, width * 0.20
    zeros = [rounded_box(x, y, (px + width * at, py), (digit * 0.42, digit * 0.8), digit * 0.3) for at in (-0.18, 0.18)]
    loops = [
        rounded_box(x, y, (px + width * 0.45, py + s * digit * 0.4), (digit * 0.42, digit * 0.4), digit * 0.3)
        for s in (-1, 1)
    ]
    one = stroke(x, y, [(px - width * 0.40, py - digit * 0.8), (px - width * 0.40, py + digit * 0.8)], 0.0)
    dots = [ellipse(x, y, (px, py + s * digit * 0.35), (0.008, 0.008)) for s in (-1, 1)]
    lines = [one - 0.006, *(np.abs(box) - 0.006 for box in (*zeros, *loops)), *dots]
    return [mark(line, colour) for line in lines]


def _buttons(x: Array, y: Array, centre: Point, half: Point, colour: Colour) -> list[Layer]:
    right = centre[0] + half[0]
    spans = ((0.30, 0.48), (0.05, 0.16))
    keys = [stroke(x, y, [(right, centre[1] + half[1] * a), (right, centre[1] + half[1] * b)], 0.008) for a, b in spans]
    return [Layer(key, tinted(colour, 0.55), 0.2) for key in keys]
