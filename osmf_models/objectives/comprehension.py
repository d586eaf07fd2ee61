"""What comprehension is learned by: describing a group in words, choosing the picture that it prefers, seeing pictures.

Shapes: `B` batch, `L` description tokens, `V` vocabulary, `M` pictures to choose from, `F` measured features.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def description_loss(logits: Tensor, ids: Tensor, is_token: Tensor, is_null_group: Tensor) -> Tensor:
    """Returns the mean cross-entropy of the descriptions, a scalar.

    Each description counts once, whatever its length. Examples that saw the null group cannot know the description:
    they count as 0, so that the mean over processes is the mean over the global batch.

    Args:
        logits: of each token from what stands before it, (B, L, V).
        ids: (B, L).
        is_token: False at the padding, (B, L).
        is_null_group: (B,).
    """
    losses = functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten(), reduction="none").view_as(ids)
    per_text = (losses * is_token).sum(1) / is_token.sum(1).clamp(min=1)  # (B,)
    return (per_text * ~is_null_group).mean()


def choice_loss(likings: Tensor, target: Tensor, is_known: Tensor) -> Tensor:
    """Returns the mean cross-entropy of the choices, a scalar: of pair (i, j) -[q log σ(m) + (1 - q) log σ(-m)].

    m = l_i - l_j. Each row of pictures counts once, however many of its pairs are known.

    Args:
        likings: l, (B, M).
        target: q, the soft label that picture i is preferred to j, (B, M, M).
        is_known: which pairs to count, (B, M, M).
    """
    margins = likings[:, :, None] - likings[:, None, :]  # (B, M, M)
    losses = functional.binary_cross_entropy_with_logits(margins.float(), target, reduction="none")
    return ((losses * is_known).sum((1, 2)) / is_known.sum((1, 2)).clamp(min=1)).mean()


def looks_loss(predicted: Tensor, looks: Tensor) -> Tensor:
    """Returns the mean squared error of what pictures are taken to look like, a scalar.

    Args:
        predicted: standardised features, (B, M, F).
        looks: measured, standardised, (B, M, F).
    """
    return functional.mse_loss(predicted.float(), looks)


def both_orders(margins: Tensor, swapped_margins: Tensor) -> Tensor:
    """Returns the margins for the first of two pictures, (B,), free of a liking for a place.

    Args:
        margins: with that picture read first, (B,).
        swapped_margins: for the picture read first when it is the other one, (B,).
    """
    return 0.5 * (margins - swapped_margins)
