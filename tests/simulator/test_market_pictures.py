from __future__ import annotations

import numpy as np
import pytest

from osmf_models.simulator.pictures import creative_pixels, cutout, cutout_pixels, draw_pictures
from osmf_models.simulator.truth import measure_pictures

STYLES = np.random.default_rng(1).uniform(-1, 1, (3, 9))


def test_the_product_stands_unchanged_in_each_of_its_creatives(market, realistic):
    for one in (market, realistic):
        for product in one.products[::3]:
            own = cutout_pixels(one, product.product_id)
            solid = own[..., 3] == 255
            pictures = creative_pixels(one, product.product_id)
            assert pictures.shape == (4, 32, 32, 3)
            assert solid.sum() > 50
            assert (pictures[:, solid] == own[solid][:, :3]).all(), product.product_id


def test_creatives_of_a_product_differ_outside_it_alone(realistic):
    pictures, own = creative_pixels(realistic, "lamp-001") / 255.0, cutout(realistic, "lamp-001")
    outside = own[..., 3] == 0
    for one in range(4):
        for other in range(one):
            assert np.abs(pictures[one] - pictures[other])[outside].mean() > 0.02


def test_nothing_hides_where_a_cutout_is_transparent(realistic):
    for product in realistic.products:
        pixels = cutout_pixels(realistic, product.product_id)
        assert pixels.shape == (32, 32, 4)
        assert (pixels[pixels[..., 3] == 0] == 0).all()


@pytest.mark.parametrize("scope", ["shoe", "bag", "watch", "phone", "lamp", "chair", "bottle", "mug"])
def test_the_creatives_of_every_scope_show_the_style_that_was_asked_for(realistic, scope):
    rng, product_id = np.random.default_rng(2), f"{scope}-000"
    styles = rng.uniform(-0.9, 0.9, (40, 9))
    images = draw_pictures(realistic, product_id, styles, rng.integers(0, 2**40, 40)) / 255.0
    measured = measure_pictures(realistic, product_id, images).styles
    assert np.abs(measured - styles).mean() < 0.2


def test_a_picture_is_fixed_by_style_and_seed_alone(realistic):
    seeds = np.arange(3)
    together = draw_pictures(realistic, "lamp-001", STYLES, seeds)
    assert together.dtype == np.uint8
    assert np.abs(together[2].astype(int) - draw_pictures(realistic, "lamp-001", STYLES[2:], seeds[2:])[0]).max() <= 1
    other_seed = draw_pictures(realistic, "lamp-001", STYLES[2:], seeds[:1])[0]
    assert np.abs(together[2].astype(int) - other_seed).mean() > 2


def test_the_same_creatives_are_drawn_again(realistic):
    np.testing.assert_array_equal(creative_pixels(realistic, "mug-001"), creative_pixels(realistic, "mug-001"))
