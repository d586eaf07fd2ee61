from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter

from osmf_models.simulator.picture_quality import measure_defects, picture_quality
from osmf_models.simulator.scenes import NUM_STYLES, place_product, render_scenes
from tests.simulator.test_scenes import cutouts, draw

NUM = 24


@pytest.fixture(scope="module")
def own() -> np.ndarray:
    """A wide, reddish box with a dark band, 64 pixels."""
    cutout = cutouts(64)["wide box"]
    cutout[..., :3] = np.array([0.75, 0.35, 0.25]) * (cutout[..., 3:] > 0)
    cutout[38:44, :, :3] *= 0.4
    return np.round(cutout * 255) / 255


def random_scenes(cutout: np.ndarray, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Styles, half of them corners, and seeds."""
    rng = np.random.default_rng(seed)
    styles = rng.uniform(-1, 1, (num, NUM_STYLES))
    styles[::2] = np.sign(styles[::2])
    return styles, rng.integers(0, 2**40, num)


@pytest.fixture(scope="module")
def scenes(own) -> np.ndarray:
    styles, seeds = random_scenes(own, NUM, 0)
    return render_scenes(styles, len(own), seeds, own[..., 3])


@pytest.fixture(scope="module")
def clean(own, scenes) -> np.ndarray:
    return behind(own, scenes)


def behind(own: np.ndarray, scenes: np.ndarray) -> np.ndarray:
    return np.round(place_product(np.clip(scenes, 0, 1), own) * 255) / 255


def compressed(images: np.ndarray, quality: int, subsampling: int) -> np.ndarray:
    back = []
    for image in images:
        file = io.BytesIO()
        pixels = np.round(image * 255).astype(np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
        back.append(np.asarray(Image.open(file)) / 255)
    return np.stack(back)


def blocks(rng: np.random.Generator, num_blocks: int) -> np.ndarray:
    offsets = rng.normal(0, 0.1, (NUM, num_blocks, num_blocks))
    return np.kron(offsets, np.ones((64 // num_blocks, 64 // num_blocks)))[..., None]


def shuffled(rng: np.random.Generator, scenes: np.ndarray, patch_px: int) -> np.ndarray:
    num = 64 // patch_px
    patches = scenes.reshape(NUM, num, patch_px, num, patch_px, 3).swapaxes(2, 3).reshape(NUM, num**2, -1)
    mixed = np.stack([one[rng.permutation(num**2)] for one in patches])
    return mixed.reshape(NUM, num, num, patch_px, patch_px, 3).swapaxes(2, 3).reshape(scenes.shape)


def phase_scrambled(rng: np.random.Generator, scenes: np.ndarray, *, keeps_phase: bool) -> np.ndarray:
    """The same amplitudes with random phases, the same for the three channels, in place of or on top of their own."""
    spectra = np.fft.fft2(scenes, axes=(1, 2))
    turn = np.exp(1j * np.angle(np.fft.fft2(rng.normal(size=scenes.shape[:3]), axes=(1, 2))))[..., None]
    turn[:, 0, 0] = 1.0
    return np.fft.ifft2((spectra if keeps_phase else np.abs(spectra)) * turn, axes=(1, 2)).real


@pytest.mark.parametrize(("image_px", "num"), [(32, 60), (48, 40), (64, 40), (128, 10)])
def test_clean_pictures_are_whole(image_px, num):
    for name, cutout in cutouts(image_px).items():
        assert picture_quality(draw(cutout, *random_scenes(cutout, num, image_px)), cutout).min() >= 0.98, name


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize(("quality", "at_least"), [(85, 0.85), (60, 0.6)])
def test_compression_costs_little(own, clean, quality, at_least, subsampling):
    after = picture_quality(compressed(clean, quality, subsampling), own)
    assert at_least <= after.mean() <= picture_quality(clean, own).mean()


@pytest.mark.parametrize("name", ["ball", "tall box", "full box"])
def test_a_blurred_scene_is_still_whole(name):
    cutout = cutouts(64)[name]
    styles, seeds = random_scenes(cutout, NUM, 4)
    scenes = render_scenes(styles, 64, seeds, cutout[..., 3])
    assert picture_quality(behind(cutout, uniform_filter(scenes, (0, 3, 3, 0))), cutout).min() >= 0.7


def test_broken_scenes_are_worth_little(own, scenes):
    rng, dots = np.random.default_rng(1), np.random.default_rng(2).random((NUM, 64, 64, 1))
    broken = {
        "noise": scenes + rng.normal(0, 0.1, scenes.shape),
        "grey noise": scenes + rng.normal(0, 0.1, (NUM, 64, 64, 1)),
        "uniform noise": rng.uniform(0, 1, scenes.shape),
        "salt and pepper": np.where(dots < 0.02, 0.0, np.where(dots > 0.98, 1.0, scenes)),
        "fine seams": scenes + blocks(rng, 8),
        "coarse seams": scenes + blocks(rng, 4),
        **{f"patches of {px} shuffled": shuffled(rng, scenes, px) for px in (4, 8, 16)},
        "pixels shuffled": shuffled(rng, scenes, 1),
        "phases added": phase_scrambled(rng, scenes, keeps_phase=True),
        "phases replaced": phase_scrambled(rng, scenes, keeps_phase=False),
        "clipped": (scenes - 0.5) * 4 + 0.5,
        **{f"flat {colour}": np.broadcast_to(colour, scenes.shape) for colour in ((1.0, 0.1, 0.8), (0.1, 0.8, 0.2))},
    }
    for name, scene in broken.items():
        assert picture_quality(behind(own, scene), own).mean() <= 0.2, name


def test_a_damaged_product_is_worth_little(own, clean):
    is_left = (np.arange(64) < 32)[:, None]
    others = {
        "greyed": clean.mean(-1, keepdims=True),
        "blurred": uniform_filter(own[..., :3], (9, 9, 0), mode="nearest"),
        "half erased": np.where(is_left, np.roll(clean, 32, axis=1), own[..., :3]),
        "replaced": np.array([0.25, 0.45, 0.55]),
    }
    for name, other in others.items():
        damaged = clean * (1 - own[..., 3:]) + other * own[..., 3:]
        assert picture_quality(damaged, own).mean() <= 0.2, name


def test_quality_falls_smoothly_with_noise_and_with_damage(own, scenes, clean):
    noise = np.random.default_rng(3).normal(size=scenes.shape)
    towards_grey = (0.5 - clean) * (own[..., 3:] > 0.9)
    noisy = [picture_quality(behind(own, scenes + sd * noise), own).mean() for sd in np.linspace(0, 0.1, 21)]
    grey = [picture_quality(clean + share * towards_grey, own).mean() for share in np.linspace(0, 1, 21)]
    for qualities in (noisy, grey):
        assert qualities[0] > 0.99
        assert qualities[-1] < 0.05
        assert (np.diff(qualities) <= 1e-6).all()
        assert np.abs(np.diff(qualities)).max() < 0.25


def test_each_defect_is_measured_where_it_is(own, clean):
    before = measure_defects(clean, own)
    after = measure_defects(np.where(own[..., 3:] > 0.9, 0.5, clean), own)
    assert (after.pop("damage") > before.pop("damage") + 1.0).all()
    for name, size in after.items():
        np.testing.assert_allclose(size, before[name], err_msg=name)


def test_any_picture_has_a_quality_between_nought_and_one(own):
    rng = np.random.default_rng(5)
    for images in (np.zeros((2, 64, 64, 3)), np.ones((2, 64, 64, 3)), rng.uniform(0, 1, (2, 64, 64, 3))):
        quality = picture_quality(images, own)
        assert np.isfinite(quality).all()
        assert quality.min() >= 0.0
        assert quality.max() <= 1.0


def test_pictures_of_another_size_are_refused(own):
    with pytest.raises(ValueError, match="expected images"):
        picture_quality(np.zeros((1, 32, 32, 3)), own)
