"""Errors of a model on preference pairs, and their average over shared draws when pairs are judged.

The loss made of them belongs in `group_preference.py`, the training step in `preference_step.py`.

Shapes: `B` pairs, `P = 2B` pictures, `C H W` latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from osmf_models.config import DpoConfig
from osmf_models.data.collate import Dropout, PairBatch, collate_pairs, to_device
from osmf_models.data.dataset import TrainingExport
from osmf_models.model.gmllm import Prediction, noisy_pictures
from osmf_models.model.path import biased_time
from osmf_models.objectives.generation import scene_error_gradients, scene_errors, velocity_errors
from osmf_models.objectives.group_preference import (
    PairErrors,
    accuracy_by_group,
    reward_margins,
    safe_rejected_scale,
    soft_label_losses,
)
from osmf_models.training import zero

_PAIRS_AT_ONCE = 32


@dataclass(frozen=True)
class PredictedPairs:
    """What a model makes of both pictures of each pair.

    Attributes:
        errors: of each picture, (P,).
        gradients: of the errors by what is predicted, pictures or looks, (P, ...).
    """

    errors: Tensor
    gradients: Tensor

    def by_picture(self) -> PairErrors:
        """Returns the errors of chosen and rejected pictures."""
        return PairErrors.from_pictures(self.errors)

    def rejected_scale(self, mu: float) -> Tensor:
        """Returns the safe share of the rejected pictures' gradients, (B,)."""
        chosen, rejected = self.gradients.chunk(2)
        return safe_rejected_scale(chosen, rejected, mu)


@dataclass(frozen=True)
class EvaluatedPairs:
    """Judged pairs, (B,): errors are means over the draws; `group_index` rows of groups; `target` the soft label."""

    policy: PairErrors
    reference: PairErrors
    group_index: Tensor
    target: Tensor

    def margins(self, beta: float) -> Tensor:
        """Returns the implicit reward margins, (B,)."""
        return reward_margins(self.policy, self.reference, beta)

    def accuracy(self, beta: float) -> float:
        """Returns the share of pairs that the margins order rightly, mean over groups."""
        by_group = accuracy_by_group(self.margins(beta), self.group_index)
        return sum(by_group.values()) / len(by_group)

    def loss(self, beta: float) -> float:
        """Returns the preference loss, mean over groups."""
        losses = soft_label_losses(self.margins(beta), self.target)
        return float(torch.stack([losses[self.group_index == g].mean() for g in torch.unique(self.group_index)]).mean())


def predict_pairs(model: Callable[..., Prediction], batch: PairBatch, error_space: str) -> PredictedPairs:
    """Returns the errors of `model` on both pictures of each pair, at the noise and time that these share.

    Args:
        model: the policy, or the reference.
        batch: pairs, on its device.
        error_space: `look`, how far the pictures' looks are from what is planned for the group, for which nothing is
            drawn; or `clean` or `velocity`, of pictures drawn as planned.
    """
    if error_space == "look":
        whole: Any = getattr(model, "module", model)
        looks = whole.planner.looks(batch.pictures.images, batch.pictures.masks)  # (P, T)
        plan = model(batch.condition).plan
        return PredictedPairs(plan.deviances(looks), plan.deviance_gradients(looks).detach())
    noisy, clean = noisy_pictures(model, batch.pictures)
    predicted = model(batch.condition, noisy).clean
    assert predicted is not None  # pictures were given
    errors = scene_errors(predicted, clean, noisy.masks)
    gradients = scene_error_gradients(predicted.detach(), clean, noisy.masks)
    return PredictedPairs(velocity_errors(errors, noisy.time) if error_space == "velocity" else errors, gradients)


def pair_errors(model: Callable[..., Prediction], batch: PairBatch, error_space: str) -> PairErrors:
    """Returns the errors of chosen and rejected pictures; arguments as `predict_pairs`."""
    return predict_pairs(model, batch, error_space).by_picture()


def held_out_pairs(pairs: pd.DataFrame, dpo: DpoConfig) -> pd.DataFrame:
    """Returns at most `dpo.num_evaluation_pairs` of `pairs`, evenly spread."""
    count = min(dpo.num_evaluation_pairs, len(pairs))
    return pairs.iloc[np.linspace(0, len(pairs) - 1, count).round().astype(int)]


@torch.no_grad()
def judge_pairs(
    model: Callable[..., Prediction], export: TrainingExport, pairs: pd.DataFrame, dpo: DpoConfig
) -> PairErrors:
    """Returns the errors of `model` on `pairs`, means over `dpo.num_evaluation_draws` draws of noise and time.

    The processes share the pairs; every process must call it, and all get the whole result. A draw depends on (seed,
    number of the draw, number of the pair) only. Layers run uncompiled: there are few batches, of other sizes than in
    training.

    Args:
        model: the policy, or the reference.
        export: where the pictures are.
        pairs: all of them are judged; with column `target`.
        dpo: error space, time bias and number of draws.
    """
    num_draws = 1 if dpo.error_space == "look" else dpo.num_evaluation_draws  # looks have no noise
    num_ranks = zero.world_size()
    share = -(-len(pairs) // num_ranks)  # the last ones judge the last pair again, so that all bring as many rows
    numbers = np.minimum(np.arange(share) + zero.rank() * share, len(pairs) - 1)
    rows = []
    for start in range(0, share, _PAIRS_AT_ONCE):
        part = numbers[start : start + _PAIRS_AT_ONCE]
        with torch.compiler.set_stance("force_eager"):
            draws = [_judged_once(model, export, pairs.iloc[part], part, draw, dpo) for draw in range(num_draws)]
        rows.append(torch.stack(draws).mean(0))
    return PairErrors.from_columns(zero.all_ranks(torch.cat(rows)).cpu()[: len(pairs)])


def _judged_once(
    model: Callable[..., Prediction],
    export: TrainingExport,
    rows: pd.DataFrame,
    numbers: np.ndarray,
    draw: int,
    dpo: DpoConfig,
) -> Tensor:
    """Returns chosen and rejected errors of one draw, (B, 2)."""
    generators = [np.random.default_rng((dpo.training.seed, 1, draw, int(number))) for number in numbers]
    dropout = Dropout(group=1.0 if dpo.pair_groups == "null" else 0.0)
    batch = collate_pairs(export, rows, generators, dropout, lambda u: biased_time(u, dpo.time_power))
    return pair_errors(model, to_device(batch, zero.device()), dpo.error_space).columns()
