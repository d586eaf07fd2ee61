"""Lifts as the group reward model predicts them, beside the true ones: would a team without the truth choose right?

Both are logarithms of an arm's click rate over that of the logged pictures of the same product for the same group, a
mean over products inside a group, then over groups. Only differences of scores of one product and group mean anything,
and these are differences. True click rates belong in `simulated_ctr.py`.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from osmf_models.data.dataset import TrainingExport
from osmf_models.evaluation.arms import RANDOM, DrawnCase
from osmf_models.evaluation.summary import paired_difference
from osmf_models.model.group_reward import GroupReward
from osmf_models.records import RUN_RECORD_NAME

_LEAST_RATE = 1e-4  # a picture so broken that nobody clicks it has no logarithm
_COLUMNS = {"predicted_log_lift": "predicted_log_rate", "true_log_lift": "true_log_rate"}


@dataclass(frozen=True)
class RewardJudge:
    """A trained reward model; `artifact_sha256` is the hash over its files."""

    model: GroupReward
    artifact_sha256: str

    @classmethod
    def read(cls, folder: Path, export: TrainingExport) -> RewardJudge:
        """Returns the model of a finished stage `group_reward`.

        Raises:
            ValueError: when the stage has not finished, or was fitted to other group features or another picture size.
        """
        path = folder / RUN_RECORD_NAME
        if not path.is_file():
            raise ValueError(f"{folder} holds no finished run (no {RUN_RECORD_NAME}).")
        model = GroupReward.from_pretrained(folder / "model", local_files_only=True)
        if tuple(model.config["feature_names"]) != export.manifest.group_feature_names:
            raise ValueError(f"{folder} was fitted to other group features than the export's: fit it again.")
        if model.config["image_px"] != export.manifest.image_px:
            raise ValueError(f"{folder} knows {model.config['image_px']} px, the export holds another size.")
        return cls(model, str(json.loads(path.read_text())["artifact_sha256"]))

    def log_rate(self, export: TrainingExport, case: DrawnCase) -> float:
        """Returns the log of the mean predicted click rate of a case's pictures, up to a constant of its product."""
        cutout = export.cutouts[case.product_index][..., 3]
        masks = np.broadcast_to(cutout, case.images.shape[:3]) if case.masks is None else case.masks
        group = int(np.flatnonzero(export.groups.group_id == case.group.group_id)[0])
        features = np.repeat(export.raw_group_features[group][None], len(case.images), axis=0)
        scores = self.model.score_pictures(case.images, masks, features)
        return float(np.logaddexp.reduce(scores) - np.log(len(scores)))


def with_log_rates(judgements: pd.DataFrame) -> pd.DataFrame:
    """Returns judgements with true_log_rate, predicted_log_lift and true_log_lift.

    Lifts are over the logged pictures of the same product and group; products without logged pictures are left out.
    """
    rated = judgements.assign(true_log_rate=np.log(judgements.true_ctr_rate.clip(lower=_LEAST_RATE)))
    keys = ["scope", "group_id", "product_id"]
    logged = rated[rated.arm == RANDOM].set_index(keys)[list(_COLUMNS.values())]
    rated = rated.join(logged, on=keys, rsuffix="_logged", how="inner")
    return rated.assign(**{lift: rated[column] - rated[f"{column}_logged"] for lift, column in _COLUMNS.items()})


def lifts_by_group(judgements: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per (arm, group): arm, scope, group_id, predicted_log_lift, true_log_lift."""
    keys = ["arm", "scope", "group_id"]
    return with_log_rates(judgements).groupby(keys, as_index=False, sort=False)[list(_COLUMNS)].mean()


def predicted_lifts(judgements: pd.DataFrame, models: list[str]) -> dict[str, float]:
    """Returns the predicted_log_lift of each model with its 95% interval, and of each over those before it.

    Args:
        judgements: as `summary.py` describes them, with predictions; true rates may be missing.
        models: names of the models' arms.

    Returns:
        `ARM/predicted_log_lift` and `ARM_minus_BEFORE/predicted_log_lift`, with `_low` and `_high` ends (bootstrap over
        products).
    """
    rated = with_log_rates(judgements)
    metrics: dict[str, float] = {}
    compared = [(arm, RANDOM, arm) for arm in models]
    compared += [(arm, before, f"{arm}_minus_{before}") for before, arm in itertools.combinations(models, 2)]
    for arm, baseline, told in compared:
        lift, low, high = paired_difference(rated, arm, baseline, column="predicted_log_rate")
        name = f"{told}/predicted_log_lift"
        metrics |= {name: lift, f"{name}_low": low, f"{name}_high": high}
    return metrics


def agreement(judgements: pd.DataFrame, models: list[str]) -> dict[str, float]:
    """Returns how the predictions agree with the truth, arguments as `predicted_lifts`.

    Returns:
        `ARM/true_log_lift` per model; `reward/lift_correlation` over the models' groups (0 where one of the two does
        not vary); `reward/is_right_choice`, 1 where the model with the largest predicted lift has the largest true one;
        `reward/lost_log_lift`, what choosing by prediction costs.
    """
    groups = lifts_by_group(judgements)
    means = groups.groupby("arm")[list(_COLUMNS)].mean().loc[models]
    chosen, best = (means[column].idxmax() for column in _COLUMNS)
    return {
        **{f"{arm}/true_log_lift": float(means.true_log_lift[arm]) for arm in models},
        "reward/lift_correlation": _correlation(groups[groups.arm.isin(models)]),
        "reward/is_right_choice": float(chosen == best),
        "reward/lost_log_lift": float(means.true_log_lift[best] - means.true_log_lift[chosen]),
    }


def _correlation(groups: pd.DataFrame) -> float:
    predicted, true = (groups[name].to_numpy() for name in _COLUMNS)
    if min(predicted.std(), true.std()) == 0.0:
        return 0.0
    return float(np.corrcoef(predicted, true)[0, 1])
