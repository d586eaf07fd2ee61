"""Predicts the clean ad picture from a noisy one: a `diffusers` transformer between two thin convolutional layers.

The transformer works on patches; the convolutions behind it see across their borders, so that no seams show.
The flow's path and its solver belong in `path.py` and `sampler.py`.

Shapes: `B` batch, `H W` pixels, `S` conditioning tokens, `D` width of the condition.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor, nn

_INPUT_CHANNELS = 7  # noisy scene 3, product 3, mask 1
_TIME_SCALE = 1000.0  # the transformer's time embedding expects steps of a thousand


class ProductDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Draws the scene around a product that it is shown, conditioned by cross-attention on the connector's tokens."""

    @register_to_config
    def __init__(
        self,
        image_px: int,
        patch_px: int,
        num_layers: int,
        num_heads: int,
        head_width: int,
        condition_width: int,
        refine_channels: int,
    ):
        super().__init__()
        self.transformer = PixArtTransformer2DModel(
            num_attention_heads=num_heads,
            attention_head_dim=head_width,
            cross_attention_dim=num_heads * head_width,
            caption_channels=condition_width,
            in_channels=_INPUT_CHANNELS,
            out_channels=refine_channels,
            num_layers=num_layers,
            sample_size=image_px,
            patch_size=patch_px,
            norm_num_groups=1,
            interpolation_scale=1,
            use_additional_conditions=False,
        )
        self.refine = nn.Sequential(
            nn.Conv2d(refine_channels + _INPUT_CHANNELS, refine_channels, 3, padding=1, padding_mode="replicate"),
            nn.SiLU(),
            nn.Conv2d(refine_channels, refine_channels, 3, padding=1, padding_mode="replicate"),
            nn.SiLU(),
            nn.Conv2d(refine_channels, 3, 3, padding=1, padding_mode="replicate"),
        )

    def forward(self, noisy: Tensor, product: Tensor, mask: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Returns the predicted clean latents; what they hold under the mask means nothing.

        Args:
            noisy: x_t, (B, 3, H, W); not seen under the mask.
            product: clean latents of the product, (B, 3, H, W); not seen outside the mask.
            mask: share of each pixel under the product, (B, 1, H, W).
            time: in [0, 1], (B,).
            condition: (B, S, D).
        """
        inputs = torch.cat([noisy * (1.0 - mask), product * mask, mask], dim=1)  # (B, 7, H, W)
        features = self.transformer(
            hidden_states=inputs,
            encoder_hidden_states=condition,
            timestep=_TIME_SCALE * time,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample  # (B, refine_channels, H, W)
        return self.refine(torch.cat([features, inputs], dim=1))  # (B, 3, H, W)
