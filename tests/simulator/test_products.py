"""What every drawn product must fulfil for scenes to be seen, and measured, around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from osmf_models.simulator.products import CATEGORIES, PRICE_BANDS, VARIANTS, draw_cutout, make_product

BASE_RATE = 0.03


def products_of(scope: str, num_products: int = 24, seed: int = 7):
    return [make_product(scope, number, seed, BASE_RATE) for number in range(num_products)]


def moved(product, **changes):
    return replace(product, placement=replace(product.placement, **changes))


@pytest.mark.parametrize("image_px", [32, 64])
@pytest.mark.parametrize("scope", CATEGORIES)
def test_a_product_leaves_room_for_its_scene_and_stands_on_its_foot(scope, image_px):
    for product in products_of(scope):
        alpha = draw_cutout(product, image_px)[..., 3]
        rows, columns = np.flatnonzero(alpha.max(1) > 0.02), np.flatnonzero(alpha.max(0) > 0.02)
        lowest = np.flatnonzero(alpha.max(1) > 0.5)[-1] + 1
        assert 0.12 < alpha.mean() < 0.40, product
        assert max(alpha[: image_px // 2].mean(), alpha[image_px // 2 :].mean()) < 0.85, product
        assert 1 - (rows[-1] + 1) / image_px >= 0.07, product
        assert min(columns[0] / image_px, 1 - (columns[-1] + 1) / image_px) >= 0.07, product
        assert abs(lowest / image_px - product.placement.foot) < 0.03, product
        assert rows[0] > 0, product


@pytest.mark.parametrize("scope", CATEGORIES)
def test_edges_are_smooth_and_colours_not_at_their_ends(scope):
    for product in products_of(scope, 6):
        picture = draw_cutout(product, 64)
        alpha, solid = picture[..., 3], picture[picture[..., 3] > 0.999][:, :3]
        assert picture.min() >= 0.0
        assert picture.max() <= 1.0
        assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 20, product
        assert 0.02 < solid.min() < solid.max() < 0.98, product


@pytest.mark.parametrize("scope", CATEGORIES)
def test_placement_moves_and_scales_the_drawing(scope):
    product = moved(make_product(scope, 1, 3, BASE_RATE), scale=0.8, x=0.45, foot=0.82)
    across, down = np.meshgrid(*[(np.arange(64) + 0.5) / 64] * 2)

    def middle(alpha):
        return (alpha * across).sum() / alpha.sum(), (alpha * down).sum() / alpha.sum()

    here = draw_cutout(product, 64)[..., 3]
    right = draw_cutout(moved(product, x=0.55), 64)[..., 3]
    higher = draw_cutout(moved(product, foot=0.77), 64)[..., 3]
    larger = draw_cutout(moved(product, scale=1.0), 64)[..., 3]
    assert middle(right)[0] - middle(here)[0] == pytest.approx(0.1, abs=0.02)
    assert middle(here)[1] - middle(higher)[1] == pytest.approx(0.05, abs=0.01)
    assert larger.sum() / here.sum() == pytest.approx(1.0 / 0.8**2, rel=0.1)


def test_the_same_seed_draws_the_same_catalogue_of_different_pictures():
    pictures = set()
    for scope in CATEGORIES:
        for product in products_of(scope, 40):
            pictures.add(np.round(draw_cutout(product, 64) * 255).astype(np.uint8).tobytes())
        assert products_of(scope, 5) == products_of(scope, 5)
        assert all(one != other for one, other in zip(products_of(scope), products_of(scope, seed=8), strict=True))
    assert len(pictures) >= 300
    one = make_product("watch", 3, 1, BASE_RATE)
    np.testing.assert_array_equal(draw_cutout(one, 48), draw_cutout(one, 48))


@pytest.mark.parametrize("scope", CATEGORIES)
def test_price_bands_order_the_prices_and_each_occurs(scope):
    products = products_of(scope, 60)
    bands = [[p.price for p in products if p.price_band == band] for band in PRICE_BANDS]
    assert min(len(prices) for prices in bands) > 5
    assert 0 < max(bands[0]) < min(bands[1]) <= max(bands[1]) < min(bands[2])


@pytest.mark.parametrize("scope", CATEGORIES)
def test_a_product_is_described_as_it_looks(scope):
    products = products_of(scope, 60)
    assert {product.variant for product in products} == set(VARIANTS[scope])
    for number, product in enumerate(products):
        described = dict(product.attributes)
        assert product.product_id == f"{scope}-{number:03d}"
        assert product.title == f"{described['colour']} {described['material']} {described['style']}"
        assert described["style"] == product.variant


def test_base_rates_spread_around_the_median_within_their_range():
    logs = np.log([make_product("bag", number, 0, BASE_RATE).base_rate for number in range(400)])
    assert np.exp(np.median(logs)) == pytest.approx(BASE_RATE, rel=0.05)
    assert logs.std() == pytest.approx(0.2, abs=0.03)
    assert make_product("bag", 0, 0, 0.4).base_rate == 0.05
    assert make_product("bag", 0, 0, 0.001).base_rate == 0.01


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="'hat'"):
        make_product("hat", 0, 0, BASE_RATE)
    with pytest.raises(ValueError, match="hat-000"):
        draw_cutout(replace(make_product("bag", 0, 0, BASE_RATE), scope="hat", product_id="hat-000"), 32)
