"""Which arms there are, what each changes, and which folder its run has."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from osmf_models.recipes import RECIPES, load_recipe
from osmf_pipelines.bench.ablation_plan import (
    CONTROLS,
    PRETRAINED,
    RECIPE,
    arms_of,
    chosen_arms,
    matching_pretrained,
    trained_arm,
)

DPO = load_recipe("demo").dpo


def by_name(dpo=DPO):
    return {arm.name: arm for arm in arms_of(dpo)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_arm_changes_what_it_names_and_nothing_else(recipe: str) -> None:
    plain = trained_arm(recipe, [], by_name(load_recipe(recipe).dpo)[RECIPE], 3).config
    for arm in arms_of(load_recipe(recipe).dpo):
        config = trained_arm(recipe, [], arm, 3).config
        assert config == replace(plain, dpo=replace(plain.dpo, **arm.changes))
        assert (arm.name in (PRETRAINED, RECIPE)) == (config == plain)
        assert (config.dpo.training.seed, config.pretraining.training.seed) == (3, 3)


def test_switches_by_hand() -> None:
    arms = by_name(replace(DPO, beta=400.0, anchor_weight=20.0, error_space="look"))
    assert arms["probability_label"].changes == {"label": "probability", "has_unsure_pairs": False}
    assert arms["sure_pairs"].changes == {"has_unsure_pairs": False}
    evidence = by_name(replace(DPO, label="probability", has_unsure_pairs=False))
    assert evidence["strength_label"].changes == {"label": "strength"}
    assert evidence["unsure_pairs"].changes == {"has_unsure_pairs": True}
    assert arms["clean_error"].changes == {"error_space": "clean", "beta": 100.0, "anchor_weight": 5.0}
    assert arms["clean_error_even_times"].changes["time_power"] == 1.0
    assert arms["velocity_error"].changes["error_space"] == "velocity"
    assert arms["equal_groups"].changes == {"is_group_balanced": True}
    assert (arms["beta_div4"].changes["beta"], arms["beta_x4"].changes["beta"]) == (100.0, 1600.0)
    assert (arms["no_anchor"].changes["anchor_weight"], arms["anchor_x2"].changes["anchor_weight"]) == (0.0, 40.0)
    assert set(CONTROLS) < arms.keys()


def test_what_a_recipe_has_on_is_turned_off() -> None:
    arms = by_name(replace(DPO, rejected_safeguard=0.5, contrast_weight=2.0, anchor_weight=0.0))
    assert by_name(replace(DPO, error_space="clean"))["look_error"].changes == {"error_space": "look"}
    assert by_name(replace(DPO, is_group_balanced=True))["groups_by_size"].changes == {"is_group_balanced": False}
    assert arms["no_safeguard"].changes == {"rejected_safeguard": 0.0}
    assert arms["no_contrast"].changes == {"contrast_weight": 0.0}
    assert arms["anchor"].changes["anchor_weight"] > 0.0
    assert arms["chosen_only"].changes["anchor_weight"] > 0.0
    for name in CONTROLS:
        assert arms[name].changes["contrast_weight"] == 0.0


def test_pretrained_and_recipe_are_always_there_and_others_by_name() -> None:
    assert [arm.name for arm in chosen_arms(DPO, ["global_dpo"])] == [PRETRAINED, RECIPE, "global_dpo"]
    assert chosen_arms(DPO, []) == arms_of(DPO)
    with pytest.raises(ValueError, match=r"no arm 'velocety'.* pretrained, group_dpo"):
        chosen_arms(DPO, ["velocety"])


def test_a_folder_is_named_by_configuration_and_inputs(tmp_path: Path) -> None:
    arms = by_name()

    def folder(name: str, seed: int = 0, *made_of: str, overrides: tuple[str, ...] = ()) -> Path:
        return trained_arm("demo", overrides, arms[name], seed).folder(tmp_path, *(made_of or ("data", "pretrained")))

    assert folder(RECIPE) == folder(RECIPE)
    others = [
        folder(RECIPE, 1),
        folder(RECIPE, 0, "other data", "pretrained"),
        folder(RECIPE, 0, "data", "other pretrained"),
        folder(RECIPE, overrides=("dpo.beta=1",)),
        folder("beta_x4"),
    ]
    assert len({folder(RECIPE), *others}) == 6
    # What is not of the stage, or is not learned from, makes no other run.
    assert folder(PRETRAINED, overrides=("dpo.beta=1",)) == folder(PRETRAINED)
    assert folder(RECIPE, overrides=("execution.is_compiled=true",)) == folder(RECIPE)


def test_a_pretraining_is_taken_over_only_where_it_is_the_same(tmp_path: Path) -> None:
    wanted = trained_arm("demo", [], by_name()[PRETRAINED], 0).config

    def write(name: str, **changes: object) -> Path:
        record = {"stage": "pretrain", "data_hash": "d", "config": asdict(wanted)} | changes
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(record))
        return tmp_path / name

    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    other_seed = trained_arm("demo", [], by_name()[PRETRAINED], 1).config
    refused = [
        unfinished,
        write("other_seed", config=asdict(other_seed)),
        write("other_data", data_hash="e"),
        write("other_precision", config=asdict(wanted) | {"zero": {"stage": 1, "precision": "bf16"}}),
    ]
    same = write("same", config=asdict(wanted) | {"zero": {"stage": 3, "precision": "fp32"}})
    assert matching_pretrained(refused, wanted, "d") is None
    assert matching_pretrained([*refused, same], wanted, "d") == same
