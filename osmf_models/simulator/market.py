"""What a simulated market is: its users' attributes, its scopes with their planted segments, its products.

`easy_market` plants linear tastes along attribute rules; its specification, kept as JSON, is enough to draw every
picture and to compute every click rate again. Pixels do not belong here, nor who clicks what.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from osmf_models.simulator.products import Product, make_product

MARKET_FORMAT = "osmf-market/1"
MARKET_FILE_NAME = "market.json"

_BASE_RATE = 0.041
_NUM_STYLES = 5


@dataclass(frozen=True)
class Attribute:
    """One user attribute.

    Attributes:
        name: of the attribute.
        values: its bins.
        parent: an attribute before it that its distribution depends on, or None.
        probabilities: one row per value of the parent (one row without a parent), one entry per bin.
    """

    name: str
    values: tuple[str, ...]
    parent: str | None
    probabilities: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Segment:
    """Users of one scope who share a taste.

    Attributes:
        name: of the segment, unique in its scope.
        conditions: (attribute, allowed values) that must all hold; a user belongs to the first segment that fits.
        taste: change of the log click rate per unit of measured style, in the order of `FEATURE_NAMES`.
    """

    name: str
    conditions: tuple[tuple[str, tuple[str, ...]], ...]
    taste: tuple[float, ...]


@dataclass(frozen=True)
class Scope:
    """One product category and the segments of its users: the first that fits counts, the last fits everyone."""

    name: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Creative:
    """One ad picture of a product: the style of its scene, (5,) in [-1, 1], and the seed of the rest."""

    creative_id: str
    product_id: str
    style: tuple[float, ...]
    scene_seed: int


@dataclass(frozen=True)
class Market:
    """Everything that fixes a simulated market.

    Attributes:
        name: kind of market.
        seed: of pictures, styles and users.
        image_px: side of every picture.
        num_users: user index runs below it.
        num_creatives_per_product: pictures logged for each product.
        attributes: of the users, a parent before its children.
        scopes: product categories.
        products: of all scopes.
        examination: by position, the share of impressions at which the picture is looked at, in (0, 1].
    """

    name: str
    seed: int
    image_px: int
    num_users: int
    num_creatives_per_product: int
    attributes: tuple[Attribute, ...]
    scopes: tuple[Scope, ...]
    products: tuple[Product, ...]
    examination: tuple[float, ...] = (1.0, 0.7, 0.5)

    def scope(self, name: str) -> Scope:
        """Returns the scope called `name`."""
        return _find(self.scopes, "name", name)

    def segment(self, scope: str, name: str) -> Segment:
        """Returns the segment called `name` of a scope."""
        return _find(self.scope(scope).segments, "name", name)

    def product(self, product_id: str) -> Product:
        """Returns the product with this id."""
        return _find(self.products, "product_id", product_id)


_Item = TypeVar("_Item", Scope, Segment, Product)


def easy_market(
    seed: int,
    *,
    image_px: int = 32,
    num_products_per_scope: int = 30,
    num_creatives_per_product: int = 8,
    num_users: int = 20_000,
) -> Market:
    """Returns the market `easy-1`: four scopes, linear tastes, segments along the attributes' axes.

    Raises:
        ValueError: for a picture below 16 px or an odd side, or anything counted below 1 (creatives: below 2).
    """
    if image_px < 16 or image_px % 2:
        raise ValueError(f"image_px is {image_px}: pictures need an even side of at least 16 pixels.")
    if min(num_products_per_scope, num_users) < 1 or num_creatives_per_product < 2:
        raise ValueError("a market needs at least one product per scope, one user and two creatives per product.")
    if seed < 0:
        raise ValueError(f"seed is {seed}: it must not be negative.")
    products = tuple(
        make_product(scope.name, number, seed, _BASE_RATE)
        for scope in _EASY_SCOPES
        for number in range(num_products_per_scope)
    )
    return Market(
        "easy-1", seed, image_px, num_users, num_creatives_per_product, _EASY_ATTRIBUTES, _EASY_SCOPES, products
    )


def creatives_of(market: Market, product_id: str) -> tuple[Creative, ...]:
    """Returns the logged creatives of a product, their styles uniform in [-1, 1]^5."""
    rng = np.random.default_rng([market.seed, 1, *product_id.encode()])
    styles = rng.uniform(-1, 1, (market.num_creatives_per_product, _NUM_STYLES)).round(6)
    seeds = rng.integers(0, 2**40, market.num_creatives_per_product)
    return tuple(
        Creative(f"{product_id}-c{number:02d}", product_id, tuple(style.tolist()), int(scene_seed))
        for number, (style, scene_seed) in enumerate(zip(styles, seeds, strict=True))
    )


@lru_cache(maxsize=8)
def cell_probabilities(market: Market) -> dict[str, float]:
    """Returns the share of users in each cell, a cell being `name=value` joined by bars, sorted by name."""
    shares = {}
    for bins in itertools.product(*(range(len(attribute.values)) for attribute in market.attributes)):
        chosen = dict(zip((attribute.name for attribute in market.attributes), bins, strict=True))
        share = 1.0
        for attribute in market.attributes:
            share *= attribute.probabilities[_parent_bin(market, attribute, chosen)][chosen[attribute.name]]
        values = {attribute.name: attribute.values[chosen[attribute.name]] for attribute in market.attributes}
        shares["|".join(f"{name}={values[name]}" for name in sorted(values))] = share
    return shares


def segment_of(market: Market, scope: str, cell: str) -> str:
    """Returns the name of the segment that the users of `cell` belong to in `scope`.

    Raises:
        ValueError: when the cell is not one of this market's.
    """
    if cell not in cell_probabilities(market):
        raise ValueError(f"{cell!r} is no cell of market {market.name}.")
    values = dict(part.split("=", 1) for part in cell.split("|"))
    for segment in market.scope(scope).segments:
        if all(values[name] in allowed for name, allowed in segment.conditions):
            return segment.name
    raise ValueError(f"no segment of scope {scope!r} takes {cell!r}.")


def save_market(market: Market, truth_dir: Path) -> None:
    """Writes the market's specification to `truth_dir`/market.json."""
    truth_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": MARKET_FORMAT, **asdict(market)}, indent=1)
    (truth_dir / MARKET_FILE_NAME).write_text(text)


