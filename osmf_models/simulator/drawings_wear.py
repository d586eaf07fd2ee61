"""How shoes, bags and watches look, as layers of flat shapes.

Coordinates as in `shapes`: x to the right of the middle, y upwards from the foot. Colours and names of products do
not belong here.
"""

from __future__ import annotations

import numpy as np

from osmf_models.simulator.drawings_look import INK, PAPER, STEEL, Look, gloss, mark, readable_on, shadow, tinted
from osmf_models.simulator.shapes import (
    Array,
    Colour,
    Layer,
    Point,
    arc,
    curve,
    ellipse,
    polygon,
    ring,
    rounded_box,
    stroke,
)

_COLLAR_HEIGHTS = {"low sneaker": 0.37, "high-top sneaker": 0.52, "slip-on shoe": 0.31, "ankle boot": 0.55}
_BAG_HEIGHTS = {"satchel": 0.40, "tote bag": 0.46, "round bag": 0.45}


def draw_shoe(x: Array, y: Array, look: Look) -> list[Layer]:
    """Returns a shoe from the side, its toe to the right."""
    wide, tall, detail = look.proportions
    left, right = -0.362 - 0.012 * wide, 0.362 + 0.012 * wide
    collar, sole_top = _COLLAR_HEIGHTS[look.variant] + 0.025 * tall, 0.095 + 0.018 * detail
    outline = _shoe_outline((left, right), collar, sole_top)
    upper = np.maximum(polygon(x, y, curve(outline)), sole_top - 0.02 - y)
    opening = ellipse(x, y, ((outline[3][0] + outline[2][0]) / 2 + 0.01, collar - 0.005), (0.125, 0.028))
    heel = np.maximum(upper, ellipse(x, y, (left - 0.02, sole_top), (0.17, 0.20)))
    layers = [
        Layer(upper, look.colour),
        mark(opening, tinted(look.colour, 0.35)),
        Layer(heel, tinted(look.colour, 0.74), 0.5),
        gloss(np.maximum(upper + 0.03, ellipse(x, y, (right - 0.17, sole_top + 0.125), (0.09, 0.022))), 0.3),
    ]
    if look.variant == "slip-on shoe":
        layers += _elastic(x, y, (-0.09, collar - 0.05), (-0.04, sole_top + 0.06), look)
    elif look.variant == "ankle boot":
        layers += _elastic(x, y, (-0.13, collar - 0.04), (-0.12, sole_top + 0.14), look)
    else:
        layers += _sneaker_trim(x, y, upper, (right, collar, sole_top), look.accent)
    return [*layers, *_sole(x, y, (left, right), sole_top, look)]


def _shoe_outline(ends: Point, collar: float, sole_top: float) -> list[Point]:
    left, right = ends
    instep = (collar + sole_top) / 2 + 0.035
    return [
        (left + 0.040, sole_top - 0.070),
        (left + 0.012, sole_top + 0.10),
        (left + 0.030, collar),
        (left + 0.265, collar - 0.01),
        (left + 0.335, (collar + instep) / 2),
        (left + 0.420, instep),
        (right - 0.190, sole_top + 0.155),
        (right - 0.070, sole_top + 0.110),
        (right - 0.012, sole_top + 0.020),
        (right - 0.040, sole_top - 0.070),
    ]


def _elastic(x: Array, y: Array, top: Point, bottom: Point, look: Look) -> list[Layer]:
    gusset = stroke(x, y, [top, bottom], 0.045)
    ribs = np.abs((x - top[0]) % 0.024 - 0.012) - 0.003
    return [mark(gusset, tinted(look.accent, 0.8)), mark(np.maximum(gusset, ribs), INK, 0.5)]


