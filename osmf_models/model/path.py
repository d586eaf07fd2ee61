"""Flow matching on the straight path between a picture and noise: t = 0 is the picture, t = 1 is noise.

How the loss weighs errors belongs in `objectives/`, solving the path in `sampler.py`.

Shapes: `B C H W` latents, time (B,).

Source: Lipman et al., Flow Matching for Generative Modeling, arXiv 2210.02747; Liu et al., Rectified Flow,
arXiv 2209.03003.
"""

from __future__ import annotations

from torch import Tensor


def at_time(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Returns x_t = (1 - t) x_0 + t eps, (B, C, H, W)."""
    t = time.view(-1, 1, 1, 1)
    return (1.0 - t) * clean + t * noise


def velocity_from_clean(noisy: Tensor, clean: Tensor, time: Tensor) -> Tensor:
    """Returns the velocity dx_t/dt = (x_t - x_0) / t that points from a (predicted) clean picture, (B, C, H, W)."""
    return (noisy - clean) / time.view(-1, 1, 1, 1)


def biased_time(uniform: float, power: float, smallest: float = 0.02) -> float:
    """Maps a uniform draw to a time in [smallest, 1]: t = 1 - u^power, nearer to noise for powers above 1."""
    return smallest + (1.0 - smallest) * (1.0 - uniform**power)
