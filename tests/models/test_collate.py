from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from osmf_models.config import DpoConfig
from osmf_models.data.collate import BatchKey, Dropout, draw_generation_batch, draw_pair_batch, drawn_pairs
from osmf_models.data.examples import examples_of_split
from osmf_models.data.pairs import pairs_of_split, with_contrast

DROPOUT = Dropout(group=0.3, text=0.3)


def draw(export, rank, world_size, step=3):
    key = BatchKey.of_rank(0, step, 8, rank, world_size)
    return draw_generation_batch(export, examples_of_split(export, 1.0, "train"), key, DROPOUT, lambda uniform: uniform)


def draw_pairs(export, rank, world_size, is_balanced=True):
    pairs = pairs_of_split(export, DpoConfig(), "train")
    key = BatchKey.of_rank(0, 3, 8, rank, world_size)
    return draw_pair_batch(export, pairs, key, Dropout(), lambda uniform: uniform, is_balanced)


def test_two_ranks_see_the_global_batch_of_one(export):
    whole, halves = draw(export, 0, 1), [draw(export, rank, 2) for rank in range(2)]
    for part in ("images", "masks", "noise", "time"):
        both = torch.cat([getattr(half.pictures, part) for half in halves])
        torch.testing.assert_close(both, getattr(whole.pictures, part), rtol=0, atol=0)
    both = torch.cat([half.condition.is_null_group for half in halves])
    assert both.tolist() == whole.condition.is_null_group.tolist()
    assert [*halves[0].condition.titles, *halves[1].condition.titles] == whole.condition.titles
    assert [*halves[0].descriptions, *halves[1].descriptions] == whole.descriptions


def test_two_ranks_see_the_global_pairs_of_one(export):
    whole, halves = draw_pairs(export, 0, 1), [draw_pairs(export, rank, 2) for rank in range(2)]
    assert torch.cat([half.target for half in halves]).tolist() == whole.target.tolist()
    chosen = torch.cat([half.pictures.noise[:4] for half in halves])
    torch.testing.assert_close(chosen, whole.pictures.noise[:8], rtol=0, atol=0)


@pytest.mark.parametrize(("is_balanced", "share"), [(True, 1 / 2), (False, 1 / 10)])
def test_groups_are_drawn_equally_or_by_their_pairs(is_balanced, share):
    """One group has one pair of ten. Of 2,000 draws its share deviates by 0.011 at most: 4 deviations are 0.045."""
    pairs = pd.DataFrame({"group_index": [7] + [3] * 9, "row": range(10)})
    drawn = drawn_pairs(pairs, [np.random.default_rng((0, number)) for number in range(2000)], is_balanced)
    assert (drawn.group_index == 7).mean() == pytest.approx(share, abs=0.045)
    others = drawn[drawn.group_index == 3].row.value_counts(normalize=True)
    assert len(others) == 9
    assert others.to_numpy() == pytest.approx(1 / 9, abs=0.045)


def test_other_steps_draw_otherwise(export):
    assert not torch.equal(draw(export, 0, 1, step=3).pictures.noise, draw(export, 0, 1, step=4).pictures.noise)


def test_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="cannot be shared equally by 3"):
        BatchKey.of_rank(0, 0, 8, 0, 3)


def test_noise_and_time_are_shared_within_a_pair_and_not_across_pairs(export):
    pictures = draw_pairs(export, 0, 1).pictures
    torch.testing.assert_close(pictures.noise[:8], pictures.noise[8:], rtol=0, atol=0)
    torch.testing.assert_close(pictures.time[:8], pictures.time[8:], rtol=0, atol=0)
    assert not torch.equal(pictures.images[:8], pictures.images[8:])
    assert len(torch.unique(pictures.noise[:8, 0, 0, 0])) == 8


def test_sampling_weight_is_followed(export):
    examples = export.examples.head(3).assign(sampling_weight=[0.0, 1.0, 3.0])
    key = BatchKey(0, 0, range(400))
    batch = draw_generation_batch(export, examples, key, Dropout(), lambda uniform: uniform)
    third = torch.tensor(export.images[examples.creative_index.iloc[2]]).movedim(-1, 0)
    share = np.mean([torch.equal(image, third) for image in batch.pictures.images])
    assert 0.67 < share < 0.83


