"""A group's taste as a function of a picture: what judges new pictures where no truth is known.

A score is meaningful only against another of the same product and group: the difference is the logarithm of the ratio
of the two click rates, as far as pairs teach it. Fitting it belongs in `training/fit_reward.py`. It says nothing of
broken pictures, since none are logged: a measure of quality must stand beside it.

Shapes: `B` pictures, `F` group features, `S` statistics, `W` width, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from osmf_models.data.dataset import normalised_features
from osmf_models.model.scene_statistics import num_statistics, scene_statistics

_CLIP = 3.0  # deviations from the mean of logged pictures beyond which nothing is learned, so nothing is claimed


class GroupReward(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A perceptron over the scene's statistics, modulated by the group.

    Source of the modulation: Perez et al., FiLM, arXiv 1709.07871.

    Args:
        feature_names: of the groups.
        feature_mean, feature_scale: by which group features are normalised.
        image_px: side of the pictures.
        width: `W`.
        dropout: share of statistics, and of the last layer's values, that a training step does not see.

    Attributes:
        statistic_mean, statistic_scale: by which statistics are normalised, (S,).
        temperature: σ(difference of scores / temperature) is the probability that the order is right, a scalar.
    """

    statistic_mean: Tensor
    statistic_scale: Tensor
    temperature: Tensor

    @register_to_config
    def __init__(
        self,
        feature_names: Sequence[str],
        feature_mean: Sequence[float],
        feature_scale: Sequence[float],
        image_px: int,
        width: int,
        dropout: float,
    ):
        super().__init__()
        size = num_statistics(image_px)
        self.register_buffer("statistic_mean", torch.zeros(size))
        self.register_buffer("statistic_scale", torch.ones(size))
        self.register_buffer("temperature", torch.ones(()))
        self.scene = nn.Linear(size, width)
        taste, modulation = nn.Linear(len(feature_names), width), nn.Linear(width, 2 * width)
        self.group = nn.Sequential(taste, nn.SiLU(), modulation)
        self.mixed = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)
        self.forget = nn.Dropout(dropout)
        for parameter in (modulation.weight, modulation.bias, self.score.weight):  # at first, everybody is indifferent
            nn.init.zeros_(parameter)

    def forward(self, statistics: Tensor, group_features: Tensor) -> Tensor:
        """Returns the scores, (B,).

        Args:
            statistics: normalised and clipped, as `normalised` returns them, (B, S).
            group_features: normalised, (B, F).
        """
        shift, scale = self.group(group_features).chunk(2, dim=1)  # (B, W) each
        seen = functional.silu(self.scene(self.forget(statistics)))  # (B, W)
        mixed = functional.silu(self.mixed(seen) * (1.0 + scale) + shift)  # (B, W)
        return self.score(self.forget(mixed)).squeeze(1)  # (B,)

    def normalised(self, statistics: Tensor) -> Tensor:
        """Returns statistics with mean 0 and deviation 1 over the pictures of training, clipped to what these span.

        So a picture that is harsher, softer or noisier than any logged one is never better for it.
        """
        return ((statistics - self.statistic_mean) / self.statistic_scale).clamp(-_CLIP, _CLIP)

    @torch.no_grad()
    def score_pictures(
        self, images: NDArray[np.floating], masks: NDArray[np.floating], group_features: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Returns the scores of pictures, (B,).

        Args:
            images: RGB in [0, 1], (B, H, W, 3).
            masks: share of each pixel under the product, (B, H, W).
            group_features: as exported, (B, F).

        Raises:
            ValueError: when pictures have another size, or group features another length, than in training.
        """
        config = self.config
        if images.shape[1:] != (config["image_px"], config["image_px"], 3):
            raise ValueError(f"pictures are {images.shape[1:]}, the reward model knows {config['image_px']} px.")
        if group_features.shape[1:] != (len(config["feature_names"]),):
            raise ValueError(f"expected {len(config['feature_names'])} group features, got {group_features.shape[1:]}.")
        features = normalised_features(group_features, config["feature_mean"], config["feature_scale"])
        statistics = self.normalised(picture_statistics(images, masks))
        return self.eval()(statistics, torch.from_numpy(features)).double().numpy()


def picture_statistics(images: NDArray[np.floating], masks: NDArray[np.floating]) -> Tensor:
    """Returns the statistics (B, S) of pictures (B, H, W, 3) with masks (B, H, W)."""
    pixels, shares = np.array(np.moveaxis(images, -1, 1), np.float32), np.array(masks, np.float32)
    return scene_statistics(torch.from_numpy(pixels), torch.from_numpy(shares).unsqueeze(1))
