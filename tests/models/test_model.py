import numpy as np
import pytest
import torch

from osmf_models.data.collate import BatchKey, Dropout, draw_generation_batch
from osmf_models.data.examples import examples_of_split
from osmf_models.model.backbone import tokenize
from osmf_models.model.gmllm import NoisyPictures
from osmf_models.model.path import at_time, biased_time, velocity_from_clean
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.model.sampler import GuidedPredictions, integrate


@pytest.fixture
def inputs(export):
    """Cut-outs of four products, their titles and a group's raw features: what `pipe` takes."""
    cutouts = np.stack([export.cutouts[index] for index in range(4)])
    return {
        "product_image": cutouts[..., :3],
        "mask": cutouts[..., 3],
        "title": list(export.products.title[:4]),
        "group_features": export.raw_group_features[[0, 1, 2, 3]],
        "num_inference_steps": 2,
    }


def drawn(export, key):
    examples = examples_of_split(export, 1.0, "train")
    return draw_generation_batch(export, examples, key, Dropout(), lambda uniform: uniform)


def forward(gmllm, export, descriptions=None):
    key = BatchKey(0, 0, range(3))
    batch = drawn(export, key)
    pictures = batch.pictures
    noisy = NoisyPictures(pictures.noise, pictures.images, pictures.masks, pictures.time)
    texts = tokenize(gmllm.tokenizer, descriptions or batch.descriptions, 24, has_end=True)
    with torch.no_grad():
        return gmllm(batch.condition, noisy, texts)


def test_path_ends_in_picture_and_noise_and_velocity_leads_from_one_to_the_other():
    clean, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(at_time(clean, noise, torch.zeros(2)), clean)
    torch.testing.assert_close(at_time(clean, noise, torch.ones(2)), noise)
    time = torch.tensor([0.3, 0.8])
    torch.testing.assert_close(velocity_from_clean(at_time(clean, noise, time), clean, time), noise - clean)


def test_time_bias_moves_draws_to_noise():
    draws = np.linspace(0, 1, 101)
    means = [np.mean([biased_time(draw, power) for draw in draws]) for power in (1.0, 2.0)]
    assert means == pytest.approx([0.51, 0.02 + 0.98 * 2 / 3], abs=0.01)
    assert min(biased_time(draw, 2.0) for draw in draws) > 0


@pytest.mark.parametrize("is_second_order", [False, True])
def test_solver_reaches_a_picture_that_is_predicted_rightly(is_second_order):
    picture = torch.randn(2, 3, 4, 4)
    solved = integrate(lambda noisy, time: picture, torch.randn(2, 3, 4, 4), 5, is_second_order)
    torch.testing.assert_close(solved, picture)


def test_guidance_combines_the_three_predictions():
    constant = [lambda noisy, time, value=value: torch.full((1,), value) for value in (1.0, 10.0, 100.0)]
    guided = GuidedPredictions(*constant)
    assert guided.at_scale(1.0, 1.0)(torch.zeros(1), torch.zeros(1)).item() == 100.0
    assert guided.at_scale(0.0, 1.0)(torch.zeros(1), torch.zeros(1)).item() == 10.0
    assert guided.at_scale(2.0, 3.0)(torch.zeros(1), torch.zeros(1)).item() == 1.0 + 3.0 * 9.0 + 2.0 * 90.0


@pytest.mark.parametrize("has_end", [False, True])
def test_tokens_are_those_of_the_tokenizer_whether_seen_before_or_not(gmllm, has_end):
    texts = ["shoe model 3 in colour 2", "", "a text that is longer than eight tokens however one may cut it", ""]
    ends = [text + gmllm.tokenizer.eos_token for text in texts] if has_end else texts
    whole = gmllm.tokenizer(ends, max_length=8, truncation=True, padding="max_length", return_tensors="pt")
    for _ in range(2):
        tokens = tokenize(gmllm.tokenizer, texts, 8, has_end)
        assert torch.equal(tokens.ids, whole.input_ids)
        assert torch.equal(tokens.is_token, whole.attention_mask.bool())


def test_description_leaks_nothing_into_the_picture(gmllm, export):
    first, second = forward(gmllm, export), forward(gmllm, export, ["something else"] * 3)
    torch.testing.assert_close(first.clean, second.clean)
    assert first.description_logits.shape[:2] == (3, 24)


def test_group_title_and_product_reach_the_condition(gmllm, export):
    batch = drawn(export, BatchKey(0, 0, range(2)))
    base, condition = gmllm.condition_tokens(batch.condition), batch.condition
    changes = {
        "group": (condition.product_view, condition.titles, condition.group_features + 1, condition.is_null_group),
        "null": (condition.product_view, condition.titles, condition.group_features, ~condition.is_null_group),
        "title": (condition.product_view, ["", ""], condition.group_features, condition.is_null_group),
        "product": (1 - condition.product_view, condition.titles, condition.group_features, condition.is_null_group),
    }
    for name, parts in changes.items():
        changed = gmllm.condition_tokens(type(condition)(*parts))
        assert (changed - base).abs().max() > 1e-4, name


def test_null_group_ignores_the_features(gmllm):
    is_null = torch.tensor([True, True])
    features = torch.randn(2, len(gmllm.group_encoder.config["feature_names"]))
    tokens = gmllm.group_encoder(features, is_null)
    torch.testing.assert_close(tokens[0], tokens[1])


def test_product_pixels_are_exact(pipeline, inputs):
    drawn = pipeline(**inputs, generator=0)
    is_product = inputs["mask"] == 1.0
    assert drawn.shape == (4, 32, 32, 3)
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0
    np.testing.assert_array_equal(drawn[is_product], inputs["product_image"][is_product])


def test_pipeline_is_reproducible_and_saves_without_pickle(pipeline, inputs, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = GroupAdPipeline.from_pretrained(tmp_path, local_files_only=True)
    np.testing.assert_array_equal(loaded(**inputs, generator=3), pipeline(**inputs, generator=3))
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}, names


def test_one_generator_per_picture_gives_the_same_noise_to_each(pipeline, inputs):
    same = {**inputs, "product_image": inputs["product_image"][[0, 0]], "mask": inputs["mask"][[0, 0]]}
    same |= {"title": inputs["title"][:1] * 2, "group_features": inputs["group_features"][[1, 1]]}
    drawn = pipeline(**same, generator=[torch.Generator().manual_seed(5) for _ in range(2)])
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-5)


def test_no_group_draws_for_everyone(pipeline, inputs):
    assert pipeline(**{**inputs, "group_features": None}, generator=0).shape == (4, 32, 32, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": "shoe"}, "list of 4 titles"),
        ({"group_features": np.zeros((4, 2))}, "group_features"),
        ({"mask": np.zeros((4, 16, 16))}, "must be"),
        ({"mask": np.full((4, 32, 32), 2.0)}, r"\[0, 1\]"),
    ],
)
def test_wrong_input_is_refused(pipeline, inputs, change, message):
    with pytest.raises(ValueError, match=message):
        pipeline(**{**inputs, **change})