def _sneaker_trim(x: Array, y: Array, upper: Array, place: tuple[float, float, float], accent: Colour) -> list[Layer]:
    right, collar, sole_top = place
    toe = np.maximum(upper, ellipse(x, y, (right - 0.025, sole_top), (0.165, 0.135)))
    swoosh: list[Point] = [(-0.20, sole_top + 0.05), (-0.07, sole_top + 0.055), (0.05, sole_top + 0.11)]
    layers = [
        mark(np.maximum(upper, stroke(x, y, swoosh, 0.017)), accent),
        Layer(toe, accent, 0.5),
        mark(np.maximum(upper, ring(x, y, (right - 0.025, sole_top), (0.17, 0.14), 0.004)), INK, 0.35),
    ]
    start, end = (-0.085, collar - 0.045), (0.10, sole_top + 0.195)
    num_laces = 5 if collar > 0.45 else 4
    for share in np.linspace(0.0, 1.0, num_laces):
        px, py = start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
        lace = stroke(x, y, [(px - 0.055, py - 0.035), (px + 0.035, py + 0.005)], 0.012)
        layers += [shadow(lace - 0.006, 0.35, 0.02), Layer(lace, accent, 0.2)]
    return layers


def _sole(x: Array, y: Array, ends: Point, top: float, look: Look) -> list[Layer]:
    left, right = ends
    if look.variant == "ankle boot":
        dark = tinted(look.colour, 0.35)
        welt = rounded_box(x, y, ((left + right) / 2, top - 0.02), ((right - left) / 2, 0.025), 0.02)
        heel = rounded_box(x, y, (left + 0.125, top / 2 - 0.01), (0.115, top / 2 - 0.01 + 0.02), 0.01)
        front = polygon(
            x, y, [(left + 0.4, top - 0.03), (right - 0.01, top - 0.03), (right - 0.06, 0), (left + 0.45, 0)]
        )
        return [
            Layer(np.maximum(heel, -y), dark, 0.3),
            Layer(front, dark, 0.3),
            Layer(welt, tinted(look.colour, 0.5), 0.2),
        ]
    sole = rounded_box(x, y, ((left + right) / 2, top / 2), ((right - left) / 2, top / 2), top * 0.42)
    tread = np.maximum(sole, y - 0.03)
    return [
        Layer(sole, PAPER, 0.5),
        mark(np.maximum(sole, np.abs(y - top * 0.62) - 0.005), look.colour),
        mark(tread, tinted(look.colour, 0.5)),
    ]


def draw_bag(x: Array, y: Array, look: Look) -> list[Layer]:
    """Returns a handbag from the front."""
    wide, tall, detail = look.proportions
    half_width, top = 0.32 + 0.025 * wide, _BAG_HEIGHTS[look.variant] + 0.025 * tall
    if look.variant == "tote bag":
        return _tote(x, y, (half_width, top), look)
    if look.variant == "round bag":
        body = np.maximum(ellipse(x, y, (0.0, top / 2 - 0.02), (half_width, top / 2 + 0.02)), -y)
        flap_floor = top * (0.44 + 0.04 * detail)
    else:
        corners: list[Point] = [
            (0.04 - half_width, top - 0.03),
            (half_width - 0.04, top - 0.03),
            (half_width - 0.03, 0.03),
            (0.03 - half_width, 0.03),
        ]
        body = polygon(x, y, corners, 0.03)
        flap_floor = top * (0.42 + 0.06 * detail)
    flap = np.maximum(body, ellipse(x, y, (0.0, top), (half_width * 1.22, top - flap_floor)))
    seam = np.maximum(body + 0.012, np.abs(flap + 0.022) - 0.0035)
    clasp = rounded_box(x, y, (0.0, flap_floor), (0.045, 0.045), 0.018)
    return [
        *_handle(x, y, (half_width * 0.52, top), 0.17 + 0.025 * detail, look.colour),
        Layer(body, look.colour),
        shadow(np.maximum(body, flap - 0.012), 0.45, 0.03),
        Layer(flap, tinted(look.colour, 0.86), 0.9),
        mark(seam, readable_on(look.colour), 0.45),
        gloss(ellipse(x, y, (-half_width * 0.45, top * 0.8), (0.10, 0.03)), 0.22, 0.06),
        Layer(clasp, look.accent, 0.5),
        mark(stroke(x, y, [(0.0, flap_floor + 0.012), (0.0, flap_floor - 0.016)], 0.008), INK, 0.8),
    ]


