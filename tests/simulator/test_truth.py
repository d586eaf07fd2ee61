from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from osmf_models.simulator.market import Season
from osmf_models.simulator.oracle import best_picture
from osmf_models.simulator.picture_quality import picture_quality
from osmf_models.simulator.pictures import creative_pixels, cutout, draw_pictures
from osmf_models.simulator.scenes import place_product
from osmf_models.simulator.truth import (
    MAX_CLICK_RATE,
    MeasuredPictures,
    click_rates,
    day_factor,
    everyone,
    measure_pictures,
    mixed_click_rates,
    segment_weights,
    true_ctr,
)

PRODUCT = "bag-001"
DAY = date(2026, 2, 15)  # 45 days after the first: drift swings furthest
ALL_MIDDLE = MeasuredPictures(np.zeros((1, 9)), np.ones(1))


@pytest.fixture(scope="module")
def clean(realistic) -> np.ndarray:
    rng = np.random.default_rng(0)
    return draw_pictures(realistic, PRODUCT, rng.uniform(-1, 1, (20, 9)), rng.integers(0, 2**40, 20)) / 255.0


def test_the_rate_is_base_times_taste_times_day_times_quality(realistic, clean):
    scope = realistic.scope("bag")
    assert any(any(segment.taste.drift) for segment in scope.segments)
    noisy = np.clip(clean[:5] + np.random.default_rng(4).normal(0, 0.05, clean[:5].shape), 0, 1)
    images, own = np.concatenate([clean, noisy]), cutout(realistic, PRODUCT)
    measured, quality = measure_pictures(realistic, PRODUCT, images), picture_quality(images, own)
    base = realistic.product(PRODUCT).base_rate
    assert quality[-5:].max() < 0.9
    for segment in scope.segments:
        taste = segment.taste
        for picture, rate in enumerate(true_ctr(realistic, "bag", segment.name, PRODUCT, images, day=DAY)):
            style = measured.styles[picture]
            lift = taste.offset
            for s, slope, bend, drift in zip(style, taste.linear, taste.curvature, taste.drift, strict=True):
                lift += (slope + drift) * s - bend * s**2 / 2
            lift += sum(weight * style[one] * style[other] for one, other, weight in taste.interactions)
            assert rate == pytest.approx(base * np.exp(lift) * day_factor(realistic, DAY) * quality[picture])


def test_without_a_day_there_is_neither_season_nor_drift(realistic):
    taste = realistic.segment("shoe", "bargain_youth").taste
    base = realistic.product("shoe-000").base_rate
    rate = click_rates(realistic, "shoe", "bargain_youth", "shoe-000", ALL_MIDDLE)
    assert rate == pytest.approx(base * np.exp(taste.offset))


def test_days_differ_by_weekday_and_by_a_spread_of_their_own(realistic):
    days = [date(2026, 1, 5) + timedelta(days) for days in range(7 * 400)]
    logs = np.log([day_factor(realistic, day) for day in days]).reshape(400, 7)
    np.testing.assert_allclose(logs.mean(0), realistic.season.weekdays, atol=4 * 0.03 / np.sqrt(400))
    assert (logs - logs.mean(0)).std() == pytest.approx(0.03, rel=0.05)
    assert day_factor(replace(realistic, season=Season()), days[0]) == 1.0
    assert day_factor(realistic, days[0]) != day_factor(replace(realistic, seed=12), days[0])


def test_a_rate_is_never_above_its_bound(market):
    sure = replace(market, products=(replace(market.product(PRODUCT), base_rate=0.9),))
    liked = MeasuredPictures(np.array([[-1.0, -1.0, 1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0]]), np.ones(1))
    assert click_rates(sure, "bag", "men", PRODUCT, liked).tolist() == [MAX_CLICK_RATE]


def test_styles_are_clipped_to_what_scenes_span(realistic):
    rng = np.random.default_rng(1)
    harsh = rng.choice([0.0, 1.0], (10, 32, 32, 3))
    styles = measure_pictures(realistic, PRODUCT, harsh).styles
    assert np.abs(styles).max() == 1.0


