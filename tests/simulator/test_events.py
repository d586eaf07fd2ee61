from __future__ import annotations

from dataclasses import fields, replace
from datetime import date

import numpy as np
import pytest
from scipy.stats import chi2, chisquare

from osmf_models.simulator.events import (
    DAY_MICROS,
    Impressions,
    Shop,
    draw_impressions,
    open_shop,
    rates_of_day,
    segments_of_users,
)
from osmf_models.simulator.market import Market, segment_shares_of
from osmf_models.simulator.pictures import creative_pixels
from osmf_models.simulator.serving import Policy, Serving, serve_day
from osmf_models.simulator.truth import day_factor, true_ctr

START = date(2026, 2, 13)  # 43 days after the first: drift is near its furthest
PER_DAY = 100_000
LEVEL = 0.001


@pytest.fixture(scope="module")
def shop(realistic) -> Shop:
    return open_shop(realistic, 5, START, PER_DAY)


@pytest.fixture(scope="module")
def events(shop) -> Impressions:
    return day_of(shop, 1, uniform(shop.market))


def uniform(market: Market, position_bias: float = 0.0) -> Serving:
    num_products, num_creatives = len(market.products), market.num_creatives_per_product
    propensities = np.full((num_products, 1, num_creatives), 1 / num_creatives)
    return Serving(propensities, np.tile(np.arange(num_creatives) % 3 + 1, num_products), position_bias)


def day_of(shop: Shop, day_index: int, serving: Serving) -> Impressions:
    numbers = day_index * PER_DAY + np.arange(PER_DAY)
    return draw_impressions(shop, rates_of_day(shop, day_index), serving, numbers)


def test_a_part_of_a_day_is_drawn_as_in_the_whole_day(shop, events):
    numbers = PER_DAY + np.arange(70_000, 70_100)
    part = draw_impressions(shop, rates_of_day(shop, 1), uniform(shop.market), numbers)
    for field in fields(Impressions):
        np.testing.assert_array_equal(getattr(part, field.name), getattr(events, field.name)[70_000:70_100])


def test_another_seed_of_the_logs_shows_other_pictures_of_the_same_market(shop, events):
    other = day_of(replace(shop, seed=6), 1, uniform(shop.market))
    for name in ("user", "creative", "position", "micros", "is_clicked"):
        assert (getattr(other, name) != getattr(events, name)).any(), name


def test_nothing_is_drawn_of_no_impressions(shop):
    none = draw_impressions(shop, rates_of_day(shop, 0), uniform(shop.market), np.arange(0))
    assert all(len(getattr(none, field.name)) == 0 for field in fields(Impressions))


