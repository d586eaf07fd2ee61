from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from osmf_models.image_features import FEATURE_NAMES
from osmf_models.simulator.pictures import creative_pixels, cutout, draw_pictures
from osmf_models.simulator.scenes import measure_styles, render_scenes


def test_each_measured_feature_follows_its_rendered_style(market):
    rng = np.random.default_rng(0)
    styles, measured = [], []
    for product in market.products[::3]:
        drawn = rng.uniform(-1, 1, (100, 5))
        images = draw_pictures(market, product.product_id, drawn, rng.integers(0, 2**40, 100)) / 255.0
        masks = np.broadcast_to(cutout(market, product.product_id)[..., 3], images.shape[:3])
        styles.append(drawn)
        measured.append(measure_styles(images, masks))
    styles, measured = np.concatenate(styles), np.concatenate(measured)
    for column, name in enumerate(FEATURE_NAMES):
        assert spearmanr(styles[:, column], measured[:, column]).statistic > 0.95, name
        others = np.corrcoef(styles.T, measured[:, column])[-1, :-1]
        assert np.abs(np.delete(others, column)).max() < 0.12, name


def test_a_scene_is_fixed_by_its_style_and_seed_alone():
    styles, seeds = np.random.default_rng(1).uniform(-1, 1, (5, 5)), np.arange(5)
    together = render_scenes(styles, 32, seeds)
    alone = render_scenes(styles[3:4], 32, seeds[3:4])
    np.testing.assert_allclose(together[3], alone[0], atol=1e-12)
    assert np.abs(render_scenes(styles[3:4], 32, seeds[:1]) - alone).mean() > 0.01


def test_scenes_stay_inside_the_gamut_at_the_corners_of_style():
    corners = np.stack(np.meshgrid(*([[-1.0, 1.0]] * 5)), axis=-1).reshape(-1, 5)
    scenes = render_scenes(corners, 32, np.arange(len(corners)))
    assert scenes.min() >= 0.0
    assert scenes.max() <= 1.0


def test_products_cover_about_a_quarter_of_the_picture_and_never_a_half(market):
    for product in market.products:
        alpha = cutout(market, product.product_id)[..., 3]
        assert 0.17 < alpha.mean() < 0.40, product
        assert alpha[:16].mean() < 0.9, product
        assert alpha[16:].mean() < 0.9, product


def test_the_product_stands_unchanged_in_each_of_its_creatives(market):
    own = cutout(market, "lamp-001")
    solid = own[..., 3] == 1.0
    pictures = creative_pixels(market, "lamp-001") / 255.0
    assert pictures.shape == (4, 32, 32, 3)
    assert np.abs(pictures[:, solid] - own[solid][:, :3]).max() <= 1.5 / 255


def test_a_style_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="outside"):
        render_scenes(np.full((1, 5), 1.2), 32, np.array([0]))
    with pytest.raises(ValueError, match="expected styles"):
        render_scenes(np.zeros((1, 4)), 32, np.array([0]))
