"""One step of Group-DPO: pairs drawn by step, errors of policy and reference, and the loss made of them.

Where the reference's errors come from belongs in `reference.py`, the loss itself in `group_preference.py`.

Shapes: `B` pairs of this rank, `K` reference errors of a pair: chosen and rejected, and with a contrast the same two
under the other group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from osmf_models.config import DpoConfig, RunConfig
from osmf_models.data.collate import BatchKey, Dropout, PairBatch, draw_pair_batch, pinned, to_device
from osmf_models.data.dataset import TrainingExport
from osmf_models.data.pairs import pairs_of_split
from osmf_models.model.gmllm import Prediction
from osmf_models.model.lora import without_additions
from osmf_models.model.path import biased_time
from osmf_models.objectives.group_preference import (
    ContrastErrors,
    PairErrors,
    group_contrast_loss,
    group_preference_loss,
)
from osmf_models.training import zero
from osmf_models.training.loop import StepLoss
from osmf_models.training.pair_errors import pair_errors, predict_pairs

DrawPairs = Callable[[int], PairBatch]
"""step → this rank's pairs, on the CPU."""
ReferenceOf = Callable[[int, PairBatch], Tensor]
"""(step, pairs on the device) → the reference's errors, (B, K)."""


def training_pairs(export: TrainingExport, config: RunConfig) -> DrawPairs:
    """Returns how pairs of split train are drawn: a function of (seed, step, index in the global batch) alone."""
    dpo, training = config.dpo, config.dpo.training
    pairs = pairs_of_split(export, dpo, "train")
    dropout = Dropout(group=1.0 if dpo.pair_groups == "null" else 0.0)

    def draw(step: int) -> PairBatch:
        key = BatchKey.of_rank(training.seed, step, training.batch_size, zero.rank(), zero.world_size())
        time_of = lambda uniform: biased_time(uniform, dpo.time_power)  # noqa: E731
        return pinned(draw_pair_batch(export, pairs, key, dropout, time_of, dpo.is_group_balanced))

    return draw


def num_reference_errors(dpo: DpoConfig) -> int:
    """Returns `K`."""
    return 4 if dpo.contrast_weight > 0.0 else 2


@torch.no_grad()
def reference_errors(model: Callable[..., Prediction], batch: PairBatch, dpo: DpoConfig) -> Tensor:
    """Returns what a step needs to know of the reference `model` on pairs on its device, (B, K)."""
    errors = pair_errors(model, batch, dpo.error_space).columns()
    if dpo.contrast_weight == 0.0:
        return errors
    return torch.cat([errors, pair_errors(model, batch.under_contrast(), dpo.error_space).columns()], dim=1)


def errors_without_additions(engine: Any, batch: PairBatch, dpo: DpoConfig) -> Tensor:
    """Returns `reference_errors` of the very model that is trained, LoRA's additions off, (B, K).

    That is the reference where they alone are trained. Call it before the policy's forward pass.
    """
    engine.eval()
    with without_additions(getattr(engine, "module", engine)):
        errors = reference_errors(engine, batch, dpo)
    engine.train()
    return errors


def preference_step(engine: Any, batch_of: DrawPairs, reference_of: ReferenceOf, dpo: DpoConfig) -> StepLoss:
    """Returns the loss of a step on the pairs that `batch_of` draws."""

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = to_device(batch_of(step), engine.device)
        return batch_loss(engine, batch, reference_of(step, batch), dpo)

    return loss_of


def batch_loss(
    policy: Callable[..., Prediction], batch: PairBatch, reference: Tensor, dpo: DpoConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss of one batch on the policy's device, and what to watch beside it, scalars.

    Args:
        policy: the model being trained, or what wraps it.
        batch: pairs.
        reference: errors of the frozen model, (B, K).
        dpo: the objective.
    """
    predicted = predict_pairs(policy, batch, dpo.error_space)
    errors, own_reference = predicted.by_picture(), PairErrors.from_columns(reference[:, :2])
    scale = predicted.rejected_scale(dpo.rejected_safeguard) if dpo.rejected_safeguard > 0.0 else None
    result = group_preference_loss(
        errors, own_reference, batch.target, dpo.beta, dpo.preference_weight, dpo.anchor_weight, scale
    )
    metrics = {
        "preference_loss": result.preference,
        "accuracy": (result.reward_margin > 0).float().mean(),
        "reward_margin": result.reward_margin.mean(),
        "chosen_error": result.chosen_error,
        "rejected_error": result.rejected_error,
        "reference_chosen_error": own_reference.chosen.mean(),
    }
    if scale is not None:
        metrics["rejected_scale"] = scale.mean()
    if dpo.contrast_weight == 0.0:
        return result.loss, metrics
    contrast, contrast_metrics = _contrast(policy, batch, errors, reference, dpo)
    return result.loss + dpo.contrast_weight * contrast, {**metrics, **contrast_metrics}


def _contrast(
    policy: Callable[..., Prediction], batch: PairBatch, own: PairErrors, reference: Tensor, dpo: DpoConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the contrast between groups, and its metrics; the policy sees every pair, so that shapes stay."""
    known = batch.contrast
    assert known is not None  # the frame of pairs names contradicting groups where the contrast has a weight
    result = group_contrast_loss(
        ContrastErrors(own, pair_errors(policy, batch.under_contrast(), dpo.error_space)),
        ContrastErrors(*(PairErrors.from_columns(part) for part in reference.split(2, dim=1))),
        batch.target,
        known.target,
        known.is_known,
        dpo.beta,
    )
    margin = 0.5 * (result.chosen_margin + result.rejected_margin).mean()
    return result.loss, {
        "contrast_loss": result.loss,
        "contrast_margin": margin,
        "contrast_share": known.is_known.float().mean(),
    }
