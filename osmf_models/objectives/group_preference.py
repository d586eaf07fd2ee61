"""Group-DPO: preference optimisation of a flow model on pairs that each speak for one group.

Pure functions of errors: which pictures, noise and times the errors come from belongs to `data/collate.py`, which
error to `objectives/generation.py`.

Shapes: `B` pairs, `G` groups, `C H W` latents.

Source: this project's own design, after Wallace et al., Diffusion Model Alignment Using Direct Preference
Optimization, arXiv 2311.12908, with soft labels, an anchor on the chosen picture, and beta/2 written out: a
multiplier of 200 here is their beta * T of 200 / 2 times the error difference. `docs/group_dpo.md` sets it beside
others' conventions.
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

    @classmethod
    def from_columns(cls, errors: Tensor) -> PairErrors:
        """Splits columns chosen and rejected, (B, 2)."""
        return cls(errors[:, 0], errors[:, 1])

    def columns(self) -> Tensor:
        """Returns (B, 2)."""
        return torch.stack([self.chosen, self.rejected], dim=1)


@dataclass(frozen=True)
class ContrastErrors:
    """Errors on the same pictures, noise and times, under the pair's own group and under one that contradicts it."""

    own: PairErrors
    other: PairErrors

    def of_chosen(self) -> PairErrors:
        """Returns the errors on the chosen pictures, under the group that chooses them and under the other."""
        return PairErrors(self.own.chosen, self.other.chosen)

    def of_rejected(self) -> PairErrors:
        """Returns the errors on the rejected pictures, under the other group, which chooses them, and under the own."""
        return PairErrors(self.other.rejected, self.own.rejected)


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
    rejected_scale: Tensor | None = None,
) -> PreferenceLoss:
    """Returns mean_i -[q_i log σ(u_i) + (1 - q_i) log σ(-u_i)], weighted, plus the anchor.

    Args:
        policy: errors of the model being trained.
        reference: errors of the frozen one, same noise and times.
        target: q, how likely or how strongly the chosen one is better, in [0, 1], (B,).
        beta: multiplier of the error difference.
        preference_weight: of the preference part.
        anchor_weight: of the policy's mean error on the chosen pictures.
        rejected_scale: share of the gradient that reaches the rejected picture of a pair that still falls short of its
            label, (B,); the loss itself stays as it is. A pair past its label moves back unscaled.
    """
    margin = reward_margins(policy, reference, beta)
    if rejected_scale is not None:
        scale = torch.where(torch.sigmoid(margin) < target, rejected_scale, 1.0).detach()
        policy = PairErrors(policy.chosen, policy.rejected.detach().lerp(policy.rejected, scale))
        margin = reward_margins(policy, reference, beta)
    preference = soft_label_losses(margin, target).mean()
    chosen_error = policy.chosen.mean()
    return PreferenceLoss(
        loss=preference_weight * preference + anchor_weight * chosen_error,
        preference=preference,
        reward_margin=margin,
        chosen_error=chosen_error,
        rejected_error=policy.rejected.mean(),
    )


def safe_rejected_scale(chosen_gradient: Tensor, rejected_gradient: Tensor, mu: float) -> Tensor:
    """Returns λ = min(1, (1 - μ)·|g_c|² / (g_c·g_r)) where the gradients agree, 1 elsewhere, (B,).

    A step against g_c and along λ·g_r then changes the chosen error, to first order and in the space of predictions, by
    at most -μ·|g_c|² times its length.

    Args:
        chosen_gradient: of the chosen picture's error by its own prediction, (B, ...).
        rejected_gradient: the same of the rejected picture.
        mu: in [0, 1].

    Source: Fu et al., Diffusion-SDPO, arXiv 2511.03317, and its released code; one λ for each pair is ours.
    """
    squared = chosen_gradient.square().flatten(1).sum(1)
    product = (chosen_gradient * rejected_gradient).flatten(1).sum(1)
    bound = (1.0 - mu) * squared / torch.where(product > 0, product, 1.0)
    return torch.where(product > 0, bound.clamp(max=1.0), 1.0)


@dataclass(frozen=True)
class ContrastLoss:
    """`loss`, a scalar, and its margins for the chosen and rejected pictures, (B,) each, 0 without a second group."""

    loss: Tensor
    chosen_margin: Tensor
    rejected_margin: Tensor


def group_contrast_loss(
    policy: ContrastErrors,
    reference: ContrastErrors,
    target: Tensor,
    other_target: Tensor,
    is_known: Tensor,
    beta: float,
) -> ContrastLoss:
    """Returns the loss of one picture under two groups: it belongs to the group that chooses it.

    A picture's margin is that of `reward_margins` with groups in the place of pictures, so that a model without ears
    for the group has exactly 0. Pairs that nobody contradicts count 0 in the mean over the batch.

    Args:
        policy: errors of the model being trained.
        reference: errors of the frozen one.
        target: the own group's label for the picture that it chooses, (B,).
        other_target: the other group's label for the picture that it chooses, the pair's rejected one, (B,).
        is_known: where there is another group, (B,).
        beta: multiplier of the error difference.

    Source: this project's own design.
    """
    chosen = reward_margins(policy.of_chosen(), reference.of_chosen(), beta)
    rejected = reward_margins(policy.of_rejected(), reference.of_rejected(), beta)
    both = 0.5 * (soft_label_losses(chosen, target) + soft_label_losses(rejected, other_target))
    is_known = is_known.to(both.dtype)
    return ContrastLoss((both * is_known).mean(), chosen * is_known, rejected * is_known)


def soft_label_losses(margin: Tensor, target: Tensor) -> Tensor:
    """Returns -[q log σ(u) + (1 - q) log σ(-u)] of margins u and labels q, (B,)."""
    return -(target * functional.logsigmoid(margin) + (1.0 - target) * functional.logsigmoid(-margin))


@dataclass(frozen=True)
class GroupStatistics:
    """What a model makes of one group's pairs, against the reference; all but the number are means.

    Attributes:
        num_pairs: of the group.
        accuracy: share of pairs with a positive margin; a margin of 0 counts half.
        reward_margin: u.
        chosen_error_change, rejected_error_change: policy's minus reference's; both above 0: the pictures break.
    """

    num_pairs: int
    accuracy: float
    reward_margin: float
    chosen_error_change: float
    rejected_error_change: float


def statistics_by_group(
    policy: PairErrors, reference: PairErrors, group_index: Tensor, beta: float
) -> dict[int, GroupStatistics]:
    """Returns the statistics of every group that `group_index`, (B,), names."""
    margin = reward_margins(policy, reference, beta)
    accuracy = accuracy_by_group(margin, group_index)
    result = {}
    for group, share in accuracy.items():
        is_own = group_index == group
        result[group] = GroupStatistics(
            num_pairs=int(is_own.sum()),
            accuracy=share,
            reward_margin=float(margin[is_own].mean()),
            chosen_error_change=float((policy.chosen - reference.chosen)[is_own].mean()),
            rejected_error_change=float((policy.rejected - reference.rejected)[is_own].mean()),
        )
    return result


def accuracy_by_group(margin: Tensor, group_index: Tensor) -> dict[int, float]:
    """Returns, per group, the share of its pairs whose margin is positive; a margin of 0 counts half."""
    is_right = (margin > 0).float() + 0.5 * (margin == 0).float()
    return {int(g): float(is_right[group_index == g].mean()) for g in torch.unique(group_index)}
