"""What the pipeline would count in the logs of a simulated market, without writing the logs.

The same draws as the logs, added up at once: impressions and clicks per day, user cell, fold, creative and position.
What is made of them belongs in `grouping.py`.

Shapes: `R` rows of counts, `N` cells, `C` creatives of all products, `D` days, `S` scopes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_models.simulator.draws import Draws, Index
from osmf_models.simulator.events import Shop, draw_impressions, rates_of_day
from osmf_models.simulator.market import Market, creatives_of
from osmf_models.simulator.serving import Policy, serve_day
from osmf_models.simulator.users import UNKNOWN, Population
from osmf_pipelines.bench.encoders import ENCODERS, Features
from osmf_pipelines.spark.place_effects import PlaceEffects, fit_effects

NUM_FOLDS = 5
_SLOT_TYPE = "default"
_CHUNK_ROWS = 250_000


@dataclass(frozen=True)
class CountRows:
    """Impressions and clicks per day, cell, fold, creative and position (from 1); every field (R,)."""

    day: Index
    cell: Index
    fold: Index
    creative: Index
    position: Index
    num_impressions: Index
    num_clicks: Index

    def where(self, is_kept: NDArray[np.bool_]) -> CountRows:
        """Returns some of the rows."""
        return CountRows(*(getattr(self, field.name)[is_kept] for field in fields(self)))

    def followed_by(self, more: CountRows) -> CountRows:
        """Returns the rows of both."""
        return CountRows(
            *(np.concatenate([getattr(self, field.name), getattr(more, field.name)]) for field in fields(self))
        )


@dataclass(frozen=True)
class MarketCounts:
    """The sums of a window of simulated days.

    Attributes:
        shop: whose they are.
        num_days: days of the window, from the shop's first.
        cells: the users' known attributes, `name=value` joined by bars and sorted by name, (N,).
        rows: what was counted.
        cell_users: distinct users seen in each scope, by cell, (S, N).
        features: of the creatives.
    """

    shop: Shop
    num_days: int
    cells: tuple[str, ...]
    rows: CountRows
    cell_users: Index
    features: Features

    def of_days(self, first: int, count: int) -> MarketCounts:
        """Returns the rows of some days; `cell_users` stay those of all days, somewhat more than the window's."""
        return replace(self, rows=self.rows.where((self.rows.day >= first) & (self.rows.day < first + count)))

    def followed_by(self, later: MarketCounts) -> MarketCounts:
        """Returns the rows of both, of the same shop but for its tastes, whose later ones are `later`'s."""
        return replace(later, rows=self.rows.followed_by(later.rows))

    @property
    def scope_of_creative(self) -> Index:
        """Returns the place of each creative's scope, (C,)."""
        return np.repeat(self.shop.scope_of_product, self.shop.market.num_creatives_per_product)

    @cached_property
    def creative_ids(self) -> NDArray[np.object_]:
        """Returns the creatives' ids, (C,)."""
        return creative_ids(self.shop.market)

    @cached_property
    def product_ids(self) -> NDArray[np.object_]:
        """Returns the id of each creative's product, (C,)."""
        return product_ids(self.shop.market)

    @property
    def place_effects(self) -> PlaceEffects:
        """Returns what position and day do to clicks, estimated from these rows as a refresh does."""
        num_positions = len(self.shop.market.examination)
        num_creatives = len(self.creative_ids)
        code = (self.rows.creative * self.num_days + self.rows.day) * num_positions + self.rows.position - 1
        size = num_creatives * self.num_days * num_positions
        shown, clicked = (
            np.bincount(code, values, size) for values in (self.rows.num_impressions, self.rows.num_clicks)
        )
        kept = np.flatnonzero(shown)
        rest, position = np.divmod(kept, num_positions)
        creative, day = np.divmod(rest, self.num_days)
        columns = {
            "creative_id": self.creative_ids[creative],
            "event_date": [self.shop.day(index) for index in day.tolist()],
            "slot_type": _SLOT_TYPE,
            "position": position + 1,
            "num_impressions": shown[kept],
            "num_clicks": clicked[kept],
        }
        return fit_effects(pd.DataFrame(columns))

    def effective_impressions(self, effects: PlaceEffects) -> NDArray[np.float64]:
        """Returns the impressions of each row at position 1 on an average day, (R,)."""
        positions = range(1, len(self.shop.market.examination) + 1)
        examination = np.array([effects.examination_rates.get((_SLOT_TYPE, position), 1.0) for position in positions])
        days = np.array([effects.day_factors.get(self.shop.day(index), 1.0) for index in range(self.num_days)])
        return self.rows.num_impressions * examination[self.rows.position - 1] * days[self.rows.day]

    def of_scope(
        self, scope: int, effects: PlaceEffects, *, heldout_fold: int = 0, fitted_products: frozenset[str] | None = None
    ) -> pd.DataFrame:
        """Returns one scope's counts per cell and creative, as `form_scope_groups` takes them.

        Args:
            scope: its place in the market.
            effects: of position and day.
            heldout_fold: users to judge the groups on.
            fitted_products: products that may be looked at; None for all.
        """
        rows = np.flatnonzero(self.scope_of_creative[self.rows.creative] == scope)
        code = self.rows.cell[rows] * len(self.creative_ids) + self.rows.creative[rows]
        kept, place = np.unique(code, return_inverse=True)
        cell, creative = np.divmod(kept, len(self.creative_ids))
        effective = self.effective_impressions(effects)[rows] * 1000
        clicks, is_heldout = self.rows.num_clicks[rows], self.rows.fold[rows] == heldout_fold
        columns = {
            "scope": self.shop.market.scopes[scope].name,
            "cell": np.array(self.cells, dtype=object)[cell],
            "product_id": self.product_ids[creative],
            "creative_id": self.creative_ids[creative],
            "num_impressions": np.bincount(place, self.rows.num_impressions[rows]).astype(np.int64),
            "num_clicks": np.bincount(place, clicks).astype(np.int64),
            "effective_millis": np.bincount(place, effective),
            "heldout_millis": np.bincount(place, effective * is_heldout),
            "heldout_clicks": np.bincount(place, clicks * is_heldout).astype(np.int64),
            "num_users": self.cell_users[scope, cell],
        }
        frame = pd.DataFrame(columns)
        frame["is_fitted"] = True if fitted_products is None else frame["product_id"].isin(fitted_products)
        return frame

    def features_of_scope(self, scope: int) -> pd.DataFrame:
        """Returns the features of one scope's creatives, columns as `creative_features`."""
        rows = np.flatnonzero(self.scope_of_creative == scope)
        columns = {
            "scope": self.shop.market.scopes[scope].name,
            "creative_id": self.creative_ids[rows],
            "feature_names": [list(self.features.names)] * len(rows),
            "feature_values": self.features.values[rows].tolist(),
        }
        return pd.DataFrame(columns)


