"""Plans what a picture for a group is to look like, and tells the denoiser.

A look is what `scene_looks` measures of a scene, standardised over the pictures of training. While pretraining, the
denoiser is told the look of the very picture that it draws, and soon obeys; from the conditioning tokens the planner
learns how the looks are spread that the group prefers. Drawing follows the plan's mean, while pictures drawn at random
from what a group prefers would scatter around it. Preference optimisation moves the plan. This project's own design.

Shapes: `B` conditions, `P` pictures (B, or 2B with two pictures per condition), `S` conditioning tokens, `D` width, `T`
entries of a look, `H W` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from osmf_models.model.scene_statistics import CLEAR, LOOK_NAMES, scene_looks

_CLIP = 3.0  # deviations from the mean of the pictures of training
_LEAST_DEVIATION = 1e-3
_OUTSIDE = 0.01  # of the pictures of training, at either end of an entry's range
_LARGEST_NUDGE = 1.5  # deviations
_DAMPING, _TINY = 1e-3, 1e-10
_LEAST_LOG_VARIANCE, _START = -3.0, 2.0


@dataclass(frozen=True)
class PlannedLook:
    """How the looks are spread that a group prefers: independent normal distributions.

    Attributes:
        mean: what is drawn, (B, T).
        log_variance: at most 0, the spread of all pictures of training, (B, T).
    """

    mean: Tensor
    log_variance: Tensor

    def deviances(self, looks: Tensor) -> Tensor:
        """Returns -2 log density of looks (P, T), up to a constant, mean over their entries, (P,)."""
        mean, log_variance = self._for_each(looks)
        return ((looks - mean).square() * torch.exp(-log_variance) + log_variance).mean(1)

    def deviance_gradients(self, looks: Tensor) -> Tensor:
        """Returns the gradients of `deviances` by the plan's mean, (P, T)."""
        mean, log_variance = self._for_each(looks)
        return 2.0 * (mean - looks) * torch.exp(-log_variance) / looks.shape[1]

    def _for_each(self, looks: Tensor) -> tuple[Tensor, Tensor]:
        times = len(looks) // len(self.mean)
        return self.mean.float().repeat(times, 1), self.log_variance.float().repeat(times, 1)


class LookPlanner(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Conditioning tokens to the look that the group prefers, and a look to a token.

    Attributes:
        look_mean, look_deviation: by which looks are standardised, (T,).
        look_low, look_high: between which 98% of the pictures of training lie, standardised, (T,).
        tone_low, tone_high: 99% of them have no darker, or no lighter, channel value in their scene, ().
    """

    look_mean: Tensor
    look_deviation: Tensor
    look_low: Tensor
    look_high: Tensor
    tone_low: Tensor
    tone_high: Tensor

    @register_to_config
    def __init__(self, width: int):
        super().__init__()
        size = len(LOOK_NAMES)
        self.register_buffer("look_mean", torch.zeros(size))
        self.register_buffer("look_deviation", torch.ones(size))
        self.register_buffer("look_low", torch.full((size,), -_CLIP))
        self.register_buffer("look_high", torch.full((size,), _CLIP))
        self.register_buffer("tone_low", torch.tensor(0.0))
        self.register_buffer("tone_high", torch.tensor(1.0))
        self.plan = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * size))
        self.tell = nn.Sequential(nn.Linear(size, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def standardise_by(self, images: Tensor, masks: Tensor) -> None:
        """Takes mean, deviation and range of looks, and the range of tones, from pictures; arguments as `looks`."""
        looks = scene_looks(images, masks)
        self.look_mean.copy_(looks.mean(0))
        self.look_deviation.copy_(looks.std(0).clamp(min=_LEAST_DEVIATION))
        low, high = self.looks(images, masks).quantile(looks.new_tensor([_OUTSIDE, 1.0 - _OUTSIDE]), dim=0)
        self.look_low.copy_(low)
        self.look_high.copy_(high)
        darkest = torch.where(masks < CLEAR, images, 1.0).flatten(1).amin(1)
        lightest = torch.where(masks < CLEAR, images, 0.0).flatten(1).amax(1)
        self.tone_low.copy_(darkest.quantile(_OUTSIDE))
        self.tone_high.copy_(lightest.quantile(1.0 - _OUTSIDE))

    def looks(self, images: Tensor, masks: Tensor) -> Tensor:
        """Returns the looks of pictures, within 3 deviations, (P, T).

        Args:
            images: RGB in [0, 1], (P, 3, H, W).
            masks: share of each pixel under the product, (P, 1, H, W).
        """
        return self._standardised(images, masks).clamp(-_CLIP, _CLIP)

    def within_range(self, looks: Tensor) -> Tensor:
        """Returns looks (B, T) brought to what pictures of training show: beyond it nothing is known of a taste."""
        return torch.minimum(torch.maximum(looks, self.look_low.float()), self.look_high.float())

    def nudged(self, pictures: Tensor, masks: Tensor, wanted: Tensor) -> Tensor:
        """Returns pictures moved by as little as brings their looks to `wanted`, to first order, within the tones.

        It is a step of Newton's method for as many equations as a look has entries, of which the shortest of many
        solutions is taken. A picture that it would lead astray stays as it is.

        Args:
            pictures: RGB in [0, 1], (B, 3, H, W).
            masks: share of each pixel under the product, (B, 1, H, W).
            wanted: looks, (B, T).
        """
        with torch.enable_grad():
            varied = pictures.detach().requires_grad_(True)
            looks = self._standardised(varied, masks)
            entries = [looks[:, entry].sum() for entry in range(looks.shape[1])]
            rows = [torch.autograd.grad(entry, varied, retain_graph=True)[0].flatten(1) for entry in entries]
        slopes = torch.stack(rows, dim=1)  # (B, T, 3 H W)
        products = slopes @ slopes.transpose(1, 2)  # (B, T, T)
        sizes = products.diagonal(dim1=1, dim2=2)
        products = products + torch.diag_embed(_DAMPING * sizes + _TINY)
        gaps = (wanted - looks.detach()).clamp(-_LARGEST_NUDGE, _LARGEST_NUDGE)
        factors = torch.linalg.solve(products, gaps.unsqueeze(2))  # (B, T, 1)
        nudge = (slopes.transpose(1, 2) @ factors).view_as(pictures)
        low, high = pictures.detach().clamp(max=self.tone_low), pictures.detach().clamp(min=self.tone_high)
        moved = (pictures.detach() + nudge).clamp(low, high)
        is_nearer = (self._standardised(moved, masks) - wanted).norm(dim=1) < (looks.detach() - wanted).norm(dim=1)
        return torch.where(is_nearer.view(-1, 1, 1, 1), moved, pictures)

    def _standardised(self, images: Tensor, masks: Tensor) -> Tensor:
        return (scene_looks(images, masks) - self.look_mean.float()) / self.look_deviation.float()

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of the plan of conditioning tokens (B, S, D), (B, T) each.

        Plain tensors, since ZeRO-3 looks for gradients in these alone.
        """
        mean, spread = self.plan(tokens.mean(1)).chunk(2, dim=1)
        return mean, _LEAST_LOG_VARIANCE * torch.sigmoid(spread - _START)

    def planned(self, tokens: Tensor) -> PlannedLook:
        """Returns the plan of conditioning tokens (B, S, D)."""
        return PlannedLook(*self(tokens))

    def told(self, tokens: Tensor, looks: Tensor) -> Tensor:
        """Returns conditioning tokens with one more, which tells the look, (B, S + 1, D)."""
        return torch.cat([tokens, self.tell(looks.to(tokens.dtype)).unsqueeze(1)], dim=1)
