"""The simulated market's products: what each is called, costs and looks like.

A product is a variant of its scope in two colours with three proportions; `draw_cutout` draws it at its one fixed
place. Scenes, users and click rates do not belong here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from osmf_models.simulator.shapes import (
    Array,
    Colour,
    Layer,
    Point,
    curve,
    ellipse,
    flatten,
    grid,
    polygon,
    ring,
    rounded_box,
    stroke,
)

_COLOURS: dict[str, Colour] = {
    "Red": (0.80, 0.16, 0.16),
    "Coral": (0.94, 0.45, 0.36),
    "Mustard": (0.87, 0.65, 0.16),
    "Olive": (0.45, 0.48, 0.22),
    "Green": (0.18, 0.52, 0.32),
    "Teal": (0.12, 0.50, 0.54),
    "Blue": (0.20, 0.40, 0.76),
    "Navy": (0.14, 0.20, 0.42),
    "Plum": (0.46, 0.20, 0.44),
    "Tan": (0.72, 0.52, 0.34),
    "White": (0.93, 0.92, 0.89),
    "Charcoal": (0.22, 0.22, 0.25),
}
_ACCENTS: tuple[Colour, ...] = ((0.96, 0.95, 0.92), (0.16, 0.16, 0.18), (0.93, 0.78, 0.42), (0.62, 0.42, 0.26))
_MATERIALS = {
    "shoe": ("canvas", "leather", "suede"),
    "bag": ("leather", "canvas", "woven"),
    "lamp": ("linen", "brass", "paper"),
    "mug": ("stoneware", "enamel", "porcelain"),
}
VARIANTS = {
    "shoe": ("low sneaker", "high-top sneaker", "slip-on shoe"),
    "bag": ("satchel", "tote bag", "round bag"),
    "lamp": ("cone table lamp", "drum table lamp", "dome table lamp"),
    "mug": ("straight mug", "tapered mug", "round mug"),
}
_MEDIAN_PRICES = {"shoe": 59.0, "bag": 89.0, "lamp": 45.0, "mug": 14.0}


@dataclass(frozen=True)
class Product:
    """One product of the market.

    Attributes:
        product_id: `scope-NNN`.
        scope: product category.
        title: as shown to users.
        price: in the shop's currency.
        base_rate: click rate at position 1 of a picture that nobody likes more or less than another, in (0, 1).
        variant: one of `VARIANTS[scope]`.
        colour: main colour, RGB in [0, 1].
        accent: second colour, RGB in [0, 1].
        proportions: three numbers in [-1, 1]: width, height and detail.
    """

    product_id: str
    scope: str
    title: str
    price: float
    base_rate: float
    variant: str
    colour: Colour
    accent: Colour
    proportions: tuple[float, float, float]


def make_product(scope: str, number: int, seed: int, base_rate: float) -> Product:
    """Returns product `number` of `scope`, drawn at random by seed; `base_rate` is the median of the market."""
    rng = np.random.default_rng([seed, number, *scope.encode()])
    colour_name = list(_COLOURS)[rng.integers(len(_COLOURS))]
    material = _MATERIALS[scope][rng.integers(len(_MATERIALS[scope]))]
    variant = VARIANTS[scope][number % len(VARIANTS[scope])]
    accent = _ACCENTS[rng.integers(len(_ACCENTS))]
    width, height, detail = (round(float(value), 4) for value in rng.uniform(-1, 1, 3))
    return Product(
        product_id=f"{scope}-{number:03d}",
        scope=scope,
        title=f"{colour_name} {material} {variant}",
        price=round(_MEDIAN_PRICES[scope] * float(np.exp(rng.normal(0, 0.3)))) - 0.01,
        base_rate=round(base_rate * float(np.exp(rng.normal(0, 0.2))), 6),
        variant=variant,
        colour=_varied(_COLOURS[colour_name], rng),
        accent=accent if _contrast(accent, _COLOURS[colour_name]) > 0.25 else _ACCENTS[1 - int(sum(accent) < 1.5)],
        proportions=(width, height, detail),
    )


def draw_cutout(product: Product, image_px: int) -> Array:
    """Returns the product alone at its place, RGBA in [0, 1], (H, W, 4), transparent elsewhere."""
    x, y = grid(image_px)
    return flatten(_DRAWINGS[product.scope](x, y, product), image_px)


def _varied(colour: Colour, rng: np.random.Generator) -> Colour:
    red, green, blue = (round(float(value), 4) for value in np.clip(colour + rng.normal(0, 0.025, 3), 0.04, 0.96))
    return red, green, blue


def _contrast(one: Colour, other: Colour) -> float:
    return float(np.abs(np.subtract(one, other)).mean())


def _tinted(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(1.0, channel * factor) for channel in colour)
    return red, green, blue


def _draw_shoe(x: Array, y: Array, product: Product) -> list[Layer]:
    wide, tall, detail = product.proportions
    left, right = 0.11 - 0.02 * wide, 0.90 + 0.02 * wide
    collar = {"low sneaker": 0.46, "high-top sneaker": 0.29, "slip-on shoe": 0.52}[product.variant] - 0.03 * tall
    half_sole, floor = 0.055 + 0.012 * detail, 0.84
    top = floor - 2 * half_sole
    instep = 0.47 + 0.03 * wide
    outline: list[Point] = [
        (left + 0.02, top + 0.03),
        (left + 0.01, collar + 0.10),
        (left + 0.03, collar),
        (left + 0.20, collar + 0.045),
        (instep - 0.08, collar + 0.01),
        (instep + 0.06, (collar + top) / 2 - 0.01),
        (right - 0.17, top - 0.13),
        (right - 0.04, top - 0.09),
        (right - 0.01, top + 0.03),
    ]
    upper = polygon(x, y, curve(outline))
    toe = np.maximum(upper, ellipse(x, y, (right - 0.04, top + 0.02), (0.16, 0.15)))
    heel = np.maximum(upper, x - left - 0.09)
    layers = [
        Layer(upper, product.colour),
        Layer(ellipse(x, y, (left + 0.17, collar + 0.025), (0.14, 0.03)), _tinted(product.colour, 0.4), 0.2),
        Layer(heel, _tinted(product.colour, 0.78)),
    ]
    if product.variant == "slip-on shoe":
        gusset: list[Point] = [(instep - 0.10, collar + 0.06), (instep + 0.02, top - 0.10)]
        layers.append(Layer(np.maximum(upper, stroke(x, y, gusset, 0.045)), _tinted(product.colour, 0.6)))
    else:
        layers += [Layer(toe, product.accent), *_laces(x, y, (instep, collar), top, product.accent)]
    sole = rounded_box(x, y, ((left + right) / 2, floor - half_sole), ((right - left) / 2, half_sole), half_sole * 0.8)
    tread = np.maximum(sole, floor - 0.035 - y)
    return [*layers, Layer(sole, (0.95, 0.94, 0.91), 0.5), Layer(tread, _tinted(product.colour, 0.55), 0.2)]


def _laces(x: Array, y: Array, start: Point, top: float, colour: Colour) -> list[Layer]:
    drop = (top - start[1]) * 0.52
    layers = []
    for step in (0.18, 0.5, 0.82):
        px, py = start[0] - 0.06 + 0.16 * step, start[1] + 0.03 + drop * step
        layers.append(Layer(stroke(x, y, [(px - 0.085, py + 0.055), (px + 0.02, py)], 0.014), colour, 0.2))
    return layers


def _draw_bag(x: Array, y: Array, product: Product) -> list[Layer]:
    wide, tall, detail = product.proportions
    half_width, floor = 0.31 + 0.03 * wide, 0.86
    top = {"satchel": 0.46, "tote bag": 0.38, "round bag": 0.40}[product.variant] - 0.03 * tall
    dark, handle_top = _tinted(product.colour, 0.62), top - 0.17 - 0.03 * detail
    taper = {"satchel": 0.03, "tote bag": -0.045, "round bag": 0.0}[product.variant]
    if product.variant == "round bag":
        body = ellipse(x, y, (0.5, (top + floor) / 2), (half_width, (floor - top) / 2))
    else:
        corners: list[Point] = [
            (0.53 - half_width + taper, top + 0.03),
            (0.47 + half_width - taper, top + 0.03),
            (0.47 + half_width, floor - 0.03),
            (0.53 - half_width, floor - 0.03),
        ]
        body = polygon(x, y, corners, 0.03)
    reach = half_width * (0.62 if product.variant == "tote bag" else 0.5)
    arc: list[Point] = [
        (0.5 - reach * float(np.cos(a)), top + 0.06 + (handle_top - top - 0.06) * float(np.sin(a)))
        for a in np.linspace(0, np.pi, 13)
    ]
    layers = [Layer(stroke(x, y, arc, 0.024), dark, 0.4), Layer(body, product.colour)]
    flap_floor = top + (floor - top) * (0.5 + 0.06 * detail)
    if product.variant == "tote bag":
        pocket = np.maximum(body, rounded_box(x, y, (0.5, floor - 0.12), (half_width, 0.03), 0.0))
        return [*layers, Layer(pocket, product.accent, 0.4)]
    flap = np.maximum(body, ellipse(x, y, (0.5, top), (half_width * 1.25, flap_floor - top)))
    clasp = rounded_box(x, y, (0.5, flap_floor), (0.045, 0.05), 0.02)
    return [*layers, Layer(flap, _tinted(product.colour, 0.8), 0.9), Layer(clasp, product.accent, 0.5)]


def _draw_lamp(x: Array, y: Array, product: Product) -> list[Layer]:
    wide, tall, detail = product.proportions
    half_width, top, floor = 0.31 + 0.03 * wide, 0.13 - 0.02 * tall, 0.87
    rim = 0.52 - 0.02 * tall
    narrow = {"cone table lamp": 0.42, "drum table lamp": 0.86, "dome table lamp": 0.3}[product.variant] * half_width
    if product.variant == "dome table lamp":
        bowl = ellipse(x, y, (0.5, rim), (half_width, rim - top))
        shade = np.maximum(bowl, y - rim)
    else:
        corners: list[Point] = [
            (0.5 - narrow, top),
            (0.5 + narrow, top),
            (0.5 + half_width, rim),
            (0.5 - half_width, rim),
        ]
        shade = polygon(x, y, corners, 0.012)
    band = np.maximum(shade, np.minimum(rim - 0.03 - y, 1.0))
    glow = np.maximum(shade, ellipse(x, y, (0.5, rim - 0.06), (half_width * 0.6, 0.2)))
    foot_width = 0.17 + 0.02 * detail
    foot = np.maximum(ellipse(x, y, (0.5, floor), (foot_width, 0.085)), y - floor)
    stem = rounded_box(x, y, (0.5, 0.68), (0.026, 0.2), 0.01)
    belly = ellipse(x, y, (0.5, 0.70), (0.075 + 0.02 * detail, 0.09))
    metal = _tinted(product.accent, 0.85)
    return [
        Layer(stem, metal, 0.5),
        Layer(belly, metal),
        Layer(foot, metal),
        Layer(shade, product.colour, 0.8),
        Layer(glow, _tinted(product.colour, 1.3), 0.5),
        Layer(band, _tinted(product.colour, 0.65), 0.4),
    ]


def _draw_mug(x: Array, y: Array, product: Product) -> list[Layer]:
    wide, tall, detail = product.proportions
    half_width, top, floor, middle = 0.245 + 0.02 * wide, 0.33 - 0.035 * tall, 0.86, 0.43
    foot = half_width * {"straight mug": 0.96, "tapered mug": 0.70, "round mug": 0.72}[product.variant]
    belly = half_width * {"straight mug": 1.0, "tapered mug": 0.9, "round mug": 1.12}[product.variant]
    side: list[Point] = [(half_width, top), (belly, (top + floor) / 2), (foot, floor - 0.05), (foot * 0.85, floor)]
    outline: list[Point] = [(middle + dx, py) for dx, py in side] + [(middle - dx, py) for dx, py in reversed(side)]
    body = polygon(x, y, outline, 0.01)
    centre: Point = (middle + belly, (top + floor) / 2 - 0.02)
    handle = ring(x, y, centre, (0.15 + 0.015 * detail, 0.155 + 0.02 * detail), 0.03)
    stripe = np.maximum(body, np.abs(y - (top + floor) / 2 - 0.02) - 0.05 - 0.02 * detail)
    rim = ellipse(x, y, (middle, top), (half_width + 0.01, 0.055))
    tea = ellipse(x, y, (middle, top + 0.008), (half_width - 0.025, 0.036))
    return [
        Layer(handle, _tinted(product.colour, 0.88), 0.5),
        Layer(body, product.colour, 0.9),
        Layer(stripe, product.accent, 0.9),
        Layer(rim, _tinted(product.colour, 1.15), 0.3),
        Layer(tea, (0.36, 0.20, 0.10), 0.3),
    ]


_DRAWINGS: dict[str, Callable[[Array, Array, Product], list[Layer]]] = {
    "shoe": _draw_shoe,
    "bag": _draw_bag,
    "lamp": _draw_lamp,
    "mug": _draw_mug,
}
