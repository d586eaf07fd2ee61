"""Between pictures in [0, 1] and the latents that the denoiser works on: here the pixels themselves, in [-1, 1].

A variational autoencoder of `diffusers` would take this file's place at larger sizes.

Shapes: `B C H W`.
"""

from __future__ import annotations

from torch import Tensor


def to_latents(pictures: Tensor) -> Tensor:
    """Returns latents (B, 3, H, W) of pictures in [0, 1]."""
    return 2.0 * pictures - 1.0


def to_pictures(latents: Tensor) -> Tensor:
    """Returns pictures in [0, 1], (B, 3, H, W); latents beyond the range of pictures are clipped."""
    return ((latents + 1.0) / 2.0).clamp(0.0, 1.0)
