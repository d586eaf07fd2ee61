"""Whether a drawn picture is fit to be shown, where no truth is known: held against the logged pictures.

It sees pictures that broke (noise, flat colour, blown out colours, a product that is not the product), not those that
nobody likes: clicks decide on that. This project's own design.

Shapes: `B` pictures, `H W` pixels, `S` scene statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from osmf_models.data.collate import images_and_masks
from osmf_models.data.dataset import TrainingExport
from osmf_models.model.scene_statistics import scene_statistics

NOT_FINITE, PRODUCT_CHANGED, UNLIKE_LOGGED, CLIPPED = "not_finite", "product_changed", "unlike_logged", "clipped"
REASONS = (NOT_FINITE, PRODUCT_CHANGED, UNLIKE_LOGGED, CLIPPED)

_CLEAR = 0.02  # a pixel that the product covers less than this shows the scene alone
_ROUNDING = 1.0 / 255.0 + 1e-6
_MIN_DEVIATION = 0.02  # of a statistic that all logged pictures share
_MOST_DEVIATIONS = 8.0  # a statistic further off says no more
_MAX_LOGGED = 2_000
_AT_ONCE = 64
_USUAL_SHARE = 0.99


@dataclass(frozen=True)
class Limits:
    """What a picture may be like.

    Attributes:
        scene_distance: mean deviation of its scene statistics from the logged pictures' mean, in their standard
            deviations.
        clipped_excess: share of its scene's colour values at 0 or 255 above what 99% of logged pictures stay under.
    """

    scene_distance: float = 2.5
    clipped_excess: float = 0.15


@dataclass(frozen=True)
class PictureVerdict:
    """What the gate says of a picture.

    Attributes:
        scene_distance: see `Limits`, in [0, 8]; None where there is no picture.
        clipped_share: of its scene's colour values, in [0, 1]; None where there is no picture.
        refusal: one of `REASONS`, the first that holds; None where it may be shown.
    """

    scene_distance: float | None
    clipped_share: float | None
    refusal: str | None


@dataclass(frozen=True)
class LoggedPictures:
    """What logged pictures are like.

    Attributes:
        mean, deviation: of their scene statistics, (S,).
        usual_clipped_share: 99% of them have no more.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    usual_clipped_share: float

    @classmethod
    def of(cls, export: TrainingExport) -> LoggedPictures:
        """Returns what the export's pictures are like, by 2,000 of them at most.

        Raises:
            ValueError: when there are fewer than two.
        """
        count = len(export.creatives)
        if count < 2:
            raise ValueError(
                f"the export has {count} logged pictures with masks, and drawn ones are held against them: it needs 2."
            )
        chosen = np.unique(np.linspace(0, count - 1, min(count, _MAX_LOGGED)).astype(int))
        found, clipped = [], []
        for start in range(0, len(chosen), _AT_ONCE):
            images, masks = images_and_masks(export, chosen[start : start + _AT_ONCE])
            found.append(scene_statistics(images, masks).double().numpy())
            scenes = zip(np.moveaxis(images.numpy(), 1, -1), masks[:, 0].numpy(), strict=True)
            clipped += [_clipped_share(image, mask) for image, mask in scenes]
        statistics = np.concatenate(found)
        deviation = np.maximum(statistics.std(axis=0, ddof=1), _MIN_DEVIATION)
        return cls(statistics.mean(axis=0), deviation, float(np.quantile(clipped, _USUAL_SHARE)))

    def distance(self, image: NDArray[np.floating], mask: NDArray[np.floating]) -> float:
        """Returns the scene distance of a picture (H, W, 3) whose product covers `mask` (H, W)."""
        picture = torch.tensor(np.moveaxis(image, -1, 0)[None], dtype=torch.float32)
        found = scene_statistics(picture, torch.tensor(mask[None, None], dtype=torch.float32))[0].double().numpy()
        return float(np.minimum(np.abs(found - self.mean) / self.deviation, _MOST_DEVIATIONS).mean())


def judge_picture(
    pixels: NDArray[np.uint8] | None, cutout: NDArray[np.floating], logged: LoggedPictures, limits: Limits
) -> PictureVerdict:
    """Returns what the gate says of a picture as it is served.

    Args:
        pixels: (H, W, 3); None where the model drew no numbers.
        cutout: the product where it is to stand, RGBA in [0, 1], (H, W, 4).
        logged: pictures to hold it against.
        limits: what it may be like.
    """
    if pixels is None:
        return PictureVerdict(None, None, NOT_FINITE)
    image, mask = pixels.astype(np.float32) / 255.0, cutout[..., 3]
    is_product = mask == 1.0
    product_error = float(np.abs(image - cutout[..., :3])[is_product].max(initial=0.0))
    distance, clipped = logged.distance(image, mask), _clipped_share(image, mask)
    reasons = {
        PRODUCT_CHANGED: product_error > _ROUNDING,
        UNLIKE_LOGGED: distance > limits.scene_distance,
        CLIPPED: clipped > logged.usual_clipped_share + limits.clipped_excess,
    }
    return PictureVerdict(distance, clipped, next((reason for reason, holds in reasons.items() if holds), None))


def _clipped_share(image: NDArray[np.floating], mask: NDArray[np.floating]) -> float:
    scene = image[mask < _CLEAR]
    return float(((scene <= 0.0) | (scene >= 1.0)).mean()) if scene.size else 0.0
