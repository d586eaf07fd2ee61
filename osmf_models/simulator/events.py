"""Who is shown what, and clicks: the right events of a simulated day, drawn in numpy for any range of their numbers.

Every draw is keyed by the impression's number, so that any part of any day can be drawn alone. What a real log gets
wrong belongs in `mess.py`, files in `osmf_pipelines.spark.simulate_logs`.

Shapes: `N` impressions, `P` products, `K` creatives of each, `C` = P · K creatives, `S` most segments of a scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.draws import Draws, Index
from osmf_models.simulator.market import Market
from osmf_models.simulator.pictures import creative_pixels
from osmf_models.simulator.segments import segment_of_combination
from osmf_models.simulator.serving import Serving
from osmf_models.simulator.shapes import Array
from osmf_models.simulator.truth import MAX_CLICK_RATE, MeasuredPictures, click_rates, measure_pictures

MICROS = 1_000_000
DAY_MICROS = 86_400 * MICROS
_MEAN_DELAY_SECONDS = 45.0  # of an exponential, whose largest double is below half an hour
_SLOW_SHARE, _SLOW_HOURS = 0.01, 5.0  # of the clicks: uniform over the hours after the impression


@dataclass(frozen=True)
class Shop:
    """What every day's events are drawn from.

    Attributes:
        market: what is sold, to whom, and who likes what.
        seed: of the logs.
        start_date: first day (UTC).
        impressions_per_day: right impressions a day; number n is shown on day n // impressions_per_day.
        measured: the logged creatives of each product, in the order of the market's products.
        scope_of_product: place of each product's scope, (P,).
        popularity: cumulative share of impressions by product, (P,).
    """

    market: Market
    seed: int
    start_date: date
    impressions_per_day: int
    measured: tuple[MeasuredPictures, ...]
    scope_of_product: NDArray[np.int64]
    popularity: Array

    def day(self, day_index: int) -> date:
        """Returns a day's date."""
        return self.start_date + timedelta(days=day_index)

    def midnight_micros(self, day_index: int) -> int:
        """Returns when a day begins, microseconds since 1970 (UTC)."""
        return (self.day(day_index) - date(1970, 1, 1)).days * DAY_MICROS


@dataclass(frozen=True)
class Visits:
    """Who comes, before anything is shown; every field (N,).

    Attributes:
        number: of the impression that will be.
        user: index of the user.
        product: place of the product that a picture is needed of.
        segment: place of the user's segment in the product's scope.
    """

    number: Index
    user: Index
    product: Index
    segment: Index


@dataclass(frozen=True)
class Impressions:
    """Right impressions, and what becomes of each; every field (N,).

    Attributes:
        number: of the impression.
        user: index of the user.
        creative: place of the creative, product · K + its number.
        position: from 1.
        propensity: probability of this creative for this product and user.
        micros: when it was shown, microseconds since 1970.
        segment: place of the user's segment in the scope.
        click_rate: true probability of a click, of this very user at this position.
        is_clicked: whether there is one.
        clicked_micros: when, if so.
    """

    number: Index
    user: Index
    creative: Index
    position: Index
    propensity: Array
    micros: Index
    segment: Index
    click_rate: Array
    is_clicked: NDArray[np.bool_]
    clicked_micros: Index


def open_shop(market: Market, seed: int, start_date: date, impressions_per_day: int) -> Shop:
    """Returns the shop; measures every logged creative, from the files' pixels."""
    names = [scope.name for scope in market.scopes]
    scopes = np.array([names.index(product.scope) for product in market.products])
    ranks = np.array([int((scopes[:place] == scope).sum()) + 1 for place, scope in enumerate(scopes)])
    weights = ranks**-market.popularity_exponent
    weights = weights / np.bincount(scopes, weights)[scopes]
    measured = tuple(
        measure_pictures(market, one.product_id, creative_pixels(market, one.product_id) / 255.0)
        for one in market.products
    )
    return Shop(market, seed, start_date, impressions_per_day, measured, scopes, np.cumsum(weights / weights.sum()))


def rates_of_day(shop: Shop, day_index: int) -> Array:
    """Returns the true click rate at position 1 of each creative in each segment of its scope, (C, S), else 0."""
    market = shop.market
    widest = max(len(scope.segments) for scope in market.scopes)
    rates = np.zeros((len(market.products), market.num_creatives_per_product, widest))
    for place, (product, measured) in enumerate(zip(market.products, shop.measured, strict=True)):
        for number, segment in enumerate(market.scope(product.scope).segments):
            found = click_rates(market, product.scope, segment.name, product.product_id, measured, shop.day(day_index))
            rates[place, :, number] = found
    return rates.reshape(-1, widest)


