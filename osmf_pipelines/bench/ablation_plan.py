"""What `osmf ablate` trains and judges: the arms, and a folder for each that its configuration names.

Running them belongs in `run_ablation.py`, figures in `ablation_report.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from osmf_models.config import DpoConfig, RunConfig
from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe

PRETRAINED, RECIPE, GLOBAL = "pretrained", "group_dpo", "global_dpo"
CONTROLS = (GLOBAL, "chosen_only", "shuffled_dpo")
_SAFEGUARD = 0.6  # mu of Diffusion-SDPO's experiments
_LABELS = ("strength", "probability")
# What errors of pictures need, whose scale is another than that of looks: multiplier and anchor of trials.
_PICTURES = {"beta": 100.0, "anchor_weight": 5.0}


@dataclass(frozen=True)
class Arm:
    """One model to compare.

    Attributes:
        name: of the arm.
        changes: fields of `DpoConfig` that differ from the recipe's, and their values.
    """

    name: str
    changes: dict[str, Any]

    @property
    def assignments(self) -> list[str]:
        """The changes as `--set` takes them."""
        return [
            f"dpo.{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in self.changes.items()
        ]


@dataclass(frozen=True)
class TrainedArm:
    """A training to be run, or found: one arm with one seed.

    Attributes:
        arm: which.
        stage: that trains it.
        assignments: everything that differs from the recipe, for `--set`.
        config: the recipe with them.
    """

    arm: Arm
    stage: str
    assignments: tuple[str, ...]
    config: RunConfig

    def folder(self, root: Path, *made_of: str) -> Path:
        """Returns where its run lies: another configuration, or other inputs by their hashes, is another folder."""
        parts = ("model", "data", "zero", "pretraining" if self.stage == "pretrain" else "dpo")
        fields = {name: asdict(self.config)[name] for name in parts}
        return root / f"{self.arm.name}-{fingerprint(self.stage, fields, *made_of)}"


def arms_of(dpo: DpoConfig) -> list[Arm]:
    """Returns the arms of a recipe: pretrained, the recipe itself, its switches turned one by one, and the controls.

    A switch that the recipe has on is turned off, and the other way round.
    """
    label = next(value for value in _LABELS if value != dpo.label)
    spaces = (
        [
            Arm("clean_error", {"error_space": "clean", **_PICTURES}),
            Arm("clean_error_even_times", {"error_space": "clean", "time_power": 1.0, **_PICTURES}),
            Arm("velocity_error", {"error_space": "velocity", **_PICTURES}),
        ]
        if dpo.error_space == "look"
        else [Arm("look_error", {"error_space": "look"})]
    )
    safeguard = {"rejected_safeguard": 0.0 if dpo.rejected_safeguard else _SAFEGUARD}
    contrast = {"contrast_weight": 0.0 if dpo.contrast_weight else 1.0}
    anchor = (
        [Arm("no_anchor", {"anchor_weight": 0.0}), Arm("anchor_x2", {"anchor_weight": 2.0 * dpo.anchor_weight})]
        if dpo.anchor_weight
        else [Arm("anchor", {"anchor_weight": 0.2})]
    )
    without = {"contrast_weight": 0.0}  # it needs each pair's own group, and the preference loss beside it
    sure = {"has_unsure_pairs": False}  # evidence alone is known of others, and a choice between equals teaches nothing
    chosen_only = {"preference_weight": 0.0, "anchor_weight": dpo.anchor_weight or 1.0, **without, **sure}
    arms = [
        Arm(PRETRAINED, {}),
        Arm(RECIPE, {}),
        Arm(f"{label}_label", {"label": label, **sure}),
        Arm("sure_pairs" if dpo.has_unsure_pairs else "unsure_pairs", {"has_unsure_pairs": not dpo.has_unsure_pairs}),
        Arm(
            "groups_by_size" if dpo.is_group_balanced else "equal_groups",
            {"is_group_balanced": not dpo.is_group_balanced},
        ),
        *spaces,
        *anchor,
        Arm("no_safeguard" if dpo.rejected_safeguard else "safeguard", safeguard),
        Arm("no_contrast" if dpo.contrast_weight else "contrast", contrast),
        Arm("beta_div4", {"beta": dpo.beta / 4.0}),
        Arm("beta_x4", {"beta": dpo.beta * 4.0}),
        Arm("chosen_only", chosen_only),
        Arm("shuffled_dpo", {"pair_groups": "shuffled", **without}),
        Arm(GLOBAL, {"pair_groups": "null", **without}),
    ]
    # Told are true changes alone.
    return [replace(arm, changes={k: v for k, v in arm.changes.items() if getattr(dpo, k) != v}) for arm in arms]


def chosen_arms(dpo: DpoConfig, names: Sequence[str]) -> list[Arm]:
    """Returns the arms of these names, all without any; pretrained and the recipe are always among them.

    Raises:
        ValueError: when there is no such arm.
    """
    arms = arms_of(dpo)
    unknown = sorted(set(names) - {arm.name for arm in arms})
    if unknown:
        raise ValueError(f"no arm {unknown[0]!r}; of this recipe there are: {', '.join(arm.name for arm in arms)}.")
    return [arm for arm in arms if not names or arm.name in (PRETRAINED, RECIPE, *names)]


def trained_arm(recipe: str, overrides: Sequence[str], arm: Arm, seed: int) -> TrainedArm:
    """Returns the training of an arm; the seed is that of pretraining and of preference optimisation.

    Raises:
        ValueError: when an override is wrong, or the objective does not hold together.
    """
    assignments = (*overrides, f"pretraining.training.seed={seed}", f"dpo.training.seed={seed}", *arm.assignments)
    config = apply_overrides(load_recipe(recipe), assignments)
    config.dpo.check()
    stage = "pretrain" if arm.name == PRETRAINED else "group_dpo"
    return TrainedArm(arm, stage, assignments, config)


def fingerprint(*parts: Any) -> str:
    """Returns 12 hex digits over values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def matching_pretrained(folders: Sequence[Path], wanted: RunConfig, data_hash: str) -> Path | None:
    """Returns the first of finished pretrainings' folders that was made as `wanted` and from this export, or None.

    How the work was spread over processes is not looked at; precision is.
    """
    needed = {name: asdict(wanted)[name] for name in ("model", "data", "pretraining")}
    for folder in folders:
        path = folder / "run.json"
        record = json.loads(path.read_text()) if path.is_file() else {}
        config = record.get("config", {})
        is_same = all(_plain(config.get(name)) == _plain(value) for name, value in needed.items())
        has_precision = config.get("zero", {}).get("precision") == wanted.zero.precision
        if record.get("stage") == "pretrain" and record["data_hash"] == data_hash and is_same and has_precision:
            return folder
    return None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
