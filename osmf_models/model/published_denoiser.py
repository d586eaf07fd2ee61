"""A published flow-matching transformer of `diffusers` as the denoiser: it sees the product and predicts the picture.

Its first convolution gets channels for the product and its mask, with weights of zero, so that at first it draws what
it always drew. Loading checkpoints belongs in `published.py`, LoRA in `lora.py`.

Shapes: `B` batch, `c h w` latents of one picture, `S` conditioning tokens, `D` their width.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.sana_transformer import SanaTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import Tensor, nn

_TIME_SCALE = 1000.0  # both were trained on times of a thousand
TRANSFORMERS: dict[str, Any] = {
    "SanaTransformer2DModel": SanaTransformer2DModel,
    "SD3Transformer2DModel": SD3Transformer2DModel,
}


class PublishedDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Sana or Stable Diffusion 3, conditioned on the connector's tokens where its text encoder's stood.

    Args:
        image_px: side of the pictures.
        condition_width: `D`.
        num_latent_channels: `c`.
        transformer_class: a key of `TRANSFORMERS`.
        transformer_config: as published; `in_channels` is `c`.
    """

    @register_to_config
    def __init__(
        self,
        image_px: int,
        condition_width: int,
        num_latent_channels: int,
        transformer_class: str,
        transformer_config: dict[str, Any],
    ):
        super().__init__()
        self.transformer = TRANSFORMERS[transformer_class].from_config(dict(transformer_config))
        widen_input(self.transformer, num_latent_channels + 1)
        known = self.transformer.config
        is_pooled = transformer_class == "SD3Transformer2DModel"
        self.time_scale = _TIME_SCALE * known.get("timestep_scale", 1.0)
        self.num_latent_channels = num_latent_channels
        text_width = known["joint_attention_dim"] if is_pooled else known["caption_channels"]
        self.condition = nn.Linear(condition_width, text_width)
        self.pooled = nn.Linear(condition_width, known["pooled_projection_dim"]) if is_pooled else None

    @classmethod
    def around(
        cls, transformer: Any, image_px: int, condition_width: int, num_latent_channels: int
    ) -> PublishedDenoiser:
        """Returns a denoiser that takes over the weights of a published `transformer`."""
        published = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
        is_meta = transformer.device.type == "meta"
        with torch.device("meta"):
            denoiser = cls(image_px, condition_width, num_latent_channels, type(transformer).__name__, published)
        widen_input(transformer, num_latent_channels + 1)
        denoiser.transformer = transformer
        for name in ("condition", "pooled"):
            empty = getattr(denoiser, name)
            if empty is not None and not is_meta:
                setattr(denoiser, name, nn.Linear(empty.in_features, empty.out_features, dtype=transformer.dtype))
        return denoiser

    def forward(self, noisy: Tensor, product: Tensor, mask: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Returns the predicted clean latents, (B, c, h, w); under the mask they are the product's.

        The transformer predicts the velocity v = noise - clean of x_t = (1 - t) clean + t noise: clean = x_t - t v.

        Args:
            noisy: x_t, (B, c, h, w).
            product: latents of the product alone, (B, c, h, w).
            mask: share of each latent under the product, (B, 1, h, w).
            time: in [0, 1], (B,).
            condition: (B, S, D).
        """
        of_text = {"pooled_projections": self.pooled(condition.mean(1))} if self.pooled is not None else {}
        velocity = self.transformer(
            hidden_states=torch.cat([noisy, product, mask], dim=1),  # (B, 2c + 1, h, w)
            encoder_hidden_states=self.condition(condition),
            timestep=self.time_scale * time,
            **of_text,
        ).sample[:, : self.num_latent_channels]  # some predict a variance behind it
        clean = noisy - time.view(-1, 1, 1, 1) * velocity
        return mask * product + (1.0 - mask) * clean  # (B, c, h, w)


def input_convolution(transformer: Any) -> nn.Conv2d:
    """Returns the convolution that turns latents into patches."""
    return _patch_embedding(transformer).proj


def widen_input(transformer: Any, num_more: int) -> None:
    """Gives the patch embedding `num_more` input channels whose weights are zero, in place."""
    narrow = input_convolution(transformer)
    wide = nn.Conv2d(
        narrow.in_channels + num_more,
        narrow.out_channels,
        kernel_size=narrow.kernel_size,  # type: ignore[arg-type]
        stride=narrow.stride,  # type: ignore[arg-type]
        bias=narrow.bias is not None,
        device=narrow.weight.device,
        dtype=narrow.weight.dtype,
    )
    with torch.no_grad():
        wide.weight.zero_()[:, : narrow.in_channels] = narrow.weight
    wide.bias = narrow.bias
    _patch_embedding(transformer).proj = wide


def _patch_embedding(transformer: Any) -> Any:
    return transformer.pos_embed if isinstance(transformer, SD3Transformer2DModel) else transformer.patch_embed
