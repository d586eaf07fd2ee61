"""Errors of a model on preference pairs, and their average over shared draws when pairs are judged.

The loss made of them belongs in `group_preference.py`.

Shapes: `B` pairs, `P = 2B` pictures.
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
from osmf_models.model.gmllm import NoisyPictures, Prediction
from osmf_models.model.latents import to_latents
from osmf_models.model.path import at_time, biased_time
from osmf_models.objectives.generation import scene_errors, velocity_errors
from osmf_models.objectives.group_preference import PairErrors, reward_margins
from osmf_models.training import zero

_PAIRS_AT_ONCE = 32


@dataclass(frozen=True)
class EvaluatedPairs:
    """Judged pairs; errors are means over the draws, (B,); `group_index` rows of groups, (B,)."""

    policy: PairErrors
    reference: PairErrors
    group_index: Tensor

    def margins(self, beta: float) -> Tensor:
        """Returns the implicit reward margins, (B,)."""
        return reward_margins(self.policy, self.reference, beta)


def pair_errors(model: Callable[..., Prediction], batch: PairBatch, error_space: str) -> PairErrors:
    """Returns the errors of `model` on both pictures of each pair, at the noise and time that they share."""
    pictures = batch.pictures
    clean = to_latents(pictures.images)
    noisy = NoisyPictures(at_time(clean, pictures.noise, pictures.time), clean, pictures.masks, pictures.time)
    errors = scene_errors(model(batch.condition, noisy).clean, clean, pictures.masks)  # (P,)
    if error_space == "velocity":
        errors = velocity_errors(errors, pictures.time)
    return PairErrors.from_pictures(errors)


@torch.no_grad()
def evaluate_pairs(
    policy: Callable[..., Prediction],
    reference: Callable[..., Prediction],
    export: TrainingExport,
    pairs: pd.DataFrame,
    dpo: DpoConfig,
) -> EvaluatedPairs:
    """Judges `pairs`, shared over the processes; every process must call it, and all get the whole result.

    Layers run uncompiled: there are few batches, of other sizes than in training.

    Args:
        policy: the model being trained.
        reference: the frozen one.
        export: where the pictures are.
        pairs: with column `target`; at most `dpo.num_evaluation_pairs` of them, drawn evenly, are judged.
        dpo: beta, error space, time bias and number of draws.
    """
    chosen = _evenly_drawn(pairs, dpo.num_evaluation_pairs, zero.world_size())
    share = np.array_split(np.arange(len(chosen)), zero.world_size())[zero.rank()]
    dropout = Dropout(group=1.0 if dpo.pair_groups == "null" else 0.0)
    rows = []
    for start in range(0, len(share), _PAIRS_AT_ONCE):
        part = share[start : start + _PAIRS_AT_ONCE]
        with torch.compiler.set_stance("force_eager"):
            draws = [
                _judged_once(policy, reference, export, chosen.iloc[part], part, draw, dpo, dropout)
                for draw in range(dpo.num_evaluation_draws)
            ]
        rows.append(torch.stack(draws).mean(0))
    errors = zero.all_ranks(torch.cat(rows)).cpu()  # (B, 4)
    return EvaluatedPairs(
        PairErrors(errors[:, 0], errors[:, 1]),
        PairErrors(errors[:, 2], errors[:, 3]),
        torch.tensor(chosen.group_index.to_numpy()[: len(errors)]),
    )


def _judged_once(
    policy: Any,
    reference: Any,
    export: TrainingExport,
    rows: pd.DataFrame,
    numbers: np.ndarray,
    draw: int,
    dpo: DpoConfig,
    dropout: Dropout,
) -> Tensor:
    """Returns policy's chosen and rejected, reference's chosen and rejected errors of one draw, (B, 4)."""
    generators = [np.random.default_rng((dpo.training.seed, 1, draw, int(number))) for number in numbers]
    batch = collate_pairs(export, rows, generators, dropout, lambda u: biased_time(u, dpo.time_power))
    batch = to_device(batch, next(reference.parameters()).device)
    ours, theirs = (pair_errors(model, batch, dpo.error_space) for model in (policy, reference))
    return torch.stack([ours.chosen, ours.rejected, theirs.chosen, theirs.rejected], dim=1)


def _evenly_drawn(pairs: pd.DataFrame, most: int, multiple: int) -> pd.DataFrame:
    """Returns at most `most` rows, evenly spread, their number a multiple of `multiple`."""
    count = min(most, len(pairs))
    count = max(multiple, count - count % multiple)
    return pairs.iloc[np.linspace(0, len(pairs) - 1, count).round().astype(int)]
