"""Group-DPO: preference optimisation of a flow model on pairs that each speak for one group.

Pure functions of errors: which pictures, noise and times the errors come from belongs to `data/collate.py`, which
error to `objectives/generation.py`.

Shapes: `B` pairs, `G` groups.

Source: this project's own design, after Wallace et al., Diffusion Model Alignment Using Direct Preference
Optimization, arXiv 2311.12908, with soft labels, an anchor on the chosen picture, and beta/2 written out: a
multiplier of 200 here is their beta * T of 200 / 2 times the error difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class PairErrors:
    """One error per picture and pair, (B,) each, at noise and time that the two pictures of a pair share."""

    chosen: Tensor
    rejected: Tensor

    @classmethod
    def from_pictures(cls, errors: Tensor) -> PairErrors:
        """Splits errors of all chosen, then all rejected pictures, (2B,)."""
        chosen, rejected = errors.chunk(2)
        return cls(chosen, rejected)


@dataclass(frozen=True)
class PreferenceLoss:
    """The loss and what to watch beside it.

    Attributes:
        loss: to minimise, a scalar.
        preference: its preference part, before its weight, a scalar.
        reward_margin: u, how much more the policy than the reference prefers the chosen one, (B,).
        chosen_error, rejected_error: the policy's means, scalars; both rising means that the pictures break.
    """

    loss: Tensor
    preference: Tensor
    reward_margin: Tensor
    chosen_error: Tensor
    rejected_error: Tensor


def reward_margins(policy: PairErrors, reference: PairErrors, beta: float) -> Tensor:
    """Returns u = -beta/2 * [(e_c - e_c^ref) - (e_r - e_r^ref)], (B,)."""
    difference = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
    return -0.5 * beta * difference


def group_preference_loss(
    policy: PairErrors,
    reference: PairErrors,
    target: Tensor,
    beta: float,
    preference_weight: float = 1.0,
    anchor_weight: float = 0.0,
) -> PreferenceLoss:
    """Returns mean_i -[q_i log σ(u_i) + (1 - q_i) log σ(-u_i)], weighted, plus the anchor.

    Args:
        policy: errors of the model being trained.
        reference: errors of the frozen one, same noise and times.
        target: q, how likely or how strongly the chosen one is better, in [0, 1], (B,).
        beta: multiplier of the error difference.
        preference_weight: of the preference part.
        anchor_weight: of the policy's mean error on the chosen pictures.
    """
    margin = reward_margins(policy, reference, beta)
    preference = -(target * functional.logsigmoid(margin) + (1.0 - target) * functional.logsigmoid(-margin)).mean()
    chosen_error = policy.chosen.mean()
    return PreferenceLoss(
        loss=preference_weight * preference + anchor_weight * chosen_error,
        preference=preference,
        reward_margin=margin,
        chosen_error=chosen_error,
        rejected_error=policy.rejected.mean(),
    )


def accuracy_by_group(margin: Tensor, group_index: Tensor) -> dict[int, float]:
    """Returns, per group, the share of its pairs whose margin is positive; a margin of 0 counts half."""
    is_right = (margin > 0).float() + 0.5 * (margin == 0).float()
    return {int(g): float(is_right[group_index == g].mean()) for g in torch.unique(group_index)}
