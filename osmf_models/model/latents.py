"""Between pictures in [0, 1] and the latents that the denoiser works on: the pixels themselves, or an autoencoder's.

The pixels, in [-1, 1], are the default; an autoencoder is a published one of `diffusers`, and stays as it is.

Shapes: `B C H W` pictures, `c h w` latents of one picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

_GREY = 0.5  # behind the product, where the denoiser is shown it alone
_PICTURES_AT_ONCE = 8  # an autoencoder's activations are as large as pictures and many channels deep


def to_latents(pictures: Tensor) -> Tensor:
    """Returns latents (B, 3, H, W) of pictures in [0, 1]."""
    return 2.0 * pictures - 1.0


def to_pictures(latents: Tensor) -> Tensor:
    """Returns pictures in [0, 1], (B, 3, H, W); latents beyond the range of pictures are clipped."""
    return ((latents + 1.0) / 2.0).clamp(0.0, 1.0)


class Latents(Protocol):
    """The space that pictures are drawn in."""

    def encode(self, pictures: Tensor) -> Tensor:
        """Returns the latents (B, c, h, w) of pictures in [0, 1]."""

    def product(self, pictures: Tensor, masks: Tensor) -> Tensor:
        """Returns what the denoiser is shown of the product in pictures, (B, c, h, w), given masks (B, 1, H, W)."""

    def shares(self, masks: Tensor) -> Tensor:
        """Returns the share of each latent that lies under the product, (B, 1, h, w)."""

    def noise(self, noise: Tensor) -> Tensor:
        """Returns standard normal noise (B, c, h, w) out of noise of the pictures' shape."""

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pictures in [0, 1], (B, 3, H, W)."""


class PixelLatents:
    """The pixels themselves: c h w = 3 H W."""

    def encode(self, pictures: Tensor) -> Tensor:
        """See `Latents`."""
        return to_latents(pictures)

    def product(self, pictures: Tensor, masks: Tensor) -> Tensor:
        """See `Latents`; whole pictures, of which the denoiser looks under the mask only."""
        return to_latents(pictures)

    def shares(self, masks: Tensor) -> Tensor:
        """See `Latents`."""
        return masks

    def noise(self, noise: Tensor) -> Tensor:
        """See `Latents`."""
        return noise

    def decode(self, latents: Tensor) -> Tensor:
        """See `Latents`."""
        return to_pictures(latents)


@dataclass(frozen=True)
class AutoencoderLatents:
    """Latents of an `AutoencoderKL` or `AutoencoderDC`, scaled and shifted as its config says.

    An encoder looks past the product's border, so the product is encoded alone, on grey: the scene that is to be
    predicted cannot be read out of it.
    """

    autoencoder: Any

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """See `Latents`; the mean where the autoencoder gives a distribution."""
        inputs = to_latents(pictures).to(self._on(pictures).dtype)
        parts = [self._encoded(part) for part in inputs.split(_PICTURES_AT_ONCE)]
        return (torch.cat(parts).float() - self._shift) * self._scale

    def product(self, pictures: Tensor, masks: Tensor) -> Tensor:
        """See `Latents`."""
        return self.encode(masks * pictures + (1.0 - masks) * _GREY)

    def shares(self, masks: Tensor) -> Tensor:
        """See `Latents`."""
        return functional.avg_pool2d(masks, self.stride)

    def noise(self, noise: Tensor) -> Tensor:
        """See `Latents`; the first numbers of each picture's noise."""
        shape = self.shape(noise.shape[-1])
        return noise.flatten(1)[:, : shape[0] * shape[1] * shape[2]].unflatten(1, shape)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See `Latents`."""
        inputs = (latents / self._scale + self._shift).to(self._on(latents).dtype)
        parts = [self.autoencoder.decode(part).sample for part in inputs.split(_PICTURES_AT_ONCE)]
        return to_pictures(torch.cat(parts).float())

    def shape(self, image_px: int) -> tuple[int, int, int]:
        """Returns (c, h, w) of a square picture."""
        side = image_px // self.stride
        return self.autoencoder.config["latent_channels"], side, side

    @property
    def stride(self) -> int:
        """Side, in pixels, of what one latent stands for."""
        config = self.autoencoder.config
        blocks = config.get("encoder_block_out_channels") or config["block_out_channels"]
        return 2 ** (len(blocks) - 1)

    @property
    def _scale(self) -> float:
        return float(self.autoencoder.config["scaling_factor"])

    @property
    def _shift(self) -> float:
        return float(self.autoencoder.config.get("shift_factor") or 0.0)

    def _on(self, tensor: Tensor) -> Any:
        """Returns the autoencoder, brought to where `tensor` lies."""
        return self.autoencoder.to(tensor.device)

    def _encoded(self, pictures: Tensor) -> Tensor:
        output = self.autoencoder.encode(pictures)
        return output.latent if hasattr(output, "latent") else output.latent_dist.mode()
