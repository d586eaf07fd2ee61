"""The simulated market's catalogue: what each product is called, costs and looks like.

A product is a variant of its scope in two colours with three proportions at one placement, or a team's own cut-out.
How a category is drawn lies in `drawings_*`, how own cut-outs are read in `own_products`; scenes, users and click
rates do not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from osmf_models.simulator.drawings_hand import draw_bottle, draw_phone
from osmf_models.simulator.drawings_home import draw_chair, draw_lamp, draw_mug
from osmf_models.simulator.drawings_look import Drawing, Look
from osmf_models.simulator.drawings_own import fit_cutout
from osmf_models.simulator.drawings_wear import draw_bag, draw_shoe, draw_watch
from osmf_models.simulator.shapes import Array, Colour, Placement, flatten, grid

CATEGORIES = ("shoe", "bag", "watch", "lamp", "chair", "bottle", "phone", "mug")
PRICE_BANDS = ("budget", "mid", "premium")
OWN_VARIANT = "own"
VARIANTS = {
    "shoe": ("low sneaker", "high-top sneaker", "slip-on shoe", "ankle boot"),
    "bag": ("satchel", "tote bag", "round bag"),
    "watch": ("round watch", "square watch", "diver watch"),
    "lamp": ("cone table lamp", "drum table lamp", "dome table lamp"),
    "chair": ("dining chair", "shell chair", "armchair"),
    "bottle": ("sports bottle", "thermos bottle", "glass bottle"),
    "phone": ("slim phone", "camera phone", "flagship phone"),
    "mug": ("straight mug", "tapered mug", "round mug"),
}

_COLOURS: dict[str, Colour] = {
    "Red": (0.78, 0.17, 0.17),
    "Coral": (0.88, 0.43, 0.35),
    "Mustard": (0.83, 0.62, 0.17),
    "Olive": (0.45, 0.48, 0.22),
    "Green": (0.18, 0.52, 0.32),
    "Teal": (0.13, 0.50, 0.54),
    "Blue": (0.20, 0.40, 0.76),
    "Navy": (0.15, 0.21, 0.42),
    "Plum": (0.46, 0.20, 0.44),
    "Tan": (0.72, 0.52, 0.34),
    "White": (0.87, 0.86, 0.83),
    "Charcoal": (0.24, 0.24, 0.27),
}
_ACCENTS: tuple[Colour, ...] = ((0.87, 0.86, 0.83), (0.17, 0.17, 0.19), (0.86, 0.72, 0.40), (0.60, 0.41, 0.26))
_COLOUR_RANGE = (0.08, 0.90)
_MATERIALS = {
    "shoe": ("canvas", "leather", "suede"),
    "bag": ("leather", "canvas", "woven"),
    "watch": ("leather", "silicone", "nylon"),
    "lamp": ("linen", "cotton", "paper"),
    "chair": ("oak", "velvet", "linen"),
    "bottle": ("steel", "glass", "recycled"),
    "phone": ("glass", "aluminium", "ceramic"),
    "mug": ("stoneware", "enamel", "porcelain"),
}
_MEDIAN_PRICES = {
    "shoe": 59.0,
    "bag": 89.0,
    "watch": 129.0,
    "lamp": 45.0,
    "chair": 149.0,
    "bottle": 24.0,
    "phone": 499.0,
    "mug": 14.0,
}
_PRICE_SPREAD = 0.3  # standard deviation of the log price
_TERCILE = 0.43  # a third of a normal distribution lies beyond this many standard deviations on either side
_BASE_RATE_SPREAD = 0.2  # standard deviation of the log base rate
_BASE_RATE_RANGE = (0.01, 0.05)
_DRAWINGS: dict[str, Drawing] = {
    "shoe": draw_shoe,
    "bag": draw_bag,
    "watch": draw_watch,
    "lamp": draw_lamp,
    "chair": draw_chair,
    "bottle": draw_bottle,
    "phone": draw_phone,
    "mug": draw_mug,
}


@dataclass(frozen=True)
class Product:
    """One product of the market.

    Attributes:
        product_id: `scope-NNN`.
        scope: product category.
        title: as shown to users.
        price: in the shop's currency, above 0.
        price_band: one of `PRICE_BANDS`, by the prices of its category.
        attributes: (name, value) pairs, as in a shop's catalogue.
        base_rate: click rate at position 1 of a picture that nobody likes more or less than another, in (0, 1).
        variant: one of `VARIANTS[scope]`, or `OWN_VARIANT` for a team's own cut-out.
        colour: main colour, RGB in [0, 1].
        accent: second colour, RGB in [0, 1].
        proportions: three numbers in [-1, 1]: width, height and detail.
        placement: where it stands and how large.
        cutout_png: base64 of an RGBA PNG for a team's own cut-out, empty for a drawn product.
    """

    product_id: str
    scope: str
    title: str
    price: float
    price_band: str
    attributes: tuple[tuple[str, str], ...]
    base_rate: float
    variant: str
    colour: Colour
    accent: Colour
    proportions: tuple[float, float, float]
    placement: Placement
    cutout_png: str = ""


def make_product(scope: str, number: int, seed: int, base_rate: float) -> Product:
    """Returns product `number` of `scope`, drawn at random by seed.

    Args:
        scope: one of `CATEGORIES`.
        number: of the product in its scope, from 0; neighbours differ in variant.
        seed: of the market.
        base_rate: median click rate of the market's products, in (0, 1).

    Raises:
        ValueError: when no drawing of the scope exists.
    """
    if scope not in CATEGORIES:
        raise ValueError(f"nothing draws a product of scope {scope!r}; choose one of {', '.join(CATEGORIES)}.")
    rng = np.random.default_rng([seed, number, *scope.encode()])
    colour_name = list(_COLOURS)[rng.integers(len(_COLOURS))]
    material = _MATERIALS[scope][rng.integers(len(_MATERIALS[scope]))]
    variant = VARIANTS[scope][number % len(VARIANTS[scope])]
    accent = _ACCENTS[rng.integers(len(_ACCENTS))]
    width, height, detail = (round(float(value), 4) for value in rng.uniform(-1, 1, 3))
    price = round(round(_MEDIAN_PRICES[scope] * float(np.exp(rng.normal(0, _PRICE_SPREAD)))) - 0.01, 2)
    return Product(
        product_id=f"{scope}-{number:03d}",
        scope=scope,
        title=f"{colour_name} {material} {variant}",
        price=price,
        price_band=_price_band(scope, price),
        attributes=(("colour", colour_name), ("material", material), ("style", variant)),
        base_rate=draw_base_rate(rng, base_rate),
        variant=variant,
        colour=_varied(_COLOURS[colour_name], rng),
        accent=accent if _contrast(accent, _COLOURS[colour_name]) > 0.25 else _ACCENTS[1 - int(sum(accent) < 1.5)],
        proportions=(width, height, detail),
        placement=draw_placement(rng),
    )


def draw_cutout(product: Product, image_px: int) -> Array:
    """Returns the product alone at its place, RGBA in [0, 1], (H, W, 4), colour not premultiplied.

    Raises:
        ValueError: when a product of this scope can neither be drawn nor brings its own cut-out.
    """
    if product.cutout_png:
        return fit_cutout(product.cutout_png, product.placement, image_px)
    if product.scope not in _DRAWINGS:
        raise ValueError(f"product {product.product_id} has no cut-out and nothing draws scope {product.scope!r}.")
    x, y = grid(image_px, product.placement)
    look = Look(product.variant, product.colour, product.accent, product.proportions)
    return flatten(x, y, _DRAWINGS[product.scope](x, y, look))


def draw_placement(rng: np.random.Generator) -> Placement:
    """Returns a mild random placement that keeps a product and its shadow inside the picture."""
    scale, x, foot = (round(float(rng.uniform(*ends)), 4) for ends in ((0.85, 1.0), (0.47, 0.53), (0.80, 0.86)))
    return Placement(scale=scale, x=x, foot=foot)


def draw_base_rate(rng: np.random.Generator, median: float) -> float:
    """Returns a product's base click rate, log-normal around the market's median, clipped to [0.01, 0.05]."""
    return round(float(np.clip(median * np.exp(rng.normal(0, _BASE_RATE_SPREAD)), *_BASE_RATE_RANGE)), 6)


def nearest_colour_name(colour: Colour) -> str:
    """Returns the catalogue's name for the colour that is closest."""
    return min(_COLOURS, key=lambda name: _contrast(colour, _COLOURS[name]))


def _price_band(scope: str, price: float) -> str:
    step = _TERCILE * _PRICE_SPREAD
    bounds = [_MEDIAN_PRICES[scope] * float(np.exp(sign * step)) for sign in (-1, 1)]
    return PRICE_BANDS[int(np.searchsorted(bounds, price))]


def _varied(colour: Colour, rng: np.random.Generator) -> Colour:
    drawn = np.clip(colour + rng.normal(0, 0.025, 3), *_COLOUR_RANGE)
    red, green, blue = (round(float(value), 4) for value in drawn)
    return red, green, blue


def _contrast(one: Colour, other: Colour) -> float:
    return float(np.abs(np.subtract(one, other)).mean())
