"""Statistics of a picture's scene: colour and light, where they lie, and how they change from pixel to pixel.

They are what a small model can learn from a few hundred pictures, and they say little about how sharp a picture is
beyond the texture that it shows. What anybody likes about a picture belongs in `group_reward.py`. This project's own
design.

Shapes: `B` pictures, `C` = 4 channels (luma, red minus blue, green minus the mean of the two, saturation), `H W`
pixels, `S` statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from osmf_models.image_features import FEATURE_NAMES

LOOK_NAMES = (*FEATURE_NAMES, "coarseness", "clutter", "shadow", "horizon")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_NUM_CHANNELS = 4
_NUM_BANDS = 4
CLEAR = 0.02  # a pixel that the product covers less than this shows the scene alone
_TINY = 1e-6
_NEAR_LAGS = (1, 2)


def lags_px(image_px: int) -> tuple[int, ...]:
    """Returns the distances at which pixels are compared: 1, 2, 4, … up to an eighth of the side."""
    return tuple(2**power for power in range(max(1, (image_px // 8).bit_length())))


def num_statistics(image_px: int) -> int:
    """Returns `S`."""
    return _NUM_CHANNELS * (2 + _NUM_BANDS + 2 * len(lags_px(image_px)) + 2 + 1)


def scene_statistics(images: Tensor, masks: Tensor) -> Tensor:
    """Returns statistics of the pixels that show nothing of the product, (B, S).

    Of each channel: mean and deviation over the scene; means of four bands from top to bottom; logarithm of the root
    mean square step over each lag, down and across; how the rim of the product, and what lies right below it, depart
    from the scene; mean departure from the own row's mean, where things stand out.

    Args:
        images: RGB in [0, 1], (B, 3, H, W).
        masks: share of each pixel under the product, (B, 1, H, W).
    """
    channels, scene = _channels(images), (masks < CLEAR).to(images.dtype)
    mean = _mean(channels, scene)  # (B, C)
    departure = channels - mean[..., None, None]
    deviation = _mean(departure.square(), scene).clamp(min=_TINY).sqrt()
    bands = [_mean(*parts) for parts in zip(channels.chunk(_NUM_BANDS, 2), scene.chunk(_NUM_BANDS, 2), strict=True)]
    steps = [_log_step(channels, scene, axis, lag) for lag in lags_px(images.shape[-1]) for axis in (2, 3)]
    rim, below = (_mean(departure, place * scene) for place in _places_at(masks))
    rows = _mean(channels, scene, (3,))  # (B, C, H)
    standing_out = _mean((channels - rows[..., None]).abs(), scene)
    return torch.cat([mean, deviation, *bands, *steps, rim, below, standing_out], dim=1)  # (B, S)


def scene_looks(images: Tensor, masks: Tensor) -> Tensor:
    """Returns how scenes look, (B, 9), in the order of `LOOK_NAMES`, on the pictures' device.

    Brightness, warmth, saturation and gradient agree with `image_features.py` but for the rim of the product, which
    counts here as no scene; texture is the logarithm of theirs. Coarseness: by how much the step across grows from one
    lag to the next; clutter: how much green or magenta stands out from its row, while light and walls vary between red
    and blue; shadow: by how much luma below the middle of the product's foot is lower than beside it; horizon: height
    at which rows' warmth changes most, 0 is the top. Arguments as `scene_statistics`.
    """
    channels, scene = _channels(images), (masks < CLEAR).to(images.dtype)
    luma, warmth, _, saturation = _mean(channels, scene).unbind(1)
    near, far = (_log_step(channels, scene, 3, lag)[:, 0] for lag in _NEAR_LAGS)
    steps = torch.stack([_log_step(channels, scene, axis, 1)[:, 0] for axis in (2, 3)])
    texture = (2.0 * steps).exp().mean(0).log() / 2
    upper, lower = (_mean(*halves)[:, 0] for halves in zip(channels.chunk(2, 2), scene.chunk(2, 2), strict=True))
    rows = _mean(channels, scene, (3,))  # (B, C, H)
    clutter = _mean((channels - rows[..., None]).abs(), scene)[:, 2]
    beside, below = (_mean(channels, place * scene)[:, 0] for place in _foot_of(masks))
    values = [
        luma,
        warmth,
        saturation,
        texture,
        upper - lower,
        far - near,
        clutter,
        beside - below,
        _horizon(rows[:, 1]),
    ]
    return torch.stack(values, dim=1)


def _horizon(warmth: Tensor) -> Tensor:
    """Mean height of the changes between rows (B, H), by their squares, as share of the height, (B,)."""
    changes = warmth.diff(dim=1).square() + _TINY
    heights = torch.arange(1, warmth.shape[1], dtype=warmth.dtype, device=warmth.device) / warmth.shape[1]
    return (changes * heights).sum(1) / changes.sum(1)


def _foot_of(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows right below the product, beside it and under its middle half, (B, 1, H, W) each."""
    reach = max(1, masks.shape[-1] // 16)
    solid = (masks > 0.5).to(masks.dtype)
    heights = torch.arange(masks.shape[2], device=masks.device).view(1, 1, -1, 1)
    last = (solid.amax(3, keepdim=True) * heights).amax(2, keepdim=True)  # (B, 1, 1, 1)
    rows = ((heights > last) & (heights <= last + reach)).to(masks.dtype)
    foot = (solid * (heights > last - reach)).amax(2, keepdim=True)  # (B, 1, 1, W)
    places = torch.arange(masks.shape[3], device=masks.device, dtype=masks.dtype).view(1, 1, 1, -1)
    width = foot.sum(3, keepdim=True)
    middle = (foot * places).sum(3, keepdim=True) / width.clamp(min=1.0)
    is_under = ((places - middle).abs() <= width / 4).to(masks.dtype)
    return rows * (1.0 - foot), rows * is_under


def _channels(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    luma = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    saturation = images.amax(1) - images.amin(1)
    return torch.stack([luma, red - blue, green - (red + blue) / 2, saturation], dim=1)


def _mean(values: Tensor, weights: Tensor, axes: tuple[int, ...] = (2, 3)) -> Tensor:
    return (values * weights).sum(axes) / weights.sum(axes).clamp(min=_TINY)


def _log_step(channels: Tensor, scene: Tensor, axis: int, lag: int) -> Tensor:
    length = channels.shape[axis] - lag
    step = channels.narrow(axis, lag, length) - channels.narrow(axis, 0, length)
    is_seen = scene.narrow(axis, lag, length) * scene.narrow(axis, 0, length)
    return (_mean(step.square(), is_seen) + _TINY).log() / 2


def _places_at(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where the rim around the product is, and what lies right below it, (B, 1, H, W) each."""
    reach = max(1, masks.shape[-1] // 10)
    solid = (masks > 0.5).to(masks.dtype)
    rim = functional.max_pool2d(solid, 2 * reach + 1, stride=1, padding=reach) - solid
    lowered = functional.pad(solid, (0, 0, reach, 0))[:, :, : masks.shape[2]]
    return rim, (lowered - solid).clamp(min=0)
