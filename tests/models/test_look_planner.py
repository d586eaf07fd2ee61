"""Looks: how they are measured, planned, told to the denoiser, and made up for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from osmf_models.data.collate import BatchKey, Dropout, draw_generation_batch, draw_pair_batch
from osmf_models.data.examples import examples_of_split
from osmf_models.image_features import measure_images
from osmf_models.model.gmllm import noisy_pictures
from osmf_models.model.look_planner import LookPlanner, PlannedLook
from osmf_models.model.scene_statistics import LOOK_NAMES, scene_looks
from osmf_models.stages.pretrain import training_pictures
from osmf_models.training.pair_errors import pair_errors


def drawn(export, *, size=4):
    examples = examples_of_split(export, 1.0, "train")
    return draw_generation_batch(export, examples, BatchKey(0, 0, range(size)), Dropout(), lambda uniform: 0.8)


def standardised(export):
    planner = LookPlanner(8)
    pictures = training_pictures(export)
    planner.standardise_by(*pictures)
    return planner, pictures


def test_looks_are_what_the_creative_features_measure():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 16, 16, generator=generator)
    masks = torch.zeros(5, 1, 16, 16)
    masks[:, :, 4:11, 6:10] = 1.0  # no rim, of which the two think differently
    looks = scene_looks(images, masks).numpy()
    measured = measure_images(images.permute(0, 2, 3, 1).double().numpy(), masks[:, 0].double().numpy())
    linear = [LOOK_NAMES.index(name) for name in ("brightness", "warmth", "saturation", "gradient")]
    assert looks[:, linear] == pytest.approx(measured[:, linear], abs=1e-5)
    texture = LOOK_NAMES.index("texture")
    assert looks[:, texture] == pytest.approx(np.log(measured[:, texture]), abs=0.02)
    images[:, :, :, ::2] = images[:, :, :, 1::2]  # steps across alone, at every second pixel
    looks = scene_looks(images, masks).numpy()
    measured = measure_images(images.permute(0, 2, 3, 1).double().numpy(), masks[:, 0].double().numpy())
    assert looks[:, texture] == pytest.approx(np.log(measured[:, texture]), abs=0.04)


def look_of(image, mask=None, *, name):
    """One entry of the look of one picture (3, H, W)."""
    mask = torch.zeros(1, 1, *image.shape[1:]) if mask is None else mask
    return float(scene_looks(image[None], mask)[0, LOOK_NAMES.index(name)])


def test_coarseness_tells_waves_of_one_height_apart():
    """A wave of wave number k steps by 2 sin(k lag / 2) times its height; the root mean square's logarithm grows by
    log(sin(k) / sin(k / 2)) from lag 1 to 2."""
    columns = torch.arange(64.0)
    for length in (16, 8):
        wave = (0.5 + 0.2 * torch.sin(2 * np.pi * columns / length)).expand(3, 64, 64)
        k = 2 * np.pi / length
        assert look_of(wave, name="coarseness") == pytest.approx(np.log(np.sin(k) / np.sin(k / 2)), abs=0.01)


def test_clutter_is_colour_that_stands_out_from_its_row():
    stripes = torch.full((3, 16, 16), 0.5)
    stripes[0, 8:] = 0.9  # a table of another colour is no clutter
    assert look_of(stripes, name="clutter") == pytest.approx(0.0, abs=1e-6)
    dotted = torch.full((3, 16, 16), 0.5)
    dotted[1, :, 4] = 0.9  # one column of 16: green departs by 0.4 * 15 / 16 there and by 0.4 / 16 elsewhere
    assert look_of(dotted, name="clutter") == pytest.approx(0.4 * 2 * 15 / 256, abs=1e-6)


def test_shadow_is_how_much_darker_it_is_under_the_product_than_beside_it():
    image, mask = torch.full((3, 20, 20), 0.8), torch.zeros(1, 1, 20, 20)
    mask[:, :, 6:14, 8:12] = 1.0
    image[:, 14, 9:11] = 0.5
    assert look_of(image, mask, name="shadow") == pytest.approx(0.3, abs=1e-6)
    image[:, 15:, 8:12] = 0.1  # further below is no foot
    image[:, 14, [8, 11]] = 0.2  # nor are the product's sides its middle
    assert look_of(image, mask, name="shadow") == pytest.approx(0.3, abs=1e-6)


def test_horizon_is_where_colour_changes_from_top_to_bottom():
    for row in (5, 12):
        image = torch.full((3, 16, 16), 0.5)
        image[0, row:] = 0.8
        assert look_of(image, name="horizon") == pytest.approx(row / 16, abs=1e-3)


def scenes(count=24):
    """Smooth random scenes, and a planner that is standardised by them."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(count, 3, 24, 24, generator=generator)
    images = (0.5 + 0.4 * functional.avg_pool2d(noise, 3, stride=1, padding=1)).clamp(0.1, 0.9)
    masks = torch.zeros(count, 1, 24, 24)
    masks[:, :, 8:16, 8:16] = 1.0
    planner = LookPlanner(8)
    planner.standardise_by(images, masks)
    return planner, images, masks


