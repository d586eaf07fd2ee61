"""What a simulated market is: its users, its scopes with their planted segments, its products and how they are shown.

The specification, kept as JSON, is enough to draw every picture and to compute every click rate again. The two named
markets are in `easy.py` and `realistic.py`; pixels do not belong here, nor who clicks what.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from osmf_models.simulator.products import Placement, Product
from osmf_models.simulator.scene_features import STYLE_NAMES
from osmf_models.simulator.segments import Scope, Segment, Taste, segment_of_combination, segment_shares_of_cell
from osmf_models.simulator.users import Attribute, Population, check_population

MARKET_FORMAT = "osmf-market/2"
MARKET_FILE_NAME = "market.json"
IMAGE_PX = (16, 512)


@dataclass(frozen=True)
class Creative:
    """One ad picture of a product: the style of its scene, (9,) in [-1, 1], and the seed of the rest."""

    creative_id: str
    product_id: str
    style: tuple[float, ...]
    scene_seed: int


@dataclass(frozen=True)
class Season:
    """By what the click rates of a day differ, whatever is shown.

    Attributes:
        weekdays: log factor from Monday to Sunday, (7,).
        daily_spread: standard deviation of a day's own log factor.
    """

    weekdays: tuple[float, ...] = (0.0,) * 7
    daily_spread: float = 0.0


@dataclass(frozen=True)
class Market:
    """Everything that fixes a simulated market.

    Attributes:
        name: kind and version of the market.
        seed: of pictures, styles and users.
        image_px: side of every picture.
        num_creatives_per_product: pictures logged for each product.
        population: its users.
        scopes: product categories.
        products: of all scopes.
        first_date: day from which drift is counted.
        season: how days differ.
        popularity_exponent: impressions of the n-th product of a scope go as n to the minus this.
        examination: by position, the share of impressions at which the picture is looked at, in (0, 1].
    """

    name: str
    seed: int
    image_px: int
    num_creatives_per_product: int
    population: Population
    scopes: tuple[Scope, ...]
    products: tuple[Product, ...]
    first_date: str = "2026-01-01"
    season: Season = Season()
    popularity_exponent: float = 0.0
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

    def products_of(self, scope: str) -> tuple[Product, ...]:
        """Returns the products of a scope."""
        return tuple(product for product in self.products if product.scope == scope)

    def days_since_start(self, day: date | None) -> float:
        """Returns how far drift has gone on a day; the first day for None."""
        return 0.0 if day is None else float((day - date.fromisoformat(self.first_date)).days)


_Item = TypeVar("_Item", Scope, Segment, Product)


def check_market(market: Market) -> Market:
    """Returns the market.

    Raises:
        ValueError: when a setting is impossible, a product's scope unknown, or a rule does not fit the attributes.
    """
    low, high = IMAGE_PX
    if not low <= market.image_px <= high or market.image_px % 2:
        raise ValueError(f"image_px is {market.image_px}: pictures need an even side of {low} to {high} pixels.")
    if market.num_creatives_per_product < 2:
        raise ValueError(f"{market.num_creatives_per_product} creatives per product: at least two are needed.")
    if not market.products or not market.scopes:
        raise ValueError("a market needs at least one product of one scope.")
    if not market.examination or not all(0 < share <= 1 for share in market.examination):
        raise ValueError(f"examination is {market.examination}: one share in (0, 1] for each position is needed.")
    numbers = (*market.season.weekdays, market.season.daily_spread, market.popularity_exponent)
    if len(market.season.weekdays) != 7 or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"{market.season} and exponent {market.popularity_exponent}: 7 weekdays and numbers are needed."
        )
    if len({scope.name for scope in market.scopes}) < len(market.scopes):
        raise ValueError("two scopes have the same name.")
    check_population(market.population)
    for scope in market.scopes:
        if not 0 <= scope.softness < 1:
            raise ValueError(f"softness of {scope.name} is {scope.softness}: it must lie in [0, 1).")
        segment_of_combination(scope, market.population.attributes)
    for product in market.products:
        market.scope(product.scope)
    return market


def with_scopes(market: Market, names: list[str]) -> Market:
    """Returns the market with some of its scopes only.

    Raises:
        ValueError: when a name is none of its scopes.
    """
    known = [scope.name for scope in market.scopes]
    for name in names:
        if name not in known:
            raise ValueError(f"no scope is called {name!r}: market {market.name} has {', '.join(known)}.")
    return replace(
        market,
        scopes=tuple(scope for scope in market.scopes if scope.name in names),
        products=tuple(product for product in market.products if product.scope in names),
    )


def with_products(market: Market, products: tuple[Product, ...]) -> Market:
    """Returns the market with other products: each category is a scope.

    A category takes the segments of the scope of its name; any other takes those of the scopes not named, in turn.
    """
    categories = sorted({product.scope for product in products})
    named = {scope.name: scope for scope in market.scopes}
    others = [scope for scope in market.scopes if scope.name not in categories] or list(market.scopes)
    strange = [category for category in categories if category not in named]
    taken = {category: others[place % len(others)] for place, category in enumerate(strange)}
    scopes = tuple(replace(named.get(name) or taken[name], name=name) for name in categories)
    return check_market(replace(market, scopes=scopes, products=products))


def creatives_of(market: Market, product_id: str) -> tuple[Creative, ...]:
    """Returns the logged creatives of a product, their styles uniform in [-1, 1]^9."""
    rng = np.random.default_rng([market.seed, 1, *product_id.encode()])
    styles = rng.uniform(-1, 1, (market.num_creatives_per_product, len(STYLE_NAMES))).round(6)
    seeds = rng.integers(0, 2**40, market.num_creatives_per_product)
    return tuple(
        Creative(f"{product_id}-c{number:02d}", product_id, tuple(style.tolist()), int(scene_seed))
        for number, (style, scene_seed) in enumerate(zip(styles, seeds, strict=True))
    )


def segment_shares_of(market: Market, scope: str, cell: str) -> dict[str, float]:
    """Returns the expected share of each segment among the users of `cell`, `name=value` joined by bars.

    Raises:
        ValueError: when the cell is not one of this market's.
    """
    found = market.scope(scope)
    shares = segment_shares_of_cell(found, market.population.attributes, cell)
    return {segment.name: share for segment, share in zip(found.segments, shares, strict=True) if share > 0}


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
    population = fields["population"]
    population["attributes"] = tuple(Attribute(**attribute) for attribute in population["attributes"])
    fields["population"] = Population(**population)
    fields["season"] = Season(**fields["season"])
    fields["products"] = tuple(
        Product(**product | {"placement": Placement(**product["placement"])}) for product in fields["products"]
    )
    fields["scopes"] = tuple(Scope(**scope | {"segments": _segments(scope)}) for scope in fields["scopes"])
    return Market(**fields)


def _segments(scope: dict[str, Any]) -> tuple[Segment, ...]:
    return tuple(Segment(**segment | {"taste": Taste(**segment["taste"])}) for segment in scope["segments"])


def _frozen(value: object) -> object:
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value


def _find(items: tuple[_Item, ...], field: str, wanted: str) -> _Item:
    for item in items:
        if getattr(item, field) == wanted:
            return item
    raise ValueError(f"no {type(items[0]).__name__.lower()} is called {wanted!r}.")
