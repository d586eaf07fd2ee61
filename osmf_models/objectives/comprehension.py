"""Next-token cross-entropy on what describes a group: reading its tokens must be enough to say who it is.

Shapes: `B` batch, `L` description tokens, `V` vocabulary.
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