def test_nudged_pictures_look_as_wanted():
    planner, images, masks = scenes()
    looks = planner.looks(images, masks)
    wanted = looks.flip(0)  # of another scene
    moved = images
    for _ in range(3):
        moved = planner.nudged(moved, masks, wanted)
    gaps = [(one - wanted).norm(dim=1) for one in (looks, planner.looks(moved, masks))]
    assert (gaps[1] < 0.1 * gaps[0]).all()
    torch.testing.assert_close(planner.nudged(images, masks, looks), images)


def test_a_nudge_changes_the_scene_alone_and_little():
    planner, images, masks = scenes()
    wanted = planner.looks(images, masks)
    brightness = LOOK_NAMES.index("brightness")
    wanted[:, brightness] += 0.2
    moved = planner.nudged(images, masks, wanted) - images
    assert (moved * masks).abs().max() == 0.0
    # the least that does is the same step of luma everywhere, of channels weighted alike that is at most twice as far
    least = 0.2 * planner.look_deviation[brightness]
    assert (moved.square().mean((1, 2, 3)).sqrt() < 2.0 * least).all()


def test_a_picture_that_a_nudge_would_lead_astray_stays_as_it_is():
    planner, images, masks = scenes()
    grey = torch.full_like(images, 0.5)  # has no slope to follow in saturation, and bends where it begins
    wanted = planner.looks(images, masks)
    moved = planner.nudged(grey, masks, wanted)
    gaps = [((scene_looks(one, masks) - planner.look_mean) / planner.look_deviation - wanted) for one in (grey, moved)]
    assert torch.isfinite(moved).all()
    assert (gaps[1].norm(dim=1) <= gaps[0].norm(dim=1)).all()


def test_no_look_beyond_the_pictures_of_training_is_drawn(gmllm, export):
    planner, (images, masks) = standardised(export)
    looks = planner.looks(images, masks)
    within = planner.within_range(100.0 * torch.ones(1, len(LOOK_NAMES)))
    assert ((looks > within + 1e-6).sum(0) <= 1).all()  # of 32 pictures
    torch.testing.assert_close(planner.within_range(looks.median(0).values[None]), looks.median(0).values[None])
    condition = drawn(export).condition
    gmllm.planner.standardise_by(images, masks)
    with torch.no_grad():
        gmllm.planner.plan[-1].bias[: len(LOOK_NAMES)] = 50.0
    torch.testing.assert_close(gmllm.planned_look(condition), gmllm.planner.look_high.expand(4, -1))


def test_looks_are_standardised_and_nothing_is_further_than_three_deviations(export):
    planner, (images, masks) = standardised(export)
    looks = planner.looks(images, masks)
    inside = (looks.abs() < 3).all(0)
    torch.testing.assert_close(looks.mean(0)[inside], torch.zeros(int(inside.sum())), atol=1e-3, rtol=0)
    torch.testing.assert_close(looks.std(0)[inside], torch.ones(int(inside.sum())), atol=1e-3, rtol=0)
    assert planner.looks(torch.rand_like(images).round(), masks).abs().max() == 3.0


