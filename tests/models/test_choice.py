"""Which of two pictures a group prefers: how it is asked, what the answer costs, and how answers are counted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from planted_export import write_export
from tokenizers import Tokenizer, models
from torch import tensor
from transformers import PreTrainedTokenizerFast

from osmf_models.config import DataConfig, PretrainingConfig
from osmf_models.data.choice import CHOICE_STREAM, LooksScale, choice_pairs, draw_choice_batch
from osmf_models.data.collate import BatchKey, Dropout, images_and_masks
from osmf_models.data.dataset import load_export
from osmf_models.data.synthetic import synthetic_batch
from osmf_models.model.backbone import picture_words
from osmf_models.model.gmllm import GMllm
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.model.scene_statistics import scene_looks
from osmf_models.objectives.comprehension import both_orders, choice_loss, looks_loss
from osmf_models.recipes import load_recipe
from osmf_models.stages.pretrain import batch_loss
from osmf_models.training.choice_figures import choice_figures, contradictions, right_shares


def draw(export, rank=0, world_size=1, step=3, size=8, num_pictures=2):
    key = BatchKey.of_rank(0, step, size, rank, world_size, stream=CHOICE_STREAM)
    pairs = choice_pairs(export, "train")
    return draw_choice_batch(export, pairs, key, Dropout(), num_pictures, LooksScale.of(export, pairs))


def likings(gmllm, batch):
    with torch.no_grad():
        return gmllm.read_pictures(batch.condition, batch.pictures).likings


def swapped(batch):
    """The same two pictures the other way round, with their label."""
    return replace(batch, pictures=batch.pictures.flip(1), target=batch.target.flip(1, 2))


def margins(gmllm, batch):
    liked = likings(gmllm, batch)
    return liked[:, 0] - liked[:, 1]


def content(picture):
    return picture.numpy().tobytes()


def of_pairs(*entries):
    """(M, M) = (3, 3) with these (i, j, value), else 0.5 unknown."""
    target, is_known = torch.full((3, 3), 0.5), torch.zeros(3, 3, dtype=torch.bool)
    for i, j, value in entries:
        target[i, j], is_known[i, j] = value, True
    return target, is_known


def test_choice_loss_by_hand():
    """Row 1, m = 0: log 2 whatever the label. Row 2: at m = log 3, a claim of 3/4, 0.5623 for q = 0.75; at m = -log 3,
    -log(1/4) = 1.3863 for q = 1. Their mean 0.9743; both rows count alike."""
    rows = [of_pairs((0, 1, 0.9)), of_pairs((0, 1, 0.75), (1, 2, 1.0))]
    target, is_known = (torch.stack(parts) for parts in zip(*rows, strict=True))
    likings = tensor([[2.0, 2.0, 7.0], [math.log(3.0), 0.0, math.log(3.0)]])
    assert float(choice_loss(likings, target, is_known)) == pytest.approx((0.6931 + 0.9743) / 2, abs=1e-4)


def test_choice_loss_is_least_at_the_labels_own_odds():
    target, is_known = of_pairs((0, 1, 0.95))
    likings = tensor([[math.log(0.95 / 0.05), 0.0, 3.0]], requires_grad=True)
    choice_loss(likings, target[None], is_known[None]).backward()
    assert likings.grad.abs().max() < 1e-6


def test_choice_loss_teaches_nothing_where_no_pair_is_known():
    target, is_known = of_pairs()
    assert float(choice_loss(tensor([[1.0, 2.0, 3.0]]), target[None], is_known[None])) == 0.0


def test_liking_for_a_place_goes_out_of_both_orders():
    """A leads by 1 and the first place gives 3: 4 where A is read first, 2 where B is; asked twice it is 1 again."""
    assert both_orders(tensor([4.0]), tensor([2.0])).tolist() == [1.0]
    assert both_orders(tensor([2.0]), tensor([4.0])).tolist() == [-1.0]


def test_swapped_pictures_with_swapped_label_cost_the_same_over_both_orders(gmllm, export):
    batch = draw(export)
    other = swapped(batch)

    def loss(one, two):
        margin = both_orders(margins(gmllm, one), margins(gmllm, two))
        liked = torch.stack([margin, torch.zeros_like(margin)], dim=1)
        return float(choice_loss(liked, one.target, one.is_known))

    assert not torch.allclose(margins(gmllm, batch), -margins(gmllm, other), atol=1e-4)  # the places do matter
    assert loss(batch, other) == pytest.approx(loss(other, batch), rel=1e-6)


@pytest.mark.parametrize("num_pictures", [2, 4, 9])
def test_labels_are_those_of_the_known_pairs(export, num_pictures):
    """Of some group of the product: all of its pairs among the pictures shown, and nothing else."""
    pairs = choice_pairs(export, "train")
    batch = draw(export, size=16, num_pictures=num_pictures)
    number = {content(torch.tensor(export.images[i]).movedim(-1, 0)): i for i in range(len(export.creatives))}
    for row, target, is_known in zip(batch.pictures, batch.target, batch.is_known, strict=True):
        shown = [number[content(one)] for one in row]
        label = {}
        for i in range(num_pictures):
            for j in range(num_pictures):
                assert not is_known[i, j] or i < j
                if is_known[i, j]:
                    better, worse = (i, j) if target[i, j] > 0.5 else (j, i)
                    label[shown[better], shown[worse]] = max(float(target[i, j]), 1.0 - float(target[i, j]))
        candidates = [
            {(one.chosen_index, one.rejected_index): one.target for one in rows.itertuples()}
            for _, rows in pairs[pairs.chosen_index.isin(shown)].groupby("group_index")
        ]
        of_shown = [{k: v for k, v in known.items() if set(k) <= set(shown)} for known in candidates]
        assert any(known == pytest.approx(label, abs=1e-6) for known in of_shown)
        assert len(label) >= 1


def test_order_and_groups_are_balanced(export):
    pairs = choice_pairs(export, "train")
    batch = draw(export, size=800)
    assert 0.44 < float((batch.target[:, 0, 1] > 0.5).float().mean()) < 0.56
    rows = [np.abs(export.group_features - one.numpy()).sum(1).argmin() for one in batch.condition.group_features]
    shares = np.bincount(rows)[sorted(pairs.group_index.unique())] / len(rows)
    np.testing.assert_allclose(shares, 1.0 / pairs.group_index.nunique(), atol=0.06)


def test_looks_are_measured_of_the_scenes(export):
    """Outside the product; standardised over the pictures of the pairs."""
    batch, scale = draw(export, num_pictures=4), LooksScale.of(export, choice_pairs(export, "train"))
    images, masks = images_and_masks(export, np.arange(len(export.creatives)))
    row = int(torch.nonzero((images == batch.pictures[2, 1]).flatten(1).all(1))[0])
    measured = scene_looks(images[[row]], masks[[row]])[0].double().numpy()
    np.testing.assert_allclose(batch.looks[2, 1], (measured - scale.mean) / scale.deviation, atol=1e-4)
    everything = scale.looks(export, choice_pairs(export, "train").chosen_index.unique())
    np.testing.assert_allclose(everything.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(everything.std(0), 1.0, atol=1e-4)


def test_looks_loss_by_hand():
    """Errors 1, 0, 2, 1: a mean square of 6 / 4."""
    predicted, looks = tensor([[[1.0, 0.0], [2.0, 1.0]]]), tensor([[[0.0, 0.0], [0.0, 2.0]]])
    assert float(looks_loss(predicted, looks)) == 1.5


def test_two_ranks_are_asked_what_one_is(export):
    whole, halves = draw(export, num_pictures=3), [draw(export, rank, 2, num_pictures=3) for rank in range(2)]
    for part in ("pictures", "target", "is_known", "looks"):
        assert torch.equal(torch.cat([getattr(half, part) for half in halves]), getattr(whole, part))
    assert [title for half in halves for title in half.condition.titles] == whole.condition.titles
    assert not torch.equal(draw(export, step=4, num_pictures=3).pictures, whole.pictures)


def test_questions_change_no_draw_of_examples_and_do_not_repeat_it(export):
    """Stream 0 is what there was before streams; another stream is other numbers."""
    plain, other = BatchKey(0, 3, range(2)), BatchKey(0, 3, range(2), CHOICE_STREAM)
    assert [g.uniform() for g in plain.generators()] == [np.random.default_rng((0, 3, i)).uniform() for i in range(2)]
    assert plain.generators()[0].uniform() != other.generators()[0].uniform()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_choice_pictures": 1}, "num_choice_pictures 1 must be at least 2"),
        ({"choice_batch_size": -1}, "choice_batch_size -1 must not be below 0"),
        ({"choice_weight": -0.1}, "choice_weight -0.1 must not be below 0"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PretrainingConfig(**change).check()


def test_choice_of_a_label_that_is_no_share_is_refused(export):
    broken = replace(export, pairs=export.pairs.assign(chosen_better_probability=1.5))
    with pytest.raises(ValueError, match=r"is no number in \[0, 1\]"):
        choice_pairs(broken, "train")


def test_group_product_title_and_both_pictures_reach_the_choice(gmllm, export):
    batch = draw(export, size=2)
    condition, base = batch.condition, margins(gmllm, batch)
    changes = {
        "group": replace(batch, condition=replace(condition, group_features=condition.group_features + 1)),
        "null": replace(batch, condition=replace(condition, is_null_group=~condition.is_null_group)),
        "title": replace(batch, condition=replace(condition, titles=["", ""])),
        "product": replace(batch, condition=replace(condition, product_view=1 - condition.product_view)),
        "first": replace(batch, pictures=torch.stack([1 - batch.pictures[:, 0], batch.pictures[:, 1]], 1)),
        "second": replace(batch, pictures=torch.stack([batch.pictures[:, 0], 1 - batch.pictures[:, 1]], 1)),
    }
    for name, changed in changes.items():
        assert (margins(gmllm, changed) - base).abs().max() > 1e-5, name


def test_an_answer_is_the_same_alone_and_in_a_batch(gmllm, export):
    """Nor does who else is in the batch: each answer stays its own."""
    batch = draw(export, size=2)
    alone = [margins(gmllm, one) for one in halves_of(batch)]
    torch.testing.assert_close(torch.cat(alone), margins(gmllm, batch), atol=1e-5, rtol=1e-5)


def halves_of(batch):
    for i in range(2):
        condition = batch.condition
        of_one = replace(
            condition,
            product_view=condition.product_view[i : i + 1],
            titles=condition.titles[i : i + 1],
            group_features=condition.group_features[i : i + 1],
            is_null_group=condition.is_null_group[i : i + 1],
        )
        yield replace(batch, condition=of_one, pictures=batch.pictures[i : i + 1])


def test_a_row_begins_with_the_question_about_two(gmllm, export):
    """What is read later is not known earlier: two pictures are liked alike in a row of two and at the head of four."""
    row = draw(export, num_pictures=4)
    two = replace(row, pictures=row.pictures[:, :2])
    torch.testing.assert_close(likings(gmllm, row)[:, :2], likings(gmllm, two), atol=1e-5, rtol=1e-5)


def test_being_asked_changes_nothing_in_the_picture(gmllm, export):
    """The language model reads the questions apart from the examples: losses of drawing and describing stay."""
    batch = synthetic_batch(export.manifest, size=2, seed=0, num_choices=2)
    with torch.no_grad():
        asked, unasked = (
            batch_loss(gmllm, gmllm, one, load_recipe("tiny")) for one in (batch, replace(batch, choice=None))
        )
    assert float(asked[1]["generation_loss"]) == float(unasked[1]["generation_loss"])
    assert float(asked[1]["comprehension_loss"]) == float(unasked[1]["comprehension_loss"])
    weight = load_recipe("tiny").pretraining.choice_weight
    of_pictures = float(asked[1]["choice_loss"] + asked[1]["looks_loss"])
    assert float(asked[0] - unasked[0]) == pytest.approx(weight * of_pictures, rel=1e-4)


def asked(export, pairs):
    cutouts = np.stack([export.cutouts[index] for index in pairs.product_index])
    titles = list(export.products.title.iloc[pairs.product_index])
    a, b = (np.stack([export.images[i] for i in pairs[name]]) for name in ("chosen_index", "rejected_index"))
    return cutouts[..., :3], cutouts[..., 3], titles, export.raw_group_features[pairs.group_index], a, b


def test_pipeline_chooses_whichever_is_named_first(pipeline, gmllm, export):
    *shown, a, b = asked(export, choice_pairs(export, "train").head(5))
    forth, back = pipeline.choose(*shown, a, b), pipeline.choose(*shown, b, a)
    np.testing.assert_allclose(forth + back, 1.0, atol=1e-6)
    assert np.abs(forth - 0.5).max() > 1e-4


def test_model_without_the_word_for_it_cannot_be_asked(gmllm):
    words = picture_words(gmllm.tokenizer)
    assert gmllm.tokenizer.decode([words.asked, words.looks[0]]) == "<asked><brightness>"
    older = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(unk_token="?")), unk_token="?")
    with pytest.raises(ValueError, match="cannot choose between pictures; pretrain again"):
        picture_words(older)


def test_wrong_pictures_are_refused(pipeline, export):
    *shown, a, b = asked(export, choice_pairs(export, "train").head(2))
    with pytest.raises(ValueError, match=r"picture_b \(2, 16, 32, 3\) must be \(2, 32, 32, 3\)"):
        pipeline.choose(*shown, a, b[:, :16])
    with pytest.raises(ValueError, match="picture_a"):
        pipeline.choose(*shown, a + 1.0, b)


def two_sided(export):
    """Every sure pair of the export in one group, and turned round in another of its scope."""
    pairs = choice_pairs(export, "train").head(12)
    group_of = {scope: rows.group_index.unique()[:2] for scope, rows in choice_pairs(export, "train").groupby("scope")}
    own = pairs.assign(group_index=[group_of[scope][0] for scope in pairs.scope])
    other = pairs.assign(
        group_index=[group_of[scope][1] for scope in pairs.scope],
        chosen_index=pairs.rejected_index,
        rejected_index=pairs.chosen_index,
    )
    return pd.concat([own, other], ignore_index=True)


def test_without_group_features_contradictions_are_half_right(gmllm, pipeline, export):
    """And with them an untrained model's answers differ between the groups, so that the half is no matter of course."""
    both = two_sided(export)
    silent = replace(export, raw_group_features=np.zeros_like(export.raw_group_features))
    assert right_shares(pipeline, silent, both).mean() == 0.5
    probability = pipeline.choose(*asked(export, both))
    assert np.abs(probability[:12] + probability[12:] - 1.0).max() > 1e-4


