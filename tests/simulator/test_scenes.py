from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from osmf_models.image_features import FEATURE_NAMES, measure_images
from osmf_models.simulator.scene_features import (
    STYLE_CENTRE,
    STYLE_NAMES,
    STYLE_SCALE,
    measure_scenes,
    measure_styles,
)
from osmf_models.simulator.scenes import NUM_STYLES, place_product, render_scenes


def cutouts(image_px: int) -> dict[str, np.ndarray]:
    """Products of a plain colour: a small ball, a wide box, a tall box, a large disc and one that fills its room."""
    side = (np.arange(4 * image_px) + 0.5) / (4 * image_px)
    x, y = np.meshgrid(side, side)
    covers = {
        "ball": np.hypot(x - 0.5, y - 0.62) < 0.25,
        "wide box": (np.abs(x - 0.5) < 0.43) & (np.abs(y - 0.65) < 0.19),
        "tall box": (np.abs(x - 0.36) < 0.2) & (np.abs(y - 0.5) < 0.37),
        "large disc": np.hypot((x - 0.5) / 0.43, (y - 0.48) / 0.38) < 1,
        "full box": (np.abs(x - 0.5) < 0.42) & (np.abs(y - 0.49) < 0.33),
    }
    drawn = {}
    for number, (name, is_covered) in enumerate(covers.items()):
        cover = is_covered.reshape(image_px, 4, image_px, 4).mean((1, 3))
        colour = np.random.default_rng(number).uniform(0.15, 0.85, 3) * (cover[..., None] > 0)
        drawn[name] = np.round(np.concatenate([colour, cover[..., None]], -1) * 255) / 255
    return drawn


