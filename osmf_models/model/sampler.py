"""Solves the flow from noise to a picture, guided by group and by text independently.

Shapes: `B C H W` latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from osmf_models.model.path import velocity_from_clean

CleanPrediction = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, C, H, W), time (B,)) → predicted clean picture (B, C, H, W)."""

Steering = Callable[[Tensor], Tensor]
"""Predicted clean latents (B, C, H, W) → what is taken in their place."""

_STEERED_UNTIL, _STEERED_FROM = 0.05, 0.8


@dataclass(frozen=True)
class GuidedPredictions:
    """The same denoiser under three conditions: nothing, the text alone, the text and the group."""

    unconditional: CleanPrediction
    text: CleanPrediction
    group_and_text: CleanPrediction

    def at_scale(self, group_scale: float, text_scale: float) -> CleanPrediction:
        """Returns x̂(∅) + s_text (x̂(text) - x̂(∅)) + s_group (x̂(text, group) - x̂(text)).

        Passes whose factor is 0 are not computed. Source: two independent conditions as in Brooks et al.,
        InstructPix2Pix, arXiv 2211.09800, section 3.2.1; linear in the clean prediction as it is in the velocity.
        """
        factors = (
            (self.group_and_text, group_scale),
            (self.text, text_scale - group_scale),
            (self.unconditional, 1.0 - text_scale),
        )

        def predict(noisy: Tensor, time: Tensor) -> Tensor:
            terms = [factor * prediction(noisy, time) for prediction, factor in factors if factor != 0.0]
            return torch.stack(terms).sum(0)

        return predict


def steered(predict: CleanPrediction, steer: Steering) -> CleanPrediction:
    """Returns `predict` with its clean pictures steered between t = 0.8 and 0.05.

    Before, there is hardly a picture; what steps follow (none where there are fewer than 20) are the denoiser's alone.
    """

    def predict_steered(noisy: Tensor, time: Tensor) -> Tensor:
        clean = predict(noisy, time)
        return steer(clean) if _STEERED_UNTIL <= float(time[0]) <= _STEERED_FROM else clean

    return predict_steered


def integrate(predict: CleanPrediction, noise: Tensor, num_steps: int, is_second_order: bool = False) -> Tensor:
    """Returns the latents at t = 0.

    Args:
        predict: the (guided) clean prediction.
        noise: latents at t = 1, (B, C, H, W).
        num_steps: equal steps from t = 1 to 0.
        is_second_order: Heun's correction in every step but the last, which is exact as it is.
    """
    latents = noise
    times = torch.linspace(1.0, 0.0, num_steps + 1).tolist()
    for time, next_time in pairwise(times):
        velocity = _velocity(predict, latents, time)
        step = next_time - time
        if is_second_order and next_time > 0.0:
            ahead = _velocity(predict, latents + step * velocity, next_time)
            velocity = (velocity + ahead) / 2.0
        latents = latents + step * velocity
    return latents


def _velocity(predict: CleanPrediction, latents: Tensor, time: float) -> Tensor:
    times = latents.new_full((len(latents),), time)
    return velocity_from_clean(latents, predict(latents, times), times)
