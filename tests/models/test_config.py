import pytest

from osmf_models.overrides import apply_overrides
from osmf_models.recipes import RECIPES, load_recipe


def test_override_replaces_one_nested_field_and_nothing_else():
    config = load_recipe("tiny")
    changed = apply_overrides(config, ["dpo.training.num_steps=3", "dpo.beta=50", "zero.precision=bf16"])
    assert (changed.dpo.training.num_steps, changed.dpo.beta, changed.zero.precision) == (3, 50.0, "bf16")
    assert changed.pretraining == config.pretraining
    assert isinstance(changed.dpo.beta, float)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("dpo.bta=1", "no field 'bta'.*known: training, beta"),
        ("dop.beta=1", "no field 'dop'"),
        ("dpo=1", "names a section"),
        ("dpo.beta.x=1", "is a value"),
        ("dpo.beta", "not of the form"),
        ("dpo.beta=high", "expected a value of type float"),
        ("dpo.training.num_steps=1.5", "expected a value of type int"),
        ("dpo.is_group_balanced=1", "expected a value of type bool"),
        ("data.held_out_groups=g", "expected a list of texts"),
        ("data.held_out_groups=[1]", "expected a list of texts"),
        ("dpo.label=share", "expected one of probability, strength"),
        ("zero.stage=4", "expected one of 0, 1, 2, 3"),
    ],
)
def test_wrong_override_is_one_clear_error(assignment, message):
    with pytest.raises(ValueError, match=message):
        apply_overrides(load_recipe("tiny"), [assignment])


def test_unknown_recipe_names_the_known_ones():
    with pytest.raises(ValueError, match="no recipe 'huge'; known: tiny, demo"):
        load_recipe("huge")


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_knows_its_name(name):
    assert load_recipe(name).recipe == name