def test_creatives_are_shown_as_often_as_their_propensity_says(shop):
    propensities = np.tile([0.55, 0.3, 0.1, 0.05], (len(shop.market.products), 1))
    propensities[1] = [0.05, 0.05, 0.05, 0.85]
    shown = day_of(shop, 0, replace(uniform(shop.market), propensities=propensities[:, None]))
    np.testing.assert_array_equal(shown.propensity, propensities[shown.creative // 4, shown.creative % 4])
    counts = np.bincount(shown.creative, minlength=propensities.size).reshape(propensities.shape)
    expected = counts.sum(1, keepdims=True) * propensities
    assert chi2.sf(((counts - expected) ** 2 / expected).sum(), 3 * len(counts)) > LEVEL


def test_the_picture_shown_depends_on_nobody_and_no_position(shop, events):
    scope = shop.scope_of_product[events.creative // 4]
    for others in (events.segment, events.position - 1):
        table = np.zeros((len(shop.market.scopes), 5, 4))
        np.add.at(table, (scope, others, events.creative % 4), 1)
        expected = table.sum(2, keepdims=True) * table.sum(1, keepdims=True) / table.sum((1, 2), keepdims=True)
        rows = (table.sum(2) > 0).sum(1)
        statistic = ((table - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
        assert chi2.sf(statistic, 3 * (rows - 1).sum()) > LEVEL


def test_positions_are_uniform(events):
    counts = np.bincount(events.position, minlength=4)
    assert counts[0] == 0
    assert chisquare(counts[1:]).pvalue > LEVEL


def test_a_shop_that_knows_tastes_shows_each_user_what_its_segment_likes_and_logs_how_likely_that_was(shop):
    rates = rates_of_day(shop, 0)
    none_yet = np.zeros((len(shop.market.products), 4))
    serving = serve_day(Policy("taste", 0.4), rates, 3, none_yet, none_yet)
    shown = draw_impressions(shop, rates, serving, np.arange(PER_DAY))
    of_product = rates.reshape(len(none_yet), 4, -1)[shown.creative // 4, :, shown.segment]
    is_favourite = shown.creative % 4 == of_product.argmax(axis=1)
    np.testing.assert_allclose(shown.propensity, np.where(is_favourite, 0.7, 0.1))
    assert is_favourite.mean() == pytest.approx(0.7, abs=0.01)


def test_a_biased_shop_puts_creatives_where_they_belong_as_often_as_it_says(shop):
    serving = uniform(shop.market, position_bias=0.6)
    shown = day_of(shop, 0, serving)
    is_own = shown.position == serving.positions[shown.creative]
    assert is_own.mean() == pytest.approx(0.6 + 0.4 / 3, abs=0.01)
    others = np.bincount((shown.position - serving.positions[shown.creative])[~is_own] % 3, minlength=3)
    assert chisquare(others[1:]).pvalue > LEVEL


def test_products_are_shown_by_rank_in_their_scope(shop, events):
    rank_weights = np.array([1.0, 2**-0.4, 3**-0.4, 4**-0.4])
    expected = PER_DAY / 8 * np.tile(rank_weights / rank_weights.sum(), 8)
    assert chisquare(np.bincount(events.creative // 4, minlength=32), expected).pvalue > LEVEL


def test_without_an_exponent_all_products_are_as_popular(market):
    shop = open_shop(market, 5, START, PER_DAY)
    counts = np.bincount(day_of(shop, 0, uniform(market)).creative // 4, minlength=len(market.products))
    assert chisquare(counts).pvalue > LEVEL


def test_impressions_lie_on_their_day_and_are_most_at_noon(shop, events):
    midnight = (date(2026, 2, 14) - date(1970, 1, 1)).days * DAY_MICROS
    assert shop.midnight_micros(1) == midnight
    assert events.micros.min() >= midnight
    assert events.micros.max() < midnight + DAY_MICROS
    hours = np.bincount((events.micros - midnight) // (DAY_MICROS // 24), minlength=24)
    # The density is 1 / (1 + 0.6 cos): 1 / 0.4 at noon and 1 / 1.6 at midnight.
    assert hours[11:13].sum() / (hours[0] + hours[23]) == pytest.approx(4.0, rel=0.1)


def test_a_click_follows_its_impression_usually_within_minutes(events):
    delay_seconds = (events.clicked_micros - events.micros) / 1_000_000
    assert delay_seconds.min() >= 1
    assert np.median(delay_seconds) == pytest.approx(45 * np.log(2) + 1, rel=0.05)
    assert (delay_seconds > 1_800).mean() == pytest.approx(0.01 * 0.9, abs=0.002)
    assert delay_seconds.max() <= 5 * 3_600 + 1


def test_a_user_belongs_to_the_segment_that_its_values_say(shop, events):
    attributes = shop.market.population.attributes
    hard = [place for place, scope in enumerate(shop.market.scopes) if scope.softness == 0]
    rows = np.flatnonzero(np.isin(shop.scope_of_product[events.creative // 4], hard))[:200]
    assert len({int(segment) for segment in events.segment[rows]}) > 2
    for row in rows:
        values = shop.market.population.values(events.user[row : row + 1])[0]
        cell = "|".join(f"{one.name}={one.values[value]}" for one, value in zip(attributes, values, strict=True))
        scope = shop.market.scopes[shop.scope_of_product[events.creative[row] // 4]]
        segment = scope.segments[events.segment[row]].name
        assert segment_shares_of(shop.market, scope.name, cell) == {segment: pytest.approx(1.0)}


@pytest.mark.parametrize("name", ["market", "realistic"])
def test_the_click_rate_is_that_of_the_picture_for_this_user_at_this_position(request, name):
    one = request.getfixturevalue(name)
    shop = open_shop(one, 8, START, PER_DAY)
    for day_index in (0, 2):
        shown = draw_impressions(
            shop, rates_of_day(shop, day_index), uniform(one), day_index * PER_DAY + np.arange(0, PER_DAY, 4_000)
        )
        factors = one.population.click_factors(shown.user)
        for row, creative in enumerate(shown.creative):
            product = one.products[creative // 4]
            segment = one.scope(product.scope).segments[shown.segment[row]]
            picture = creative_pixels(one, product.product_id)[creative % 4][None] / 255.0
            rate = true_ctr(one, product.scope, segment.name, product.product_id, picture, day=shop.day(day_index))[0]
            looked_at = (1.0, 0.7, 0.5)[shown.position[row] - 1]
            assert shown.click_rate[row] == pytest.approx(rate * factors[row] * looked_at)


def test_days_differ_by_season_and_drift_alone(shop, market):
    one = shop.market
    scope = one.scope("bottle")  # its segment does not drift
    rows = np.flatnonzero(np.repeat(shop.scope_of_product == one.scopes.index(scope), 4))
    assert not any(scope.segments[0].taste.drift)
    ratio = rates_of_day(shop, 3)[rows, 0] / rates_of_day(shop, 0)[rows, 0]
    np.testing.assert_allclose(ratio, day_factor(one, shop.day(3)) / day_factor(one, shop.day(0)))
    assert ratio[0] != pytest.approx(1.0)
    steady = open_shop(market, 5, START, PER_DAY)
    np.testing.assert_array_equal(rates_of_day(steady, 0), rates_of_day(steady, 3))


def test_clicks_come_at_the_rate_of_each_impression(events):
    expected, clicks = events.click_rate.sum(), events.is_clicked.sum()
    assert abs(clicks - expected) < 4 * np.sqrt(expected)
    deciles = np.argsort(events.click_rate).reshape(10, -1)
    expected, clicks = events.click_rate[deciles].sum(1), events.is_clicked[deciles].sum(1)
    assert chi2.sf(((clicks - expected) ** 2 / expected).sum(), 10) > LEVEL


def test_softly_segmented_users_keep_their_segment_from_one_impression_to_the_next(shop, events):
    scopes = shop.scope_of_product[events.creative // 4]
    again = segments_of_users(shop.market, events.user, scopes)
    np.testing.assert_array_equal(again, events.segment)
