"""Predicts the clean ad picture from a noisy one: a `diffusers` transformer between two thin convolutional layers.

The transformer works on patches; the convolutions behind it see across their borders, so that no seams show, and the
means over large windows, so that what is even in a picture need not pass through patches. They work on pixels, or on
cells of several pixels where patches are large.
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
_COARSE_CHANNELS = 15  # five views of the noisy scene
_LEAST_SCENE = 1e-3  # of a window
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


class ConditionedTime(nn.Module):
    """The time embedding, moved by the mean of the conditioning tokens and by the one that tells the look.

    It modulates every layer, so that what is the same all over a picture, its colours and light, need not be found by
    attention from every patch.

    Source: the pooled projections of Esser et al., Scaling Rectified Flow Transformers, arXiv 2403.03206.
    """

    def __init__(self, time_embedding: nn.Module, condition_width: int, width: int):
        super().__init__()
        self.time_embedding = time_embedding
        self.pooled = nn.Linear(condition_width, width)
        nn.init.zeros_(self.pooled.weight)
        nn.init.zeros_(self.pooled.bias)

    def forward(self, timestep: Tensor, pooled: Tensor, **of_time: object) -> Tensor:
        """Returns what modulates the layers, (B, width), of times (B,) and tokens (B, 2 D)."""
        embedded: Tensor = self.time_embedding(timestep, resolution=None, aspect_ratio=None, **of_time)
        return embedded + self.pooled(pooled)


def coarse_views(noisy: Tensor, scene: Tensor) -> Tensor:
    """Returns noisy pictures as means over large windows, in which the noise is small, (B, 15, H, W).

    Windows: a quarter and a half of the side, strips an eighth and a 32nd of it high, and the whole. Each mean is over
    the scene alone; a window that the product fills is 0.

    Args:
        noisy: (B, 3, H, W).
        scene: share of each pixel outside the product, (B, 1, H, W).
    """
    side = noisy.shape[-1]
    views = []
    strips = ((side // 8, side), (max(1, side // 32), side))
    for window in ((side // 4, side // 4), (side // 2, side // 2), *strips, (side, side)):
        share = _window_means(scene, *window)
        mean = _window_means(noisy * scene, *window) / share.clamp(min=_LEAST_SCENE)
        views.append(functional.interpolate(mean, size=(side, side), mode="nearest"))
    return torch.cat(views, dim=1)


def _window_means(pictures: Tensor, height: int, width: int) -> Tensor:
    """Returns the means of (B, C, H, W) over windows; pooling takes one thread for each on a GPU, whatever its size."""
    rows, columns = pictures.shape[2] // height, pictures.shape[3] // width
    whole = pictures[:, :, : rows * height, : columns * width]
    return whole.unflatten(3, (columns, width)).unflatten(2, (rows, height)).mean((3, 5))


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
            in_channels=_INPUT_CHANNELS + _COARSE_CHANNELS,
            out_channels=refine_channels // cell,
            num_layers=num_layers,
            sample_size=image_px,
            patch_size=patch_px,
            norm_num_groups=1,
            interpolation_scale=1,
            use_additional_conditions=False,
        )
        self.transformer.pos_embed.proj = PatchConvolution(self.transformer.pos_embed.proj)
        modulation = self.transformer.adaln_single
        modulation.emb = ConditionedTime(modulation.emb, 2 * condition_width, num_heads * head_width)
        num_seen = refine_channels + cell * _INPUT_CHANNELS + _COARSE_CHANNELS
        self.refine = nn.Sequential(
            nn.Conv2d(num_seen, refine_channels, 3, padding=1, padding_mode="replicate"),
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
            condition: (B, S, D); its last token tells the look.
        """
        scene = 1.0 - mask
        inputs = torch.cat([noisy * scene, product * mask, mask], dim=1)  # (B, 7, H, W)
        views = coarse_views(noisy, scene)
        features = self.transformer(
            hidden_states=torch.cat([inputs, views], dim=1),
            encoder_hidden_states=condition,
            timestep=_TIME_SCALE * time,
            added_cond_kwargs={"pooled": torch.cat([condition[:, :-1].mean(1), condition[:, -1]], dim=1)},
        ).sample  # (B, refine_channels / stride^2, H, W)
        cells = functional.pixel_unshuffle(torch.cat([features, inputs], dim=1), self.refine_stride)
        views_of_cells = _window_means(views, self.refine_stride, self.refine_stride)
        drawn = self.refine(torch.cat([cells, views_of_cells], dim=1))
        return functional.pixel_shuffle(drawn, self.refine_stride)  # (B, 3, H, W)