def test_dropout_hides_titles_and_groups_independently(export):
    batches = [draw(export, 0, 1, step).condition for step in range(60)]
    no_group = torch.cat([batch.is_null_group for batch in batches]).numpy()
    no_title = np.array([title == "" for batch in batches for title in batch.titles])
    assert 0.24 < no_group.mean() < 0.36
    assert 0.24 < no_title.mean() < 0.36
    assert 0.05 < (no_group & no_title).mean() < 0.14


def test_global_pairs_are_the_roots_and_shuffled_pairs_keep_their_scope(export):
    assert pairs_of_split(export, DpoConfig(pair_groups="null"), "train").is_scope_root.all()
    own, shuffled = (pairs_of_split(export, DpoConfig(pair_groups=kind), "train") for kind in ("own", "shuffled"))
    assert (own.group_index != shuffled.group_index).any()
    assert (export.groups.scope.iloc[shuffled.group_index].to_numpy() == own.scope.to_numpy()).all()


def test_strength_label_is_the_bradley_terry_share(export):
    pairs = pairs_of_split(export, DpoConfig(label="strength"), "train")
    chosen, rejected = np.exp(pairs.log_rate_ratio), 1.0
    np.testing.assert_allclose(pairs.target, chosen / (chosen + rejected))


def compared(export, *, seen, sure):
    """Pairs of split train where groups saw creatives at these lifts, and these pairs are sure.

    Args:
        export: whose groups, creatives and products are taken.
        seen: (group, creative, lift).
        sure: (group, chosen, rejected, log rate ratio).
    """
    groups, creatives = export.groups, export.creatives
    examples = pd.DataFrame(seen, columns=["group_index", "creative_index", "log_rate_lift"]).assign(split="train")
    examples["product_index"] = creatives.product_index.to_numpy()[examples.creative_index]
    pairs = pd.DataFrame(sure, columns=["group_index", "chosen_index", "rejected_index", "log_rate_ratio"])
    pairs = pairs.assign(split="train", chosen_better_probability=0.95, is_contradiction=False)
    pairs["product_index"] = creatives.product_index.to_numpy()[pairs.chosen_index]
    pairs["is_scope_root"] = groups.is_scope_root.to_numpy()[pairs.group_index]
    pairs["scope"] = groups.scope.to_numpy()[pairs.group_index]
    return replace(export, examples=examples, pairs=pairs)


def triples(pairs):
    return [tuple(row) for row in pairs[["group_index", "chosen_index", "rejected_index"]].itertuples(index=False)]


def test_unsure_pairs_by_hand(export):
    """Creatives 0 to 3 are of one product, 4 of another; groups 0 and 2 are of one scope."""
    seen = [(0, 0, 0.1), (0, 1, 0.4), (0, 2, 0.1), (0, 4, 0.9), (2, 0, -0.3), (2, 3, 0.0)]
    own = compared(export, seen=seen, sure=[(0, 1, 0, 0.3), (2, 3, 0, 0.3)])
    pairs = pairs_of_split(own, DpoConfig(), "train")
    assert triples(pairs) == [(0, 1, 0), (2, 3, 0), (0, 0, 2), (0, 1, 2)]  # the sure ones, an equal one, a lead
    np.testing.assert_allclose(pairs.target, 1 / (1 + np.exp([-0.3, -0.3, 0.0, -0.3])))
    assert (pairs.split == "train").all()
    assert pairs.scope.tolist() == [export.groups.scope[0]] * 4
    assert triples(pairs_of_split(own, DpoConfig(has_unsure_pairs=False), "train")) == [(0, 1, 0), (2, 3, 0)]


def test_unsure_pair_is_left_out_where_a_sure_one_says_otherwise(export):
    """Ready-made pairs need not follow the rates."""
    both = compared(export, seen=[(0, 0, 0.1), (0, 1, 0.4)], sure=[(0, 0, 1, 0.2), (2, 1, 0, 0.2)])
    assert triples(pairs_of_split(both, DpoConfig(), "train")) == [(0, 0, 1), (2, 1, 0)]


def test_groups_speak_for_their_scope_root(export):
    root = int(np.flatnonzero(export.groups.is_scope_root & (export.groups.scope == export.groups.scope[0]))[0])
    seen = [(0, 0, 0.1), (0, 1, 0.4), (0, 2, 0.2), (2, 0, 0.5), (2, 1, 0.0)]
    both = compared(export, seen=seen, sure=[(root, 2, 0, 0.3)])
    pairs = pairs_of_split(both, DpoConfig(pair_groups="null"), "train")
    assert triples(pairs) == [(root, 2, 0), (root, 1, 0), (root, 1, 2), (root, 0, 1)]
    assert pairs.is_scope_root.all()


