from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from osmf_models.simulator.market import Market
from osmf_models.simulator.oracle import best_picture, best_single, oracle_ctr
from osmf_models.simulator.pictures import draw_pictures
from osmf_models.simulator.truth import (
    MeasuredPictures,
    click_rates,
    everyone,
    measure_pictures,
    mixed_click_rates,
    true_ctr,
)


def random_pictures(market: Market, product_id: str) -> MeasuredPictures:
    rng = np.random.default_rng(0)
    styles, seeds = rng.uniform(-1, 1, (200, 9)), rng.integers(0, 2**40, 200)
    return measure_pictures(market, product_id, draw_pictures(market, product_id, styles, seeds) / 255.0)


@pytest.mark.parametrize("name", ["market", "realistic"])
@pytest.mark.parametrize("product_id", ["shoe-001", "lamp-002", "mug-000"])
def test_no_drawn_picture_of_200_beats_the_oracle(request, name, product_id):
    one = request.getfixturevalue(name)
    scope, drawn = product_id[:-4], random_pictures(one, product_id)
    for segment in one.scope(scope).segments:
        rates = click_rates(one, scope, segment.name, product_id, drawn)
        assert oracle_ctr(one, scope, {segment.name: 1.0}, product_id) > rates.max(), segment.name
    weights = everyone(one, scope)
    assert best_single(one, product_id).ctr_rate > mixed_click_rates(one, scope, weights, product_id, drawn).max()


@pytest.mark.parametrize("segment", ["metropolitan_women", "other_women", "men"])
def test_the_rate_found_is_that_of_the_picture_found(realistic, segment):
    best = best_picture(realistic, "bag", {segment: 1.0}, "bag-001")
    assert best.image.dtype == np.uint8
    shown = true_ctr(realistic, "bag", segment, "bag-001", best.image[None] / 255.0)
    assert shown.tolist() == pytest.approx([best.ctr_rate])
    again = draw_pictures(realistic, "bag-001", best.style[None], np.array([best.scene_seed]))
    assert np.abs(again[0].astype(int) - best.image).max() <= 1


@pytest.mark.parametrize("scope", ["shoe", "watch", "chair", "bottle"])
def test_the_oracle_comes_close_to_the_peak_of_a_taste_and_never_above_it(realistic, scope):
    styles = np.random.default_rng(1).uniform(-1, 1, (200_000, 9))
    for segment in realistic.scope(scope).segments:
        product_id = f"{scope}-001"
        found = oracle_ctr(realistic, scope, {segment.name: 1.0}, product_id)
        inner = np.linalg.solve(bends(segment.taste), np.array(segment.taste.linear)[bent(segment.taste)])
        style = np.zeros(9)
        style[bent(segment.taste)] = inner
        peak = realistic.product(product_id).base_rate * np.exp(segment.taste.log_lift(style[None])[0])
        assert segment.taste.log_lift(styles).max() <= segment.taste.log_lift(style[None])[0]
        assert 0.9 * peak < found <= peak, segment.name


def bent(taste) -> np.ndarray:
    return np.flatnonzero(taste.curvature)


def bends(taste) -> np.ndarray:
    """Minus the second derivatives of a taste among the styles that it bends in."""
    matrix = np.diag(taste.curvature)
    for one, other, weight in taste.interactions:
        matrix[one, other] = matrix[other, one] = -weight
    return matrix[np.ix_(bent(taste), bent(taste))]


def test_only_the_proportions_of_a_mix_matter(realistic):
    one = best_picture(realistic, "bag", {"men": 0.3, "other_women": 0.1}, "bag-000")
    other = best_picture(realistic, "bag", {"men": 3.0, "other_women": 1.0}, "bag-000")
    np.testing.assert_array_equal(one.image, other.image)
    assert one.ctr_rate == pytest.approx(other.ctr_rate)


def test_a_mix_is_served_worse_than_each_segment_by_its_own_and_better_than_by_either_alone(realistic):
    weights = {"men": 0.5, "other_women": 0.5}
    mixed = best_picture(realistic, "bag", weights, "bag-000")
    own = [best_picture(realistic, "bag", {name: 1.0}, "bag-000") for name in weights]
    assert mixed.ctr_rate < np.mean([best.ctr_rate for best in own])
    for best in own:
        measured = measure_pictures(realistic, "bag-000", best.image[None] / 255.0)
        assert mixed_click_rates(realistic, "bag", weights, "bag-000", measured)[0] < mixed.ctr_rate


def test_a_segment_of_no_weight_does_not_count(realistic):
    alone = best_picture(realistic, "bag", {"men": 1.0}, "bag-000")
    with_nobody = best_picture(realistic, "bag", {"men": 1.0, "other_women": 0.0}, "bag-000")
    np.testing.assert_array_equal(alone.image, with_nobody.image)


@pytest.mark.parametrize("product_id", ["bottle-000", "mug-003"])
def test_where_users_agree_one_size_fits_all(realistic, product_id):
    single = best_single(realistic, product_id).ctr_rate
    assert single >= 0.98 * oracle_ctr(realistic, product_id[:-4], {"everyone": 1.0}, product_id)


def test_the_best_single_picture_is_the_best_for_everyone_by_number(realistic):
    single = best_single(realistic, "watch-002")
    assert single.ctr_rate == oracle_ctr(realistic, "watch", everyone(realistic, "watch"), "watch-002")


def test_the_search_is_the_same_each_time_and_for_any_products_beside(realistic):
    alone = replace(realistic, products=(realistic.product("shoe-002"),))
    one, other = (best_picture(market, "shoe", {"young": 1.0}, "shoe-002") for market in (realistic, alone))
    np.testing.assert_array_equal(one.image, other.image)
    assert one.ctr_rate == other.ctr_rate