def _handle(x: Array, y: Array, reach: Point, height: float, colour: Colour) -> list[Layer]:
    half_width, top = reach
    bow = stroke(x, y, arc((0.0, top - 0.05), (half_width, height + 0.05), 0, 180, 17), 0.023)
    rings = np.minimum(*(ring(x, y, (side * half_width, top - 0.005), (0.025, 0.03), 0.009) for side in (-1, 1)))
    return [Layer(bow, tinted(colour, 0.62), 0.5), Layer(rings, STEEL, 0.3)]


def _tote(x: Array, y: Array, size: Point, look: Look) -> list[Layer]:
    half_width, top = size
    body = polygon(
        x,
        y,
        [(-half_width, top - 0.02), (half_width, top - 0.02), (half_width - 0.07, 0.02), (0.07 - half_width, 0.02)],
        0.02,
    )
    reach, dark = half_width * 0.48, tinted(look.colour, 0.6)
    rear = stroke(x, y, arc((0.02, top - 0.03), (reach, 0.24), 0, 180, 17), 0.016)
    front = stroke(
        x, y, [(reach, top * 0.66), *arc((0.0, top), (reach, 0.22), 0, 180, 17), (-reach, top * 0.66)], 0.020
    )
    tabs = np.minimum(*(ellipse(x, y, (side * reach, top * 0.66), (0.032, 0.032)) for side in (-1, 1)))
    hem = np.maximum(body, np.abs(y - top + 0.035) - 0.003)
    base = np.maximum(body, y - 0.10 - 0.03 * look.proportions[2])
    return [
        Layer(rear, tinted(dark, 0.7), 0.3),
        Layer(body, look.colour),
        mark(np.maximum(body, top - 0.035 - y), tinted(look.colour, 0.85)),
        mark(hem, readable_on(look.colour), 0.5),
        Layer(base, look.accent, 0.5, is_on_product=True),
        shadow(np.maximum(body, front - 0.008), 0.35, 0.025),
        Layer(front, dark, 0.5),
        Layer(tabs, look.accent, 0.4),
        gloss(ellipse(x, y, (-half_width * 0.5, top * 0.5), (0.05, 0.14)), 0.18, 0.08),
    ]


def draw_watch(x: Array, y: Array, look: Look) -> list[Layer]:
    """Returns a wrist watch upright, its dial to the front."""
    wide, tall, detail = look.proportions
    radius, middle, top = 0.225 + 0.015 * wide, 0.355 + 0.008 * tall, 0.71 + 0.016 * tall
    metal = STEEL if sum(look.accent) > 2.2 or sum(look.accent) < 0.8 else (0.80, 0.66, 0.38)
    dial = PAPER if sum(look.accent) > 1.5 else INK
    is_square = look.variant == "square watch"
    layers = _strap(x, y, top, 0.135 + 0.010 * detail, look.colour)
    crown = rounded_box(x, y, (radius + 0.012, middle), (0.028, 0.030), 0.01)
    layers += [Layer(crown, tinted(metal, 0.8), 0.4)]
    for inset, colour in ((0.0, metal), (0.022, tinted(metal, 0.62)), (0.032, dial)):
        layers.append(Layer(_case(x, y, middle, radius - inset, is_square=is_square), colour, 0.5))
    face = radius - 0.032
    if look.variant == "diver watch":
        layers += _diver_bezel(x, y, middle, radius, look.colour, dial)
        face = radius * 0.68
    reach = face * (0.98 if is_square else 0.84)
    layers += _hours(x, y, middle, reach, readable_on(dial), is_square=is_square)
    layers += _hands(x, y, middle, face, readable_on(dial), look)
    glass = np.maximum(_case(x, y, middle, face, is_square=is_square), x + y - middle + 0.04)
    return [*layers, gloss(glass, 0.10, 0.05)]


