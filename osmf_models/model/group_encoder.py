"""Turns a group's feature vector into tokens that the language model reads between its words.

Shapes: `B` batch, `F` group features, `K` group tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class GroupEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A two-layer perceptron to `K` tokens, and `K` learned tokens that stand for no group in particular.

    Its config keeps what the features are called and how they are normalised before it sees them.
    """

    @register_to_config
    def __init__(
        self,
        feature_names: Sequence[str],
        feature_mean: Sequence[float],
        feature_scale: Sequence[float],
        num_tokens: int,
        width: int,
    ):
        super().__init__()
        self.num_tokens, self.width = num_tokens, width
        self.layers = nn.Sequential(
            nn.Linear(len(feature_names), 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, num_tokens * width),
        )
        self.null_tokens = nn.Parameter(0.02 * torch.randn(num_tokens, width))

    def forward(self, features: Tensor, is_null: Tensor) -> Tensor:
        """Returns the group tokens.

        Args:
            features: normalised, (B, F); ignored where `is_null`.
            is_null: (B,).
        """
        tokens = self.layers(features).unflatten(1, (self.num_tokens, self.width))  # (B, K, D)
        return torch.where(is_null[:, None, None], self.null_tokens, tokens)  # (B, K, D)
