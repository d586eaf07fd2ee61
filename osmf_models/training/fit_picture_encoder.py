"""Fits the picture encoder to an export's logged pictures of split train: seconds on one core, the same by seed.

Its task needs no labels but the logs' own: pictures are broken in known ways, and it learns to tell in which, and of
which product category a crop is. What it is belongs in `model/picture_encoder.py`, what it measures in
`evaluation/kernel_distance.py`.

Shapes: `B` pictures, `H W` pixels.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from osmf_models.data.collate import images_and_masks
from osmf_models.data.dataset import TrainingExport
from osmf_models.file_hashes import folder_digest
from osmf_models.model.picture_encoder import PictureEncoder
from osmf_models.records import PICTURE_ENCODER_NAME

logger = logging.getLogger(__name__)

_SEED = 0
_NUM_STEPS = 300
_NUM_PICTURES = 8  # of a step, each whole and broken in every way
_LEARNING_RATE = 3e-3
_LARGEST_CROP_PX = 48
_PATCH_PX = 4
_LEAST_STRENGTH = 0.1


@dataclass(frozen=True)
class NamedEncoder:
    """A frozen encoder, and what names it beside every figure: architecture and fit, and the hash over its files."""

    model: PictureEncoder
    name: str
    sha256: str


def shared_encoder(export: TrainingExport, folder: Path) -> NamedEncoder:
    """Returns the export's encoder from `folder`, where it is fitted and kept at the first call.

    Raises:
        ValueError: when there is nothing to fit it to.
    """
    kept = folder / f"{PICTURE_ENCODER_NAME}-{export.manifest.data_hash[:12]}"
    if not kept.is_dir():
        temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
        fit_picture_encoder(export).save_pretrained(temporary, safe_serialization=True)
        try:
            temporary.rename(kept)
        except OSError:  # another process was first
            shutil.rmtree(temporary)
    model = PictureEncoder.from_pretrained(kept, local_files_only=True).eval().requires_grad_(False)
    return NamedEncoder(model, PICTURE_ENCODER_NAME, folder_digest(kept))


def fit_picture_encoder(export: TrainingExport, seed: int = _SEED) -> PictureEncoder:
    """Returns an encoder fitted to the logged pictures of split train.

    One thread computes it, so that the same pictures make the same encoder.

    Raises:
        ValueError: when no product of split train has a picture.
    """
    is_train = (export.products.split == "train").to_numpy()
    product_index = export.creatives.product_index.to_numpy()
    rows = np.flatnonzero((product_index >= 0) & is_train[product_index])
    if not len(rows):
        raise ValueError("the export has no pictures of split train: there is nothing to fit a picture encoder to.")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _fitted(export, rows)
    finally:
        torch.set_num_threads(num_threads)


def _fitted(export: TrainingExport, rows: NDArray[np.int64]) -> PictureEncoder:
    scopes = torch.from_numpy(export.products.scope.iloc[export.creatives.product_index.iloc[rows]].factorize()[0])
    num_breaks = 1 + len(BREAKS)
    model = PictureEncoder(num_breaks, int(scopes.max()) + 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, _NUM_STEPS)
    told = torch.arange(num_breaks).repeat_interleave(_NUM_PICTURES)
    for _ in range(_NUM_STEPS):
        drawn = torch.randint(len(rows), (_NUM_PICTURES,))
        pictures, _ = images_and_masks(export, rows[drawn.numpy()])
        of_breaks, of_scopes = model(whole_and_broken(_cropped(pictures)))
        errors = functional.cross_entropy(of_breaks, told)
        loss = errors + functional.cross_entropy(of_scopes, scopes[drawn].repeat(num_breaks))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    logger.info(
        "picture encoder %s: cross-entropy %.2f on how pictures are broken, fitted to %d pictures",
        PICTURE_ENCODER_NAME,
        errors.item(),
        len(rows),
    )
    return model.eval().requires_grad_(False)


def _cropped(pictures: Tensor) -> Tensor:
    """Returns a crop of three quarters of the side, or 48 px, in whole patches, each half the time mirrored."""
    height, width = pictures.shape[-2:]
    side = min(_LARGEST_CROP_PX, 3 * min(height, width) // 4) // _PATCH_PX * _PATCH_PX
    crops = []
    for picture in pictures:
        top, left = (int(torch.randint(size - side + 1, ())) for size in (height, width))
        crop = picture[:, top : top + side, left : left + side]
        crops.append(crop.flip(2) if torch.rand(()) < 0.5 else crop)
    return torch.stack(crops)


def whole_and_broken(whole: Tensor) -> Tensor:
    """Returns pictures (B, 3, H, W), then all of `BREAKS` of them, as served; strengths are even in logarithm."""
    parts = [whole]
    for broken in BREAKS:
        parts.append(broken(whole, _LEAST_STRENGTH ** torch.rand(len(whole), 1, 1, 1)))
    return (torch.cat(parts).clamp(0.0, 1.0) * 255.0).round() / 255.0


def _noisy(whole: Tensor, strength: Tensor) -> Tensor:
    return whole + 0.2 * strength * torch.randn_like(whole)


def _blurred(whole: Tensor, strength: Tensor) -> Tensor:
    return whole.lerp(functional.avg_pool2d(whole, 5, 1, 2, count_include_pad=False), strength)


def _seamed(whole: Tensor, strength: Tensor) -> Tensor:
    """Patches whose colour does not fit their neighbours'."""
    offsets = torch.randn(len(whole), 3, *(side // _PATCH_PX for side in whole.shape[-2:]))
    return whole + 0.2 * strength * functional.interpolate(offsets, scale_factor=_PATCH_PX)


def _shuffled(whole: Tensor, strength: Tensor) -> Tensor:
    """Patches from another place, in a share of all places."""
    patches = functional.pixel_unshuffle(whole, _PATCH_PX)
    moved = patches.flatten(2)[..., torch.randperm(patches[0, 0].numel())].view_as(patches)
    is_moved = torch.rand_like(patches[:, :1]) < strength
    return functional.pixel_shuffle(torch.where(is_moved, moved, patches), _PATCH_PX)


BREAKS = (_noisy, _blurred, _seamed, _shuffled)