def draw(cutout: np.ndarray, styles: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Pictures rounded to 8 bits, as they are on disk."""
    scenes = render_scenes(styles, len(cutout), seeds, cutout[..., 3])
    return np.round(place_product(scenes, cutout) * 255) / 255


def masks_of(cutout: np.ndarray, images: np.ndarray) -> np.ndarray:
    return np.broadcast_to(cutout[..., 3], images.shape[:3])


@pytest.mark.parametrize(("image_px", "num_per_product"), [(32, 60), (48, 40), (64, 40), (128, 12)])
def test_each_measured_style_follows_its_rendered_style_and_no_other(image_px, num_per_product):
    rng, rendered, measured = np.random.default_rng(image_px), [], []
    for cutout in cutouts(image_px).values():
        styles = rng.uniform(-1, 1, (num_per_product, NUM_STYLES))
        images = draw(cutout, styles, rng.integers(0, 2**40, num_per_product))
        rendered.append(styles)
        measured.append(measure_styles(images, masks_of(cutout, images)))
    styles, measured = np.concatenate(rendered), np.concatenate(measured)
    independent = measured - styles
    for column, name in enumerate(STYLE_NAMES):
        assert spearmanr(styles[:, column], measured[:, column]).statistic > 0.98, name
        assert np.polyfit(styles[:, column], measured[:, column], 1)[0] == pytest.approx(1.0, abs=0.1), name
        # What is measured beyond the style itself does not follow the other styles.
        others = np.delete(styles, column, axis=1)
        for other in others.T:
            assert abs(np.cov(other, independent[:, column])[0, 1]) / np.var(other) < 0.10, name


@pytest.mark.parametrize("image_px", [32, 64])
def test_a_measured_style_is_uncorrelated_with_the_other_rendered_styles(image_px):
    cutout, rng = cutouts(image_px)["ball"], np.random.default_rng(0)
    styles = rng.uniform(-1, 1, (800, NUM_STYLES))
    images = draw(cutout, styles, rng.integers(0, 2**40, 800))
    measured = measure_styles(images, masks_of(cutout, images))
    between = np.corrcoef(styles.T, measured.T)[:NUM_STYLES, NUM_STYLES:]
    assert np.abs(between[~np.eye(NUM_STYLES, dtype=bool)]).max() < 0.15


def test_the_first_styles_are_the_default_creative_features():
    cutout = cutouts(32)["ball"]
    images = draw(cutout, np.random.default_rng(1).uniform(-1, 1, (5, NUM_STYLES)), np.arange(5))
    masks = masks_of(cutout, images)
    assert STYLE_NAMES[: len(FEATURE_NAMES)] == FEATURE_NAMES
    np.testing.assert_allclose(measure_scenes(images, masks)[:, : len(FEATURE_NAMES)], measure_images(images, masks))


def test_a_scene_is_fixed_by_its_style_seed_and_product_alone():
    alpha = cutouts(32)["ball"][..., 3]
    styles, seeds = np.random.default_rng(1).uniform(-1, 1, (5, NUM_STYLES)), np.arange(5)
    together = render_scenes(styles, 32, seeds, alpha)
    alone = render_scenes(styles[3:4], 32, seeds[3:4], alpha)
    np.testing.assert_allclose(together[3], alone[0], atol=1e-12)
    assert np.abs(render_scenes(styles[3:4], 32, seeds[:1], alpha) - alone).mean() > 0.01


@pytest.mark.parametrize("name", [None, "ball", "full box"])
def test_scenes_stay_inside_the_gamut_at_the_corners_of_style(name):
    corners = np.stack(np.meshgrid(*([[-1.0, 1.0]] * NUM_STYLES)), axis=-1).reshape(-1, NUM_STYLES)
    alpha = None if name is None else cutouts(32)[name][..., 3]
    scenes = render_scenes(corners, 32, np.arange(len(corners)), alpha)
    assert scenes.min() >= 0.0
    assert scenes.max() <= 1.0


def test_red_minus_blue_is_constant_along_each_row_of_a_scene():
    styles = np.sign(np.random.default_rng(2).normal(size=(200, NUM_STYLES)))
    scenes = render_scenes(styles, 48, np.arange(200), cutouts(48)["wide box"][..., 3])
    assert np.ptp(scenes[..., 0] - scenes[..., 2], axis=2).max() < 1e-9


def test_the_horizon_is_where_red_minus_blue_steps():
    images = np.full((2, 32, 32, 3), 0.5)
    images[0, 20:, :, 0] = 0.6
    images[1, 12:, :, 2] = 0.6
    masks = masks_of(cutouts(32)["ball"], images)
    np.testing.assert_allclose(measure_scenes(images, masks)[:, 5], [20 / 32, 12 / 32], atol=1e-3)


@pytest.mark.parametrize("wavelength_px", [5.0, 7.0, 10.0])
def test_the_grain_is_the_wavelength_of_a_wave_along_x(wavelength_px):
    wave = 0.5 + 0.1 * np.cos(2 * np.pi / wavelength_px * np.arange(48)) * np.ones((48, 1))
    images = np.repeat(wave[None, ..., None], 3, axis=-1)
    measured = measure_scenes(images, masks_of(cutouts(48)["tall box"], images))
    np.testing.assert_allclose(np.exp(measured[:, 6]), wavelength_px, rtol=1e-3)


def test_props_are_what_departs_from_its_row_in_green():
    images = np.full((1, 32, 32, 3), 0.5)
    images[0, :16, :16, 1] = 0.7  # half of each of these rows: 0.1 from the row's mean everywhere
    assert measure_scenes(images, np.zeros((1, 32, 32)))[0, 7] == pytest.approx(0.05)


def test_the_shadow_is_what_is_darker_at_the_foot_than_beside_it():
    cutout = cutouts(64)["tall box"]
    images = np.full((2, 64, 64, 3), 0.5)
    images[1, 56:, 11:36] = 0.3  # under the foot, which is 0.4 of the side wide
    shadows = measure_scenes(images, masks_of(cutout, images))[:, 8]
    assert shadows[0] == pytest.approx(0.0, abs=1e-9)
    assert 0.12 < shadows[1] <= 0.2


def test_any_picture_has_finite_styles_within_their_range():
    rng, cutout = np.random.default_rng(3), cutouts(32)["full box"]
    masks = np.stack([cutout[..., 3], np.zeros((32, 32)), rng.uniform(0, 0.9, (32, 32)), np.eye(32)])
    for images in (np.zeros((4, 32, 32, 3)), np.ones((4, 32, 32, 3)), rng.uniform(0, 1, (4, 32, 32, 3))):
        styles = measure_styles(images, masks)
        assert np.isfinite(styles).all()
        assert np.abs(styles).max() <= 1.0


def test_harsher_than_any_scene_is_no_more_than_the_end_of_the_range():
    cutout = cutouts(32)["ball"]
    images = np.full((1, 32, 32, 3), 0.99)
    raw = measure_scenes(images, masks_of(cutout, images))
    assert raw[0, 0] > STYLE_CENTRE[0] + 2 * STYLE_SCALE[0]
    assert measure_styles(images, masks_of(cutout, images))[0, 0] == 1.0


def test_a_product_at_the_very_bottom_has_a_scene_without_a_shadow():
    alpha = np.zeros((32, 32))
    alpha[20:, 4:28] = 1.0
    styles = np.random.default_rng(4).uniform(-1, 1, (6, NUM_STYLES))
    measured = measure_styles(render_scenes(styles, 32, np.arange(6), alpha), np.broadcast_to(alpha, (6, 32, 32)))
    brightness_and_gradient = [0, 4]
    np.testing.assert_allclose(measured[:, brightness_and_gradient], styles[:, brightness_and_gradient], atol=0.1)


@pytest.mark.parametrize(
    ("styles", "seeds", "alpha", "message"),
    [
        (np.full((1, 9), 1.2), np.array([0]), None, "outside"),
        (np.full((1, 9), np.nan), np.array([0]), None, "outside"),
        (np.zeros((1, 5)), np.array([0]), None, "expected styles"),
        (np.zeros((2, 9)), np.array([0]), None, "expected styles"),
        (np.zeros((1, 9)), np.array([0]), np.zeros((16, 16)), "expected a product_alpha"),
    ],
)
def test_impossible_scenes_are_refused(styles, seeds, alpha, message):
    with pytest.raises(ValueError, match=message):
        render_scenes(styles, 32, seeds, alpha)


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="expected images"):
        measure_scenes(np.zeros((1, 32, 32, 3)), np.zeros((1, 16, 16)))
