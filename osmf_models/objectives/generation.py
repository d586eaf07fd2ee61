"""Flow-matching errors of predicted pictures, outside the product.

Sampling along the path belongs in `model/path.py`.

Shapes: `P` pictures, `C H W` latents.
"""

from __future__ import annotations

import torch
from torch import Tensor


def scene_errors(predicted: Tensor, target: Tensor, masks: Tensor) -> Tensor:
    """Returns the mean squared error of each picture outside its product, (P,).

    Args:
        predicted: clean latents, (P, C, H, W).
        target: the same of the picture itself.
        masks: share of each pixel under the product, (P, 1, H, W).
    """
    scene = 1.0 - masks
    squared = (predicted - target).square().mean(1, keepdim=True)  # (P, 1, H, W)
    return (squared * scene).sum((1, 2, 3)) / scene.sum((1, 2, 3)).clamp(min=1.0)


def warmth_errors(predicted: Tensor, target: Tensor, masks: Tensor) -> Tensor:
    """Returns the part of each picture's scene error that is warmth, red against blue, (P,).

    Of pixels, C = 3, errors are the sum of three parts, along warmth (1, 0, -1) and two directions across it. This
    project's own design; arguments as `scene_errors`.
    """
    difference = predicted - target
    warmth = (difference[:, :1] - difference[:, 2:]) / 2.0  # the projection on (1, 0, -1): (warmth, 0, -warmth)
    along = torch.cat([warmth, torch.zeros_like(warmth), -warmth], dim=1)
    return scene_errors(along, torch.zeros_like(along), masks)


def scene_error_gradients(predicted: Tensor, target: Tensor, masks: Tensor) -> Tensor:
    """Returns the gradient of each picture's scene error by its own prediction, (P, C, H, W); arguments as there."""
    scene = 1.0 - masks
    num_values = predicted.shape[1] * scene.sum((1, 2, 3), keepdim=True).clamp(min=1.0)
    return 2.0 * scene * (predicted - target) / num_values


def velocity_errors(clean_errors: Tensor, time: Tensor) -> Tensor:
    """Returns velocity errors (P,) of clean-image errors (P,): v̂ - v = (x_0 - x̂_0) / t on the straight path."""
    return clean_errors / time.square()


def generation_loss(clean_errors: Tensor, time: Tensor, time_floor: float) -> Tensor:
    """Returns the mean of errors weighted by 1 / max(t, floor)^2, a scalar.

    A floor of 1 leaves the clean-image error; a small one gives the velocity error of flow matching, which weighs
    detail (low noise) over layout and colour (high noise).
    """
    return (clean_errors / time.clamp(min=time_floor).square()).mean()