def test_contradictions_are_found_and_each_has_two_sides():
    pairs = pd.DataFrame(
        [
            ("shoes", 1, 2, 0),
            ("shoes", 2, 1, 5),  # contradicts the first
            ("shoes", 2, 1, 6),  # and so does this
            ("lamps", 2, 1, 7),  # of another scope
            ("shoes", 1, 3, 0),  # another picture
        ],
        columns=["scope", "chosen_index", "rejected_index", "group_index"],
    )
    assert sorted(contradictions(pairs).group_index) == [0, 0, 5, 6]


def test_figures_of_an_export_without_sure_held_out_pairs_are_numbers_alone(pipeline, export):
    unsure = replace(export, pairs=export.pairs.assign(chosen_better_probability=0.94))
    assert choice_figures(pipeline, unsure) == {"held_out/num_choice_pairs": 0.0, "held_out/num_contradictions": 0.0}


@pytest.mark.slow
def test_planted_tastes_are_learned_and_lost_with_the_group(tmp_path):
    """Four groups of one scope with linear tastes over colour and light, judged on products never seen."""
    write_export(tmp_path, num_products=120, num_creatives=6, num_groups=4, num_scopes=1)
    export = load_export(tmp_path, DataConfig())
    torch.manual_seed(0)
    gmllm = GMllm.build(load_recipe("demo").model, export.manifest, list(export.products.title))
    optimiser = torch.optim.AdamW(gmllm.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(400):
        batch = draw(export, step=step, size=8, num_pictures=4)
        read = gmllm.read_pictures(batch.condition, batch.pictures)
        loss = choice_loss(read.likings, batch.target, batch.is_known) + looks_loss(read.looks, batch.looks)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gmllm.parameters(), 1.0)
        optimiser.step()
    figures = choice_figures(GroupAdPipeline.of(gmllm), export)
    assert figures["held_out/contradiction_choice_accuracy"] > 0.75
    shuffled = "held_out/shuffled_contradiction_choice_accuracy"
    assert figures[f"{shuffled}_low"] < 0.5 < figures[f"{shuffled}_high"]
