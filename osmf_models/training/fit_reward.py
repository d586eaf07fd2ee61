"""Fits the group reward model to pairs: one process, plain PyTorch, seconds on a CPU.

Pictures enter as statistics that are computed once, so that a training set is a matrix of some hundred kilobytes:
there is nothing for ZeRO to shard. What the model is belongs in `model/group_reward.py`, how good it is in
`reward_figures.py`.

Shapes: `B` pairs, `C` creatives, `S` statistics, `G` groups, `F` group features.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from osmf_models.config import DpoConfig, RewardConfig, TrainingConfig
from osmf_models.data.dataset import TrainingExport
from osmf_models.data.pairs import pairs_of_split
from osmf_models.model.group_reward import GroupReward, picture_statistics
from osmf_models.objectives.group_reward import best_temperature, bradley_terry_loss
from osmf_models.training.loop import learning_rate_at, write_heartbeat
from osmf_models.training.tracking import Tracker

_NUM_PICTURES_AT_ONCE = 64
_LEAST_SCALE = 1e-4


@dataclass(frozen=True)
class RewardData:
    """What scores are computed from: normalised `statistics` of every creative (C, S), and `features` (G, F)."""

    statistics: Tensor
    features: Tensor


@dataclass(frozen=True)
class RewardPairs:
    """Pairs as rows of `RewardData`.

    Attributes:
        chosen, rejected: rows of the statistics, (B,).
        group: rows of the group features, (B,).
        target: the soft label that is fitted, (B,).
        evidence: probability that the chosen one is better, (B,).
    """

    chosen: Tensor
    rejected: Tensor
    group: Tensor
    target: Tensor
    evidence: Tensor

    @classmethod
    def of(cls, pairs: pd.DataFrame) -> RewardPairs:
        """Returns the tensors of a table with the columns of `export.pairs` and `target`."""
        rows = [torch.tensor(pairs[name].to_numpy()) for name in ("chosen_index", "rejected_index", "group_index")]
        labels = [torch.tensor(pairs[name].to_numpy(np.float32)) for name in ("target", "chosen_better_probability")]
        return cls(*rows, *labels)

    def drawn(self, size: int) -> RewardPairs:
        """Returns `size` of the pairs, with replacement."""
        rows = torch.randint(len(self.group), (size,))
        return RewardPairs(*(values[rows] for values in vars(self).values()))


@dataclass(frozen=True)
class FittedReward:
    """The model as it was at its best step, with its temperature, the data that it was fitted to, and how that went."""

    model: GroupReward
    data: RewardData
    metrics: dict[str, float]


def reward_pairs(export: TrainingExport, config: RewardConfig, split: str) -> pd.DataFrame:
    """Returns the groups' pairs of a split, with their soft label as column `target`.

    Raises:
        ValueError: when there are none.
    """
    return pairs_of_split(export, DpoConfig(label=config.label, has_unsure_pairs=False), split)


def score_margins(model: GroupReward, data: RewardData, pairs: RewardPairs) -> Tensor:
    """Returns the scores of the chosen minus those of the rejected pictures, (B,)."""
    features = data.features[pairs.group]
    return model(data.statistics[pairs.chosen], features) - model(data.statistics[pairs.rejected], features)


@torch.no_grad()
def held_out_margins(model: GroupReward, data: RewardData, pairs: RewardPairs) -> Tensor:
    """Returns the margins without dropout, (B,)."""
    return score_margins(model.eval(), data, pairs)


def fit_reward(export: TrainingExport, config: RewardConfig, output: Path) -> FittedReward:
    """Fits on split train; keeps the best step, and sets the temperature, by split validation.

    Raises:
        ValueError: when one of the two has no pairs of groups, or the loss is no finite number.
    """
    started, training = time.monotonic(), config.training
    torch.manual_seed(training.seed)
    pairs = reward_pairs(export, config, "train")
    validation = RewardPairs.of(reward_pairs(export, config, "validation"))
    model = new_reward(export, config)
    data = reward_data(model, export, np.unique(pairs[["chosen_index", "rejected_index"]].to_numpy()))
    metrics = _fit(model, data, RewardPairs.of(pairs), validation, training, output)
    temperature = best_temperature(held_out_margins(model, data, validation), validation.evidence)
    model.temperature.fill_(temperature)
    seconds = time.monotonic() - started
    return FittedReward(model, data, {**metrics, "temperature": temperature, "fit_seconds": seconds})


def new_reward(export: TrainingExport, config: RewardConfig) -> GroupReward:
    """Returns a model for the groups and pictures of an export, which prefers nothing yet."""
    manifest = export.manifest
    names, mean, scale = manifest.group_feature_names, manifest.group_feature_mean, manifest.group_feature_scale
    return GroupReward(list(names), list(mean), list(scale), manifest.image_px, config.width, config.dropout)


def reward_data(model: GroupReward, export: TrainingExport, training_rows: np.ndarray) -> RewardData:
    """Returns the data of all creatives, after giving `model` the mean and scale of those in `training_rows`."""
    parts = []
    for start in range(0, len(export.creatives), _NUM_PICTURES_AT_ONCE):
        rows = range(start, min(start + _NUM_PICTURES_AT_ONCE, len(export.creatives)))
        images, masks = (np.stack([pictures[row] for row in rows]) for pictures in (export.images, export.masks))
        parts.append(picture_statistics(images, masks))
    statistics = torch.cat(parts)
    shown = statistics[torch.from_numpy(training_rows)]
    model.statistic_mean.copy_(shown.mean(0))
    model.statistic_scale.copy_(shown.std(0, correction=0).clamp(min=_LEAST_SCALE))
    return RewardData(model.normalised(statistics), torch.from_numpy(export.group_features))


def _fit(
    model: GroupReward,
    data: RewardData,
    pairs: RewardPairs,
    validation: RewardPairs,
    training: TrainingConfig,
    output: Path,
) -> dict[str, float]:
    """Trains `model`, leaves it at the step with the least validation loss, and returns what it lost."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    tracker, started = Tracker(output, rank=0), time.monotonic()
    least, best_step, best_state = math.inf, 0, copy.deepcopy(model.state_dict())
    loss = math.inf
    for step in range(training.num_steps):
        optimiser.param_groups[0]["lr"] = learning_rate_at(step, training)
        loss = _step(model, data, pairs.drawn(training.batch_size), optimiser, training.gradient_clip)
        done = step + 1
        if done % training.log_every and done < training.num_steps:
            continue
        judged = float(bradley_terry_loss(held_out_margins(model, data, validation), validation.target))
        if not math.isfinite(loss + judged):
            raise ValueError(f"the loss of step {step} is {loss}: lower reward.training.learning_rate.")
        tracker.log(done, {"train/loss": loss, "validation/loss": judged})
        remaining = (time.monotonic() - started) / done * (training.num_steps - done)
        write_heartbeat(output, done, training.num_steps, remaining, loss)
        if judged < least:
            least, best_step, best_state = judged, done, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return {"train/loss": loss, "validation/loss": least, "best_step": float(best_step)}


def _step(
    model: GroupReward, data: RewardData, pairs: RewardPairs, optimiser: torch.optim.Optimizer, gradient_clip: float
) -> float:
    loss = bradley_terry_loss(score_margins(model.train(), data, pairs), pairs.target)
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
    optimiser.step()
    return loss.item()