def load_market(truth_dir: Path) -> Market:
    """Reads the market of a truth folder.

    Raises:
        ValueError: when there is none, or when it is of another format.
    """
    path = truth_dir / MARKET_FILE_NAME
    if not path.is_file():
        raise ValueError(f"{truth_dir} holds no simulated market (no {MARKET_FILE_NAME}).")
    fields = json.loads(path.read_text(), object_hook=lambda found: {k: _frozen(v) for k, v in found.items()})
    if fields.pop("format", None) != MARKET_FORMAT:
        raise ValueError(f"{path} is not of format {MARKET_FORMAT!r}: simulate again.")
    fields["attributes"] = tuple(Attribute(**attribute) for attribute in fields["attributes"])
    fields["products"] = tuple(Product(**product) for product in fields["products"])
    fields["scopes"] = tuple(
        Scope(scope["name"], tuple(Segment(**segment) for segment in scope["segments"])) for scope in fields["scopes"]
    )
    return Market(**fields)


def _parent_bin(market: Market, attribute: Attribute, chosen: dict[str, int]) -> int:
    return 0 if attribute.parent is None else chosen[attribute.parent]


def _frozen(value: object) -> object:
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value


def _find(items: tuple[_Item, ...], field: str, wanted: str) -> _Item:
    for item in items:
        if getattr(item, field) == wanted:
            return item
    raise ValueError(f"no {type(items[0]).__name__.lower()} is called {wanted!r}.")


_EASY_ATTRIBUTES = (
    Attribute("age_band", ("18-24", "25-34", "35-49", "50+"), None, ((0.22, 0.30, 0.28, 0.20),)),
    Attribute("gender", ("female", "male"), None, ((0.54, 0.46),)),
    Attribute("city_tier", ("tier1", "tier2", "tier3"), None, ((0.35, 0.35, 0.30),)),
    Attribute(
        "price_sensitivity",
        ("low", "medium", "high"),
        "age_band",
        ((0.15, 0.35, 0.50), (0.30, 0.40, 0.30), (0.35, 0.40, 0.25), (0.25, 0.35, 0.40)),
    ),
    Attribute("device", ("ios", "android"), "city_tier", ((0.55, 0.45), (0.42, 0.58), (0.28, 0.72))),
    Attribute("membership", ("member", "none"), "price_sensitivity", ((0.52, 0.48), (0.38, 0.62), (0.22, 0.78))),
)

# Tastes: brightness, warmth, saturation, texture, gradient.
_EASY_SCOPES = (
    Scope(
        "shoe",
        (
            Segment(
                "bargain_youth",
                (("age_band", ("18-24", "25-34")), ("price_sensitivity", ("high",))),
                (-0.22, 0.37, 0.44, 0.22, 0.0),
            ),
            Segment("young", (("age_band", ("18-24", "25-34")),), (-0.37, -0.44, -0.11, 0.26, 0.15)),
            Segment("women_35_up", (("gender", ("female",)),), (0.44, 0.33, -0.35, -0.13, 0.0)),
            Segment("men_35_up", (), (0.18, -0.33, 0.11, -0.44, -0.29)),
        ),
    ),
    Scope(
        "bag",
        (
            Segment(
                "metropolitan_women",
                (("gender", ("female",)), ("city_tier", ("tier1",))),
                (0.33, -0.40, -0.42, 0.0, 0.15),
            ),
            Segment("other_women", (("gender", ("female",)),), (0.22, 0.51, 0.29, -0.24, 0.0)),
            Segment("men", (), (-0.48, -0.13, 0.15, 0.40, -0.15)),
        ),
    ),
    Scope(
        "lamp",
        (
            Segment("members", (("membership", ("member",)),), (-0.44, 0.42, 0.0, 0.22, 0.22)),
            Segment("ios_guests", (("device", ("ios",)),), (0.46, -0.37, 0.15, -0.26, 0.0)),
            Segment("android_guests", (), (0.20, 0.15, 0.46, 0.18, -0.40)),
        ),
    ),
    Scope("mug", (Segment("everyone", (), (0.33, 0.40, 0.18, -0.31, 0.13)),)),
)
