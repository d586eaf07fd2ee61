"""The controls beside the models: what each is trained to, and that the quick job goes without them."""

from __future__ import annotations

import pytest

from osmf_models.overrides import apply_overrides
from osmf_models.recipes import RECIPES
from osmf_pipelines.assets.models import CONTROLS
from osmf_pipelines.definitions import build_defs
from osmf_pipelines.settings import Settings


def _assets_of(job: str) -> set[str]:
    resolved = build_defs(Settings()).resolve_job_def(job)
    return {key.path[-1] for key in resolved.asset_layer.executable_asset_keys}


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_control_takes_one_thing_away(recipe: str) -> None:
    plain = RECIPES[recipe]().dpo
    configs = {name: apply_overrides(RECIPES[recipe](), flags[1::2]).dpo for name, flags in CONTROLS.items()}
    for config in configs.values():
        config.check()
        assert config.contrast_weight == 0.0
        assert config.training == plain.training
    chosen_only, shuffled = configs["chosen_only_model"], configs["shuffled_dpo_model"]
    assert (chosen_only.preference_weight, chosen_only.pair_groups) == (0.0, "own")
    assert (shuffled.preference_weight, shuffled.pair_groups) == (plain.preference_weight, "shuffled")


def test_the_quick_job_trains_no_control_and_the_other_judges_them() -> None:
    assert not _assets_of("train_and_evaluate") & CONTROLS.keys()
    assert _assets_of("train_controls") == {*CONTROLS, "evaluation_report", "report_page"}
