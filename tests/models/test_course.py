"""What a checkpoint must agree with, beside the optimisation, to be gone on from."""

import json

import pytest

from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.training.course import course_of


def course(section: str, *changes: str, data_hash: str = "d") -> dict:
    return course_of(apply_overrides(load_recipe("tiny"), changes), section, data_hash)


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("pretraining", "pretraining.comprehension_weight=1.0"),
        ("pretraining", "pretraining.choice_batch_size=8"),
        ("pretraining", "data.text_dropout=0.5"),
        ("pretraining", "model.num_heads=1"),
        ("dpo", "dpo.beta=3.0"),
        ("dpo", "dpo.label=probability"),
        ("dpo", "data.group_dropout=0.5"),
        ("dpo", 'data.held_out_groups=["g"]'),
    ],
)
def test_what_is_learned_is_compared(section, change):
    name = change.partition("=")[0]
    before, after = course(section), course(section, change)
    assert {key for key in before if before[key] != after[key]} == {name}
    assert before.keys() == after.keys()
    assert json.loads(json.dumps(after)) == after


def test_data_is_compared():
    assert course("dpo")["data_hash"] == "d"
    assert course("dpo", data_hash="e") != course("dpo")


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("pretraining", "pretraining.num_grid_rows=9"),
        ("pretraining", "pretraining.num_samplings=9"),
        ("pretraining", "pretraining.training.learning_rate=1.0"),
        ("pretraining", "dpo.beta=3.0"),
        ("pretraining", "data.num_batches_ahead=3"),
        ("dpo", "dpo.patience=3"),
        ("dpo", "zero.stage=3"),
    ],
)
def test_what_is_shown_or_compared_elsewhere_is_free(section, change):
    assert course(section, change) == course(section)