def draw_visits(shop: Shop, numbers: Index) -> Visits:
    """Returns who sees the impressions with these numbers, (N,), and of which product."""
    draws = Draws(shop.seed)
    user = shop.market.population.active_users(draws, numbers)
    product = draws.choice("product", numbers, shop.popularity)
    return Visits(numbers, user, product, segments_of_users(shop.market, user, shop.scope_of_product[product]))


def draw_impressions(shop: Shop, rates: Array, serving: Serving, numbers: Index) -> Impressions:
    """Returns the impressions with these numbers, all of one day.

    Args:
        shop: what they are drawn from.
        rates: of that day, from `rates_of_day`.
        serving: of that day.
        numbers: of the impressions, (N,).
    """
    draws, visits = Draws(shop.seed), draw_visits(shop, numbers)
    creative, propensity = _choose_creatives(draws, numbers, visits.product, visits.segment, serving.propensities)
    is_biased = draws.some("position bias", numbers, serving.position_bias)
    return draw_clicks(shop, rates, visits, creative, propensity, np.where(is_biased, serving.positions[creative], 0))


def draw_clicks(
    shop: Shop, rates: Array, visits: Visits, creative: Index, propensity: Array, position: Index
) -> Impressions:
    """Returns what becomes of visits that are shown these creatives, all of one day.

    Args:
        shop: what they are drawn from.
        rates: true click rate at position 1 of each creative in each segment of its scope, (C, S).
        visits: N of them.
        creative: row of `rates`, (N,).
        propensity: of that creative, (N,).
        position: where it stands, from 1; 0 for anywhere, (N,).
    """
    market, draws = shop.market, Draws(shop.seed)
    numbers, user, segment = visits.number, visits.user, visits.segment
    anywhere = draws.index("position", numbers, len(market.examination)) + 1
    position = np.where(position > 0, position, anywhere)
    day_index = int(numbers[0]) // shop.impressions_per_day if len(numbers) else 0
    micros = shop.midnight_micros(day_index) + _second_of_day(draws.uniform("time", numbers)) * MICROS
    factor = market.population.click_factors(user)
    rate = np.minimum(rates[creative, segment] * factor, MAX_CLICK_RATE)
    rate = rate * np.asarray(market.examination)[position - 1]
    clicked_micros = micros + _click_delay_seconds(draws, numbers) * MICROS
    is_clicked = draws.uniform("click", numbers) < rate
    return Impressions(numbers, user, creative, position, propensity, micros, segment, rate, is_clicked, clicked_micros)


def segments_of_users(market: Market, users: Index, scopes: Index) -> Index:
    """Returns the place of each user's segment in the scope beside it, (N,)."""
    attributes, draws = market.population.attributes, Draws(market.seed)
    combination = market.population.combination(users)
    by_rule = np.stack([segment_of_combination(scope, attributes) for scope in market.scopes])
    segments = by_rule[scopes, combination]
    softness = np.array([scope.softness for scope in market.scopes])
    if softness.max() > 0:
        sizes = np.array([len(scope.segments) for scope in market.scopes])
        key = users * len(market.scopes) + scopes
        is_other = draws.uniform("softness", key) < softness[scopes]
        segments = np.where(is_other, draws.index("other segment", key, sizes[scopes]), segments)
    return segments


def _choose_creatives(
    draws: Draws, numbers: Index, product: Index, segment: Index, propensities: Array
) -> tuple[Index, Array]:
    num_products, num_segments, num_creatives = propensities.shape
    row = product * num_segments + (segment if num_segments > 1 else 0)
    table = propensities.reshape(num_products * num_segments, num_creatives)
    draw, bounds = draws.uniform("creative", numbers), np.cumsum(table, axis=1)
    own = np.zeros(len(numbers), np.int64)
    for column in bounds.T[:-1]:
        own += draw >= column[row]
    return product * num_creatives + own, table[row, own]


def _second_of_day(draw: Array) -> Index:
    """Fewest impressions around midnight, most around noon."""
    share = draw + 0.6 / (2 * np.pi) * np.sin(2 * np.pi * draw)
    return np.floor(share * 86_399).astype(np.int64)


def _click_delay_seconds(draws: Draws, numbers: Index) -> Index:
    delay = draws.uniform("delay", numbers)
    usual = 1 - _MEAN_DELAY_SECONDS * np.log1p(-delay)
    is_slow = draws.some("slow", numbers, _SLOW_SHARE)
    return np.floor(np.where(is_slow, delay * _SLOW_HOURS * 3600, usual)).astype(np.int64) + is_slow
