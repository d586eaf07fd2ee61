"""What the implicit rewards of preference-trained models say of held-out pairs, which come from logs: no truth is read.

A policy's implicit reward of a picture is by how much it foresees it better than its reference does. Each arm is asked
about the same pairs, at the same draws of noise and time. The formula of a margin belongs in
`objectives/group_preference.py`, which pairs contradict each other in `contradictions.py`.

Shapes: `B` pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from osmf_models.config import DpoConfig, TrainingConfig
from osmf_models.data.dataset import TrainingExport
from osmf_models.data.pairs import pairs_of_split, shuffled_groups
from osmf_models.evaluation.arms import ModelArm
from osmf_models.evaluation.contradictions import (
    CONTRADICTION_COLUMNS,
    contradictions,
    evenly_spread,
    resampled_accuracy,
    right_shares,
)
from osmf_models.evaluation.resampling import Estimate
from osmf_models.evaluation.simulated_ctr import JUDGED_SPLITS
from osmf_models.model.gmllm import GMllm
from osmf_models.objectives.group_preference import reward_margins
from osmf_models.objectives.group_reward import CalibrationBin, calibration_bins, calibration_error
from osmf_models.records import REFERENCE_NAME, RUN_RECORD_NAME
from osmf_models.training import zero
from osmf_models.training.load_model import load_gmllm
from osmf_models.training.pair_errors import judge_pairs
from osmf_models.training.reward_figures import resampled_accuracies, with_interval

_SEED = 0  # of shuffled groups and of resampled products, the same for all arms
_MARKET = "evaluation"


@dataclass(frozen=True)
class AskedPairs:
    """How many held-out pairs an implicit reward is asked about, at most; evenly spread over all that there are.

    Attributes:
        num_pairs: for pair accuracy and calibration.
        num_contradictions: of two pairs each.
    """

    num_pairs: int = 256
    num_contradictions: int = 128


@dataclass(frozen=True)
class ImplicitReward:
    """A trained policy and its reference, both in evaluation mode, and the objective that it was trained with."""

    policy: GMllm
    reference: GMllm
    dpo: DpoConfig

    @classmethod
    def read(cls, folder: Path, pretrained: Path, export: TrainingExport) -> ImplicitReward:
        """Returns the implicit reward of a finished preference optimisation.

        Args:
            folder: output of stage group_dpo.
            pretrained: output of stage pretrain, from which it began.
            export: whose pairs it is asked about.

        Raises:
            ValueError: when a model is for other group features or another picture size than the export's.
        """
        policy, reference = (load_gmllm(one / "model", export).to(zero.device()).eval() for one in (folder, pretrained))
        return cls(policy, reference, dpo_of_run(folder))

    def margins(self, export: TrainingExport, pairs: pd.DataFrame) -> Tensor:
        """Returns how much more than its reference the policy prefers each chosen picture, (B,); B may be 0.

        The draws of noise and time depend on the pairs' places.
        """
        if pairs.empty:
            return torch.zeros(0)
        policy, reference = (judge_pairs(model, export, pairs, self.dpo) for model in (self.policy, self.reference))
        return reward_margins(policy, reference, self.dpo.beta)


@dataclass(frozen=True)
class JudgedReward:
    """What held-out pairs say of an implicit reward.

    Attributes:
        metrics: `num_pairs`; `pair_accuracy`, mean over groups; `calibration_error`; `num_contradictions`;
            `contradiction_accuracy`; `shuffled_contradiction_accuracy`, the same when each pair is asked about for a
            group of its scope drawn afresh; accuracies with `_low` and `_high` ends of a 95% interval, by bootstrap
            over products within their scope. Without pairs or contradictions only their number.
        calibration: bins of how sure it is of its order, against the label that the model was trained on.
        contradictions: one row each, CONTRADICTION_COLUMNS.
    """

    metrics: dict[str, float]
    calibration: list[CalibrationBin]
    contradictions: pd.DataFrame

    def told(self) -> dict[str, Any]:
        """Returns metrics and bins as JSON holds them."""
        return {**self.metrics, "calibration": [asdict(one) for one in self.calibration]}


def judge_rewards(
    arms: Sequence[ModelArm], export: TrainingExport, asked: AskedPairs
) -> dict[str, JudgedReward | None]:
    """Returns what held-out pairs say of each arm's implicit reward, by arm.

    None for an arm that has none: one that was not trained on preferences, or whose reference is not among the arms.
    """
    folders = {arm.artifact_sha256: arm.folder for arm in arms}
    judged: dict[str, JudgedReward | None] = {}
    for arm in arms:
        pretrained = folders.get(reference_sha256(arm.folder) or "")
        judged[arm.name] = (
            judge_reward(ImplicitReward.read(arm.folder, pretrained, export), export, asked) if pretrained else None
        )
    return judged


def judge_reward(reward: ImplicitReward, export: TrainingExport, asked: AskedPairs) -> JudgedReward:
    """Returns what held-out pairs say of one implicit reward.

    Accuracies are over the groups' pairs, also for a model that was trained on those of scope roots: it is asked under
    the null group. Calibration is over pairs of the kind that it was trained on, because the label is theirs.
    """
    pairs = held_out_rows(export, replace(reward.dpo, pair_groups="own", contrast_weight=0.0))
    rows = evenly_spread(pairs, asked.num_pairs)
    margins = reward.margins(export, rows)
    metrics = pair_accuracy(rows, margins)
    if reward.dpo.pair_groups == "null":
        rows = evenly_spread(held_out_rows(export, reward.dpo), asked.num_pairs)
        margins = reward.margins(export, rows)
    bins = calibration_bins(margins, torch.tensor(rows.target.to_numpy()))
    if bins:
        metrics["calibration_error"] = calibration_error(bins)
    found = judge_contradictions(reward, export, pairs, asked.num_contradictions)
    metrics["num_contradictions"] = float(len(found))
    if not found.empty:
        for prefix in ("", "shuffled_"):
            resampled = resampled_accuracy(found, _MARKET, f"{prefix}right_share")
            metrics |= Estimate.of(resampled).named(f"{prefix}contradiction_accuracy")
    return JudgedReward(metrics, bins, found)


def pair_accuracy(pairs: pd.DataFrame, margins: Tensor) -> dict[str, float]:
    """Returns `num_pairs`, and `pair_accuracy` with its interval where there are any.

    Args:
        pairs: scope, product_index, group_index.
        margins: of the chosen over the rejected picture, (B,); one of 0 counts half.
    """
    metrics = {"num_pairs": float(len(pairs))}
    if pairs.empty:
        return metrics
    is_right = (np.sign(margins.double().numpy()) + 1.0) / 2.0
    by_group = pairs.assign(is_right=is_right).groupby("group_index").is_right.mean()
    resampled = np.nanmean(resampled_accuracies(pairs, is_right, _SEED), axis=1)
    return metrics | with_interval("pair_accuracy", float(by_group.mean()), resampled)


def judge_contradictions(
    reward: ImplicitReward, export: TrainingExport, pairs: pd.DataFrame, num_contradictions: int
) -> pd.DataFrame:
    """Returns which share of its two pairs a reward orders rightly, for each contradiction, CONTRADICTION_COLUMNS.

    Both pairs of a contradiction get the same draws of noise and time, so that a model without a group has margins that
    are each other's negative. Shuffled, each of them is asked about for a group of its scope drawn evenly.

    Args:
        reward: that is asked.
        export: where the pictures are.
        pairs: of groups and not of scope roots, with column `target`.
        num_contradictions: asked about, at most.
    """
    couples = evenly_spread(contradictions(pairs), num_contradictions)
    first, second = (pairs.iloc[couples[name]] for name in ("first", "second"))
    drawn = shuffled_groups(pd.concat([first, second]), export, _SEED)
    others = (first.assign(group_index=drawn[: len(first)]), second.assign(group_index=drawn[len(first) :]))
    own_share, shuffled_share = (
        right_shares(*(reward.margins(export, rows).numpy() for rows in sides)) for sides in ((first, second), others)
    )
    product_ids = export.products.product_id.to_numpy()[first.product_index.to_numpy()]
    columns = (first.scope.to_numpy(), product_ids, own_share, shuffled_share)
    return pd.DataFrame(dict(zip(CONTRADICTION_COLUMNS, columns, strict=True)))


def held_out_rows(export: TrainingExport, dpo: DpoConfig) -> pd.DataFrame:
    """Returns the pairs of held-out products that a run like `dpo` learns from, with their label as `target`."""
    is_root = export.pairs.is_scope_root == (dpo.pair_groups == "null")
    splits = [split for split in JUDGED_SPLITS if (is_root & (export.pairs.split == split)).any()]
    parts = [pairs_of_split(export, dpo, split) for split in splits]
    return pd.concat(parts, ignore_index=True) if parts else export.pairs.head(0).assign(target=0.0)


def reference_sha256(folder: Path) -> str | None:
    """Returns the hash of the model that a preference optimisation began with; None for another stage's output."""
    path = folder / REFERENCE_NAME
    return str(json.loads(path.read_text())["pretrained_sha256"]) if path.is_file() else None


def dpo_of_run(folder: Path) -> DpoConfig:
    """Returns the objective that a finished preference optimisation was trained with."""
    fields = json.loads((folder / RUN_RECORD_NAME).read_text())["config"]["dpo"]
    return DpoConfig(**{**fields, "training": TrainingConfig(**fields["training"])})
