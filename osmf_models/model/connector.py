"""Carries what the language model understood to the denoiser: learned queries in, conditioning tokens out.

Shapes: `B` batch, `Q` queries, `S = K + Q` hidden states read at the group tokens and the queries, `D` width.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class Connector(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A bidirectional transformer encoder over the language model's hidden states, RMS-normalised at its end."""

    @register_to_config
    def __init__(self, num_queries: int, width: int, num_heads: int, num_layers: int):
        super().__init__()
        self.num_queries = num_queries
        self.queries = nn.Embedding(num_queries, width)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers, nn.RMSNorm(width), enable_nested_tensor=False)

    def query_tokens(self, batch_size: int) -> Tensor:
        """Returns the queries that the language model is given, (B, Q, D)."""
        index = torch.arange(self.num_queries, device=self.queries.weight.device)
        return self.queries(index.expand(batch_size, -1))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns the conditioning tokens (B, S, D) of the hidden states (B, S, D)."""
        return self.encoder(hidden_states)
