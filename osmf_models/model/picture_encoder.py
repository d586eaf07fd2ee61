"""A small convolutional network that tells whole ad pictures from broken ones, whose last layer compares pictures.

Distances between sets of features belong in `evaluation/kernel_distance.py`, what it learns, and how, in
`training/fit_picture_encoder.py`.

Shapes: `B` pictures, `H W` pixels, `D` features.
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

_NUM_PICTURES_AT_ONCE = 128
_DETAIL_GAIN = 8.0


class PictureEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Convolutions that each halve the side; the last one's means over the picture are read by two linear heads.

    Beside its colours a picture's detail (what its 3 × 3 mean lacks) enters magnified: faint noise and seams are there.
    Features are standardised by the mean and deviation over pictures of training, whole and broken.

    Args:
        num_breaks: states that the first head tells apart: whole, and each way of being broken.
        num_scopes: product categories that the second head tells apart.
        widths: channels of each layer; `D` is the last.
    """

    @register_to_config
    def __init__(self, num_breaks: int, num_scopes: int, widths: Sequence[int] = (24, 32, 48)):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((6, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.standard = nn.BatchNorm1d(widths[-1], affine=False)
        self.breaks, self.scopes = nn.Linear(widths[-1], num_breaks), nn.Linear(widths[-1], num_scopes)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits of how pictures (B, 3, H, W) in [0, 1] are broken, and of their category, (B, …) each."""
        features = self.features(pictures)  # (B, D)
        return self.breaks(features), self.scopes(features)

    def features(self, pictures: Tensor) -> Tensor:
        """Returns the standardised features (B, D) of pictures (B, 3, H, W) in [0, 1]."""
        detail = pictures - functional.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
        seen = torch.cat([2.0 * pictures - 1.0, _DETAIL_GAIN * detail], 1)  # (B, 6, H, W)
        return torch.as_tensor(self.standard(self.layers(seen).mean((2, 3))))  # (B, D)

    @torch.no_grad()
    def encode(self, images: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns features (B, D) of pictures (B, H, W, 3), as they would be served: in 8 bits."""
        served = np.round(np.clip(images, 0.0, 1.0) * 255.0) / 255.0
        pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(served, -1, 1), np.float32))
        return torch.cat([self.features(part) for part in pixels.split(_NUM_PICTURES_AT_ONCE)]).double().numpy()