def test_pictures_of_training_are_those_of_its_split(export):
    images, masks = training_pictures(export)
    shown = export.examples[export.examples.split == "train"].creative_index.nunique()
    assert images.shape == (shown, 3, export.manifest.image_px, export.manifest.image_px)
    assert len(masks) == shown < len(export.creatives)


def test_deviance_is_that_of_a_normal_distribution():
    plan = PlannedLook(torch.tensor([[1.0, -0.5]]), torch.tensor([[0.0, -2.0]]))
    looks = torch.tensor([[0.0, 0.0], [1.0, -0.5]])  # two pictures of one plan
    normal = torch.distributions.Normal(plan.mean, (plan.log_variance / 2).exp())
    constant = np.log(2 * np.pi)
    torch.testing.assert_close(plan.deviances(looks), -2.0 * normal.log_prob(looks).mean(1) - constant)
    by_hand = torch.tensor([(1.0 + 0.25 * np.exp(2.0) - 2.0) / 2.0, -1.0], dtype=torch.float32)
    torch.testing.assert_close(plan.deviances(looks), by_hand)


def test_no_plan_is_wider_than_all_pictures(export):
    planner, _ = standardised(export)
    for scale in (1.0, 1e3, -1e3):
        spread = planner.planned(scale * torch.ones(1, 2, 8)).log_variance
        assert (spread <= 0.0).all()
        assert (spread >= -3.0).all()


def test_one_token_more_tells_the_look(export):
    planner, (images, masks) = standardised(export)
    tokens = torch.randn(2, 5, 8)
    looks = planner.looks(images[:2], masks[:2])
    told, other = planner.told(tokens, looks), planner.told(tokens, looks.flip(0))
    assert told.shape == (2, 6, 8)
    torch.testing.assert_close(told[:, :5], tokens)
    torch.testing.assert_close(other[:, 5], told[:, 5].flip(0))
    assert not torch.allclose(told[0, 5], told[1, 5])


def test_without_a_look_the_plan_is_drawn(gmllm, export):
    batch = drawn(export)
    noisy, _ = noisy_pictures(gmllm, batch.pictures)
    planned = gmllm(batch.condition, noisy)
    told = gmllm(batch.condition, noisy, looks=planned.plan.mean)
    other = gmllm(batch.condition, noisy, looks=-planned.plan.mean)
    assert planned.plan.mean.shape == (4, len(LOOK_NAMES))
    torch.testing.assert_close(told.clean, planned.clean)
    assert not torch.allclose(other.clean, planned.clean)
    torch.testing.assert_close(other.plan.mean, planned.plan.mean)
    assert gmllm(batch.condition).clean is None


def test_pixels_teach_the_plan_only_where_it_is_drawn(gmllm, export):
    batch = drawn(export)
    noisy, clean = noisy_pictures(gmllm, batch.pictures)
    looks = gmllm.planner.looks(batch.pictures.images, batch.pictures.masks)
    for given, is_taught in ((looks, False), (None, True)):
        gmllm.zero_grad()
        (gmllm(batch.condition, noisy, looks=given).clean - clean).square().mean().backward()
        gradients = [parameter.grad for parameter in gmllm.planner.plan.parameters()]
        assert all((gradient is not None and bool(gradient.abs().sum() > 0)) == is_taught for gradient in gradients)


def test_pairs_are_judged_by_the_plan_of_their_group(gmllm, export):
    pairs = export.pairs[~export.pairs.is_scope_root].assign(target=0.9)
    batch = draw_pair_batch(export, pairs, BatchKey(0, 0, range(3)), Dropout(), lambda uniform: 0.8, True)
    errors = pair_errors(gmllm, batch, "look").columns()
    looks = gmllm.planner.looks(batch.pictures.images, batch.pictures.masks)
    plan = gmllm(batch.condition).plan
    for pair in range(3):
        own = PlannedLook(plan.mean[[pair]], plan.log_variance[[pair]])
        torch.testing.assert_close(errors[pair], own.deviances(looks[[pair, pair + 3]]))
    deaf = replace(batch, condition=replace(batch.condition, is_null_group=torch.ones(3, dtype=torch.bool)))
    assert not torch.allclose(pair_errors(gmllm, deaf, "look").columns(), errors)
