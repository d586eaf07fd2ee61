"""Looks: how they are measured, planned, told to the denoiser, and made up for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

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


def test_what_a_picture_lacks_of_the_plan_is_asked_for_again(pipeline, export, monkeypatch):
    cutout = export.cutouts[0][None]
    asked, drawn_looks = [], []
    tell, look = pipeline.planner.told, pipeline.planner.looks
    monkeypatch.setattr(pipeline.planner, "told", lambda tokens, looks: asked.append(looks) or tell(tokens, looks))
    monkeypatch.setattr(pipeline.planner, "looks", lambda *shown: drawn_looks.append(look(*shown)) or drawn_looks[-1])

    def draw(num_corrections):
        asked.clear()
        drawn_looks.clear()
        features = export.raw_group_features[:1]
        arguments = (cutout[..., :3], cutout[..., 3], ["a title"], features)
        picture = pipeline(*arguments, num_inference_steps=1, num_corrections=num_corrections, generator=3)
        return picture, asked[2::3]  # each drawing asks without both, without the group, and with both

    first, (plan,) = draw(0)
    assert drawn_looks == []
    twice, asked_with_both = draw(2)
    assert len(asked_with_both) == 3
    torch.testing.assert_close(asked_with_both[0], plan)
    torch.testing.assert_close(asked_with_both[1], plan + (plan - drawn_looks[0]))
    torch.testing.assert_close(asked_with_both[2], asked_with_both[1] + (plan - drawn_looks[1]))
    assert not np.allclose(first, twice)
