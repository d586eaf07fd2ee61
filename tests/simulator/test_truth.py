from __future__ import annotations

import numpy as np
import pytest

from osmf_models.simulator.oracle import best_picture, best_single, oracle_ctr
from osmf_models.simulator.picture_quality import picture_quality
from osmf_models.simulator.pictures import creative_pixels, cutout, draw_pictures
from osmf_models.simulator.truth import (
    click_rates,
    everyone,
    measure_pictures,
    mixed_click_rates,
    segment_weights,
    true_ctr,
)

PRODUCT = "bag-001"


@pytest.fixture(scope="module")
def clean(market) -> np.ndarray:
    rng = np.random.default_rng(0)
    return draw_pictures(market, PRODUCT, rng.uniform(-1, 1, (40, 5)), rng.integers(0, 2**40, 40)) / 255.0


def behind_product(market, scenes: np.ndarray) -> np.ndarray:
    own = cutout(market, PRODUCT)
    return np.clip(scenes, 0, 1) * (1 - own[..., 3:]) + own[..., :3] * own[..., 3:]


def test_clean_pictures_are_whole(market):
    rng = np.random.default_rng(3)
    for product in market.products[::2]:
        styles = np.concatenate([rng.uniform(-1, 1, (20, 5)), np.sign(rng.normal(size=(20, 5)))])
        images = draw_pictures(market, product.product_id, styles, rng.integers(0, 2**40, 40)) / 255.0
        assert picture_quality(images, cutout(market, product.product_id)).min() >= 0.98, product


def test_broken_pictures_are_worth_little(market, clean):
    rng, own = np.random.default_rng(1), cutout(market, PRODUCT)
    blocks = np.kron(rng.normal(0, 0.1, (len(clean), 8, 8)), np.ones((4, 4)))[..., None]
    broken = {
        "noise texture": clean + rng.normal(0, 0.1, clean.shape),
        "uniform noise": rng.uniform(0, 1, clean.shape),
        "patch seams": clean + blocks,
        "clipped": (clean - 0.5) * 4 + 0.5,
        "garish": np.broadcast_to([1.0, 0.1, 0.8], clean.shape),
    }
    for name, scenes in broken.items():
        assert picture_quality(behind_product(market, scenes), own).mean() <= 0.2, name


def test_quality_falls_smoothly_with_noise_and_with_damage_to_the_product(market, clean):
    own, noise = cutout(market, PRODUCT), np.random.default_rng(2).normal(size=clean.shape)
    noisy = [picture_quality(behind_product(market, clean + s * noise), own).mean() for s in np.linspace(0, 0.1, 21)]
    towards_grey = (0.5 - clean) * (own[..., 3:] > 0.9)
    grey = [picture_quality(clean + w * towards_grey, own).mean() for w in np.linspace(0, 1, 21)]
    for qualities in (noisy, grey):
        assert qualities[0] > 0.99
        assert qualities[-1] < 0.05
        assert (np.diff(qualities) <= 1e-6).all()
        assert np.abs(np.diff(qualities)).max() < 0.25


def test_the_rate_is_base_times_taste_times_quality(market, clean):
    measured = measure_pictures(market, PRODUCT, clean)
    taste = np.array(market.segment("bag", "men").taste)
    expected = market.product(PRODUCT).base_rate * np.exp((measured.styles * taste).sum(1)) * measured.quality
    np.testing.assert_allclose(true_ctr(market, "bag", "men", PRODUCT, clean), expected)


def test_harsher_than_any_scene_is_never_better(market):
    styles = np.array([[-0.9, 0.0, 0.0, 0.0, 0.0]])
    dark = draw_pictures(market, PRODUCT, styles, np.array([5])) / 255.0
    darker = behind_product(market, dark * 0.5)
    assert true_ctr(market, "bag", "men", PRODUCT, darker)[0] <= oracle_ctr(market, "bag", {"men": 1.0}, PRODUCT)


def test_a_mix_is_the_weighted_mean_of_its_segments(market, clean):
    measured = measure_pictures(market, PRODUCT, clean)
    parts = [click_rates(market, "bag", name, PRODUCT, measured) for name in ("men", "other_women")]
    mixed = mixed_click_rates(market, "bag", {"men": 3.0, "other_women": 1.0}, PRODUCT, measured)
    np.testing.assert_allclose(mixed, 0.75 * parts[0] + 0.25 * parts[1])
    with pytest.raises(ValueError, match="weights"):
        mixed_click_rates(market, "bag", {"men": 0.0}, PRODUCT, measured)


def test_cells_add_up_to_segments(market):
    cell = "age_band=18-24|city_tier=tier1|device=ios|gender={}|membership=none|price_sensitivity=high"
    cells = {cell.format("female"): 3.0, cell.format("male"): 5.0}
    assert segment_weights(market, "bag", cells) == {"metropolitan_women": 3.0, "men": 5.0}
    assert segment_weights(market, "shoe", cells) == {"bargain_youth": 8.0}


def test_segments_contradict_each_other_on_the_same_two_creatives(market):
    contradictions = 0
    for product in [one for one in market.products if one.scope == "shoe"]:
        measured = measure_pictures(market, product.product_id, creative_pixels(market, product.product_id) / 255.0)
        rates = [click_rates(market, "shoe", s.name, product.product_id, measured) for s in market.scopes[0].segments]
        orders = [np.sign(np.log(rate[:, None] / rate[None, :]).round(1)) for rate in rates]
        contradictions += sum(int((one * other < 0).any()) for one in orders for other in orders)
    assert contradictions >= 24


def test_an_oracle_per_segment_beats_one_picture_for_all_except_where_one_size_fits(market):
    for scope in ("shoe", "bag", "lamp", "mug"):
        product_id = f"{scope}-002"
        weights = everyone(market, scope)
        measured = measure_pictures(market, product_id, creative_pixels(market, product_id) / 255.0)
        average = mixed_click_rates(market, scope, weights, product_id, measured).mean()
        single = best_single(market, product_id).ctr_rate
        oracle = sum(share * oracle_ctr(market, scope, {name: 1.0}, product_id) for name, share in weights.items())
        assert 2.2 < oracle / average < 4.5
        assert (single > 0.98 * oracle) if scope == "mug" else (single < 0.7 * oracle)


def test_no_drawn_picture_beats_the_oracle(market, clean):
    best = best_picture(market, "bag", {"men": 1.0}, PRODUCT)
    assert best.ctr_rate >= true_ctr(market, "bag", "men", PRODUCT, clean).max()
    assert true_ctr(market, "bag", "men", PRODUCT, best.image[None] / 255.0)[0] == pytest.approx(best.ctr_rate)