def count_market(shop: Shop, policy: Policy, num_days: int, encoder: str = "default") -> MarketCounts:
    """Returns the sums of the shop's first days.

    Args:
        shop: what is shown to whom.
        policy: which picture is shown.
        num_days: days to add up.
        encoder: name of one of `ENCODERS`.
    """
    market = shop.market
    num_creatives = len(market.products) * market.num_creatives_per_product
    cells = cell_texts(market.population)
    sizes = (num_days, len(cells), NUM_FOLDS, num_creatives, len(market.examination))
    so_far = np.zeros((2, len(market.products), market.num_creatives_per_product))
    all_codes, seen = [], []
    for day_index in range(num_days):
        rates = rates_of_day(shop, day_index)
        serving = serve_day(policy, rates, len(market.examination), so_far[0], so_far[1])
        for numbers in _chunks(day_index * shop.impressions_per_day, shop.impressions_per_day):
            events = draw_impressions(shop, rates, serving, numbers)
            keys = (cell_of_users(market.population, events.user), fold_of_users(market, events.user))
            code = np.ravel_multi_index(
                (np.full(len(numbers), day_index), *keys, events.creative, events.position - 1), sizes
            )
            all_codes.append((*np.unique(code, return_counts=True), code[events.is_clicked]))
            scope = shop.scope_of_product[events.creative // market.num_creatives_per_product]
            seen.append(np.unique(events.user * len(market.scopes) + scope))
            for total, creatives in zip(so_far, (events.creative, events.creative[events.is_clicked]), strict=True):
                total += np.bincount(creatives, minlength=num_creatives).reshape(total.shape)
    user, scope = np.divmod(np.unique(np.concatenate(seen)), len(market.scopes))
    cell_users = np.zeros((len(market.scopes), len(cells)), np.int64)
    np.add.at(cell_users, (scope, cell_of_users(market.population, user)), 1)
    return MarketCounts(shop, num_days, cells, _summed(all_codes, sizes), cell_users, ENCODERS[encoder](market))


def _summed(all_codes: list[tuple[Index, Index, Index]], sizes: tuple[int, ...]) -> CountRows:
    """Adds up, over chunks, (codes, impressions of each, the codes of clicks)."""
    kept, place = np.unique(np.concatenate([codes for codes, _, _ in all_codes]), return_inverse=True)
    shown = np.bincount(place, np.concatenate([counts for _, counts, _ in all_codes])).astype(np.int64)
    clicked_codes = np.concatenate([clicked for _, _, clicked in all_codes])
    clicked = np.bincount(np.searchsorted(kept, clicked_codes), minlength=len(kept)).astype(np.int64)
    day, cell, fold, creative, position = np.unravel_index(kept, sizes)
    return CountRows(day, cell, fold, creative, position + 1, shown, clicked)


def creative_ids(market: Market) -> NDArray[np.object_]:
    """Returns the ids of a market's creatives, in the order of its products, (C,)."""
    found = [one.creative_id for product in market.products for one in creatives_of(market, product.product_id)]
    return np.array(found, dtype=object)


def product_ids(market: Market) -> NDArray[np.object_]:
    """Returns the id of each creative's product, (C,)."""
    products = np.array([product.product_id for product in market.products], dtype=object)
    return np.repeat(products, market.num_creatives_per_product)


def cell_texts(population: Population) -> tuple[str, ...]:
    """Returns the text of every cell that users can be in, by the number that `cell_of_users` gives, (N,)."""
    texts = [""]
    for attribute in population.attributes:
        values = [*attribute.values, UNKNOWN] if attribute.missing_share else list(attribute.values)
        texts = [f"{text}|{attribute.name}={value}" for text in texts for value in values]
    return tuple("|".join(sorted(text[1:].split("|"))) for text in texts)


def cell_of_users(population: Population, users: Index) -> Index:
    """Returns the number of each user's cell, (N,)."""
    values, is_missing = population.values(users), population.is_missing(users)
    cell = np.zeros(len(users), np.int64)
    for place, attribute in enumerate(population.attributes):
        size = len(attribute.values) + (attribute.missing_share > 0)
        cell = cell * size + np.where(is_missing[:, place], len(attribute.values), values[:, place])
    return cell


def fold_of_users(market: Market, users: Index) -> Index:
    """Returns the fold of each user, (N,)."""
    return Draws(market.seed).index("fold", users, NUM_FOLDS)


def _chunks(first: int, count: int) -> Iterator[Index]:
    for start in range(first, first + count, _CHUNK_ROWS):
        yield np.arange(start, min(start + _CHUNK_ROWS, first + count))
