"""How Qwen3-VL of `transformers` is shown one picture: patches, placeholders among the tokens, positions in three axes.

The model puts its vision tower's features where the placeholders are, in its first layers too. What stands before and
behind the picture belongs in `backbone.py`.

Shapes: `B` batch, `N` tokens of a picture, `T` tokens in all, `D` width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

MODEL_TYPE = "qwen3_vl"


@dataclass(frozen=True)
class PictureTokens:
    """A picture as the language model gets it.

    Attributes:
        embeddings: of the start of a picture, its placeholders, its end, (B, N + 2, D).
        inputs: what the model's `forward` takes beside them.
        side: of the square of the picture's tokens, N = side^2.
    """

    embeddings: Tensor
    inputs: dict[str, Tensor]
    side: int

    def positions(self, is_token: Tensor) -> Tensor:
        """Returns time, row and column of each token, (3, B, T).

        A picture's tokens share a time and differ in row and column; what follows goes on behind its longest side, as
        in `Qwen3VLModel.get_rope_index`.

        Args:
            is_token: False at padding, (B, T); a picture comes first.
        """
        count = self.side**2
        order = (is_token.long().cumsum(1) - 1).clamp(min=0)  # (B, T)
        order = torch.where(order > count, order - count + self.side, order)
        positions = order.expand(3, -1, -1).clone()
        cell = torch.arange(count, device=is_token.device)
        places = torch.stack([torch.zeros_like(cell), cell // self.side, cell % self.side])  # (3, N)
        positions[:, :, 1 : count + 1] = 1 + places[:, None]
        return positions


def picture_tokens(backbone: PreTrainedModel, picture: Tensor) -> PictureTokens:
    """Returns what `backbone` is shown of square pictures in [-1, 1], (B, 3, H, W)."""
    config: Any = backbone.config
    vision = config.vision_config
    num_patches, side = picture.shape[-1] // vision.patch_size, picture.shape[-1] // picture_stride(config)
    ids = [config.vision_start_token_id, *[config.image_token_id] * side**2, config.vision_end_token_id]
    embed = backbone.get_input_embeddings()
    embeddings = embed(torch.tensor(ids, device=picture.device)).expand(len(picture), -1, -1)
    grid = torch.tensor([[1, num_patches, num_patches]] * len(picture), device=picture.device)
    pixels = _patches(picture, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
    return PictureTokens(embeddings, {"pixel_values": pixels, "image_grid_thw": grid}, side)


def picture_stride(config: Any) -> int:
    """Returns the side, in pixels, of what one token stands for, of a model's config."""
    return config.vision_config.patch_size * config.vision_config.spatial_merge_size


def _patches(picture: Tensor, patch: int, merge: int, num_frames: int) -> Tensor:
    """Returns rows of pixels, patches that become one token together, (B * patches, 3 * frames * patch^2).

    A still picture is a film of equal frames. As `Qwen2VLImageProcessor.patchify` does.
    """
    count, channels, height, _ = picture.shape
    cells = height // (patch * merge)
    parts = picture.reshape(count, channels, cells, merge, patch, cells, merge, patch)
    parts = parts.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, cells, cells, merge, merge, 3, patch, patch)
    parts = parts.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, num_frames, -1, -1)
    return parts.reshape(-1, channels * num_frames * patch**2)
