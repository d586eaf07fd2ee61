"""Predicts the clean ad picture from a noisy one: a `diffusers` transformer between two thin convolutional layers.

The transformer works on patches; the convolutions behind it see across their borders, so that no seams show. They work
on pixels, or on cells of several pixels where patches are large.
The flow's path and its solver belong in `path.py` and `sampler.py`.

Shapes: `B` batch, `H W` pixels, `S` conditioning tokens, `D` width of the condition.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional

_INPUT_CHANNELS = 7  # noisy scene 3, product 3, mask 1
_TIME_SCALE = 1000.0  # the transformer's time embedding expects steps of a thousand


class PatchConvolution(nn.Module):
    """A convolution whose stride is its kernel; on a GPU one matrix product, which suits its few channels better."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight, self.bias, self.patch_px = convolution.weight, convolution.bias, convolution.kernel_size[0]

    def forward(self, pictures: Tensor) -> Tensor:
        """Returns (B, D, H / patch, W / patch) of (B, C, H, W)."""
        if pictures.is_cuda:
            return self.by_matrix_product(pictures)
        return functional.conv2d(pictures, self.weight, self.bias, stride=self.patch_px)

    def by_matrix_product(self, pictures: Tensor) -> Tensor:
        """Returns the same, from a row of pixels for each patch."""
        patches = functional.pixel_unshuffle(pictures, self.patch_px)  # (B, C * patch^2, H / patch, W / patch)
        rows = functional.linear(patches.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return rows.permute(0, 3, 1, 2)


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
        refine_stride: int = 1,
    ):
        super().__init__()
        cell = refine_stride**2
        if patch_px % refine_stride or refine_channels % cell:
            raise ValueError(
                f"refine_stride {refine_stride} must divide patch_px {patch_px}, and its square {cell} must divide"
                f" refine_channels {refine_channels}."
            )
        self.refine_stride = refine_stride
        self.transformer = PixArtTransformer2DModel(
            num_attention_heads=num_heads,
            attention_head_dim=head_width,
            cross_attention_dim=num_heads * head_width,
            caption_channels=condition_width,
            in_channels=_INPUT_CHANNELS,
            out_channels=refine_channels // cell,
            num_layers=num_layers,
            sample_size=image_px,
            patch_size=patch_px,
            norm_num_groups=1,
            interpolation_scale=1,
            use_additional_conditions=False,
        )
        self.transformer.pos_embed.proj = PatchConvolution(self.transformer.pos_embed.proj)
        self.refine = nn.Sequential(
            nn.Conv2d(
                refine_channels + cell * _INPUT_CHANNELS, refine_channels, 3, padding=1, padding_mode="replicate"
            ),
            nn.SiLU(),
            nn.Conv2d(refine_channels, refine_channels, 3, padding=1, padding_mode="replicate"),
            nn.SiLU(),
            nn.Conv2d(refine_channels, cell * 3, 3, padding=1, padding_mode="replicate"),
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
        ).sample  # (B, refine_channels / stride^2, H, W)
        cells = functional.pixel_unshuffle(torch.cat([features, inputs], dim=1), self.refine_stride)
        return functional.pixel_shuffle(self.refine(cells), self.refine_stride)  # (B, 3, H, W)