def test_held_out_pairs_are_all_sure(export):
    validation = pairs_of_split(export, DpoConfig(), "validation")
    assert len(validation) == ((export.pairs.split == "validation") & ~export.pairs.is_scope_root).sum()


def test_export_without_such_pairs_is_refused(export):
    with pytest.raises(ValueError, match="no groups' pairs of split nowhere"):
        pairs_of_split(export, DpoConfig(), "nowhere")


def with_pairs(export, **columns):
    return replace(export, pairs=export.pairs.assign(**columns))


def test_pairs_of_one_group_alone_are_refused(export):
    with pytest.raises(ValueError, match="speak for one group"):
        pairs_of_split(with_pairs(export, group_index=0), DpoConfig(), "train")
    assert len(pairs_of_split(with_pairs(export, group_index=0), DpoConfig(pair_groups="null"), "train"))


@pytest.mark.parametrize(
    ("label", "tied"), [("probability", {"chosen_better_probability": 0.5}), ("strength", {"log_rate_ratio": 0.0})]
)
def test_pairs_that_are_all_tied_are_refused(export, label, tied):
    with pytest.raises(ValueError, match=f"all pairs of split train are tied: by their {label}"):
        pairs_of_split(with_pairs(export, **tied), DpoConfig(label=label, has_unsure_pairs=False), "train")
    chosen_only = DpoConfig(label=label, has_unsure_pairs=False, preference_weight=0.0)
    assert len(pairs_of_split(with_pairs(export, **tied), chosen_only, "train"))


@pytest.mark.parametrize(
    ("label", "column"), [("probability", "chosen_better_probability"), ("strength", "log_rate_ratio")]
)
def test_label_that_is_no_share_is_refused(export, label, column):
    with pytest.raises(ValueError, match=rf"{label} label is no number in \[0, 1\]"):
        pairs_of_split(with_pairs(export, **{column: np.nan}), DpoConfig(label=label, has_unsure_pairs=False), "train")


def test_want_of_pictures_is_told_where_no_pair_is_left(export):
    left = replace(export, pairs=export.pairs.head(0), num_pairs_without_picture=7)
    with pytest.raises(ValueError, match=r"no groups' pairs of split train with pictures \(7 pairs lack"):
        pairs_of_split(left, DpoConfig(), "train")


def some_pairs(*rows):
    names = ["scope", "chosen_index", "rejected_index", "group_index", "target"]
    return pd.DataFrame(rows, columns=names)


def test_contradicting_group_has_the_same_two_creatives_the_other_way_round():
    pairs = some_pairs(
        ("shoes", 1, 2, 0, 0.9),
        ("shoes", 2, 1, 5, 0.8),  # contradicts the first
        ("lamps", 2, 1, 6, 0.7),  # of another scope
        ("shoes", 1, 3, 0, 0.9),  # another picture
    )
    found = with_contrast(pairs, seed=0)
    assert found.contrast_group_index.tolist() == [5, 0, -1, -1]
    assert found.contrast_target.tolist() == [0.8, 0.9, 0.5, 0.5]
    assert found[pairs.columns].equals(pairs)


def test_one_of_several_contradicting_groups_is_drawn():
    pairs = some_pairs(*[("shoes", 1, 2, 0, 0.9)] * 100, ("shoes", 2, 1, 5, 0.8), ("shoes", 2, 1, 6, 0.8))
    drawn = with_contrast(pairs, seed=0).contrast_group_index.head(100)
    assert 30 < (drawn == 5).sum() < 70
    assert set(drawn) == {5, 6}


def test_contrast_without_contradictions_is_refused():
    with pytest.raises(ValueError, match="no pair of split train is contradicted"):
        with_contrast(some_pairs(("shoes", 1, 2, 0, 0.9)), seed=0)


def test_contrast_changes_no_draw(export):
    key = BatchKey.of_rank(0, 3, 8, 0, 1)
    plain, contrasted = (
        draw_pair_batch(
            export, pairs_of_split(export, DpoConfig(contrast_weight=w), "train"), key, Dropout(), lambda u: u, True
        )
        for w in (0.0, 1.0)
    )
    assert plain.contrast is None
    assert torch.equal(plain.pictures.noise, contrasted.pictures.noise)
    assert torch.equal(plain.group_index, contrasted.group_index)