@pytest.mark.parametrize("segment", ["metropolitan_women", "other_women", "men"])
def test_harsher_than_any_scene_is_never_better(market, segment):
    best = best_picture(market, "bag", {segment: 1.0}, PRODUCT)
    own, scene = cutout(market, PRODUCT), best.image / 255.0
    grey = scene.mean(-1, keepdims=True)
    harsher = {
        "darker": scene * 0.5,
        "brighter": 1 - (1 - scene) * 0.5,
        "more contrast": (scene - 0.5) * 2 + 0.5,
        "more colour": grey + (scene - grey) * 2,
        "warmer": scene + np.array([0.3, 0.0, -0.3]),
        "colder": scene - np.array([0.3, 0.0, -0.3]),
    }
    for name, changed in harsher.items():
        picture = place_product(np.clip(changed, 0, 1)[None], own)
        assert true_ctr(market, "bag", segment, PRODUCT, picture)[0] <= best.ctr_rate, name


def test_pictures_that_no_market_draws_are_worth_next_to_nothing(realistic):
    rng, shape = np.random.default_rng(2), (32, 32, 3)
    blurred = np.kron(rng.uniform(0, 1, (4, 4, 3)), np.ones((8, 8, 1)))
    strange = np.stack([np.zeros(shape), np.ones(shape), np.full(shape, 0.5), rng.uniform(0, 1, shape), blurred])
    for segment in realistic.scope("bag").segments:
        rates = true_ctr(realistic, "bag", segment.name, PRODUCT, strange, day=DAY)
        assert np.isfinite(rates).all()
        assert (rates >= 0).all()
        assert rates.max() < 0.02 * realistic.product(PRODUCT).base_rate


def test_a_product_in_front_of_anything_has_a_finite_rate(realistic):
    own, rng = cutout(realistic, PRODUCT), np.random.default_rng(3)
    scenes = np.stack([np.zeros((32, 32, 3)), np.ones((32, 32, 3)), rng.uniform(0, 1, (32, 32, 3))])
    rates = true_ctr(realistic, "bag", "men", PRODUCT, place_product(scenes, own))
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()
    assert rates.max() < realistic.product(PRODUCT).base_rate


def test_another_mask_is_another_scene(realistic, clean):
    masks = np.zeros(clean.shape[:3])
    with_mask = measure_pictures(realistic, PRODUCT, clean, masks).styles
    assert np.abs(with_mask - measure_pictures(realistic, PRODUCT, clean).styles).max() > 0.1


def test_a_mix_is_the_weighted_mean_of_its_segments(realistic, clean):
    measured = measure_pictures(realistic, PRODUCT, clean)
    men, women = (click_rates(realistic, "bag", name, PRODUCT, measured, DAY) for name in ("men", "other_women"))
    mixed = mixed_click_rates(realistic, "bag", {"men": 3.0, "other_women": 1.0}, PRODUCT, measured, DAY)
    np.testing.assert_allclose(mixed, 0.75 * men + 0.25 * women)


@pytest.mark.parametrize("weights", [{"men": 0.0}, {"men": 2.0, "other_women": -1.0}])
def test_a_mix_of_nobody_is_refused(realistic, weights):
    with pytest.raises(ValueError, match="segment weights must be positive"):
        mixed_click_rates(realistic, "bag", weights, PRODUCT, ALL_MIDDLE)


def test_cells_add_up_to_segments(market):
    cell = "age_band=18-24|city_tier=tier1|device=ios|gender={}|membership=none|price_sensitivity=high"
    cells = {cell.format("female"): 3.0, cell.format("male"): 5.0}
    assert segment_weights(market, "bag", cells) == pytest.approx({"metropolitan_women": 3.0, "men": 5.0})
    assert segment_weights(market, "shoe", cells) == pytest.approx({"bargain_youth": 8.0})


def test_a_cell_of_unknowns_is_everyone(realistic):
    cell = "|".join(f"{attribute.name}=unknown" for attribute in realistic.population.attributes)
    for scope in realistic.scopes:
        assert segment_weights(realistic, scope.name, {cell: 1.0}) == pytest.approx(everyone(realistic, scope.name))


def test_segments_contradict_each_other_on_the_same_two_creatives(market, realistic):
    for one in (market, realistic):
        contradictions, segments = 0, one.scope("shoe").segments
        products = one.products_of("shoe")[:4]
        for product in products:
            measured = measure_pictures(one, product.product_id, creative_pixels(one, product.product_id) / 255.0)
            rates = [click_rates(one, "shoe", segment.name, product.product_id, measured) for segment in segments]
            orders = [np.sign(np.log(rate[:, None] / rate[None, :]).round(1)) for rate in rates]
            contradictions += sum(int((some * other < 0).any()) for some in orders for other in orders) // 2
        assert contradictions >= 4 * len(products), one.name