def _case(x: Array, y: Array, middle: float, radius: float, *, is_square: bool) -> Array:
    if is_square:
        return rounded_box(x, y, (0.0, middle), (radius * 0.92, radius * 0.92), radius * 0.28)
    return ellipse(x, y, (0.0, middle), (radius, radius))


def _strap(x: Array, y: Array, top: float, half_width: float, colour: Colour) -> list[Layer]:
    narrow = half_width * 0.84
    corners: list[Point] = [(half_width, top / 2), (narrow, top - 0.03), (-narrow, top - 0.03), (-half_width, top / 2)]
    corners += [(-narrow, 0.03), (narrow, 0.03)]
    strap = np.maximum(polygon(x, y, corners, 0.03), -y)
    stitches = np.maximum(np.abs(np.abs(x) - narrow * 0.92) - 0.004, np.abs(y % 0.03 - 0.015) - 0.009)
    layers = [Layer(strap, colour, 0.8), mark(np.maximum(strap, stitches), readable_on(colour), 0.55)]
    for height in (0.035, 0.070, 0.105):
        layers.append(mark(ellipse(x, y, (0.0, height), (0.012, 0.009)), tinted(colour, 0.3)))
    buckle = np.abs(rounded_box(x, y, (0.0, top - 0.055), (narrow * 0.98, 0.030), 0.012)) - 0.009
    return [*layers, Layer(buckle, STEEL, 0.3)]


def _diver_bezel(x: Array, y: Array, middle: float, radius: float, colour: Colour, dial: Colour) -> list[Layer]:
    band = ellipse(x, y, (0.0, middle), (radius - 0.012, radius - 0.012))
    dots = [
        mark(ellipse(x, y, centre, (0.012, 0.012)), readable_on(tinted(colour, 0.7)))
        for centre in arc((0.0, middle), (radius * 0.84, radius * 0.84), 0, 330, 12)
    ]
    inner = ellipse(x, y, (0.0, middle), (radius * 0.72, radius * 0.72))
    return [Layer(band, tinted(colour, 0.7), 0.5), *dots, Layer(inner, STEEL, 0.3), Layer(inner + 0.012, dial, 0.3)]


def _hours(x: Array, y: Array, middle: float, reach: float, colour: Colour, *, is_square: bool) -> list[Layer]:
    layers = []
    for hour in range(12):
        across, up = float(np.sin(np.pi * hour / 6)), float(np.cos(np.pi * hour / 6))
        far = reach / max(abs(across), abs(up)) * 0.86 if is_square else reach
        near = far * (0.76 if hour % 3 == 0 else 0.86)
        tick = stroke(x, y, [(across * near, middle + up * near), (across * far, middle + up * far)], 0.008)
        layers.append(mark(tick - (0.004 if hour % 3 == 0 else 0.0), colour))
    return layers


def _hands(x: Array, y: Array, middle: float, face: float, colour: Colour, look: Look) -> list[Layer]:
    centre: Point = (0.0, middle)
    hour = stroke(x, y, [centre, (-0.46 * face, middle + 0.28 * face)], 0.014)
    minute = stroke(x, y, [centre, (0.40 * face, middle + 0.58 * face)], 0.010)
    second = stroke(x, y, [(-0.03 * face, middle + 0.18 * face), (0.12 * face, middle - 0.66 * face)], 0.004)
    return [
        mark(hour, colour),
        mark(minute, colour),
        mark(second, (0.80, 0.20, 0.16)),
        mark(ellipse(x, y, centre, (0.02, 0.02)), colour),
    ]
