"""Shows what a model draws: the same products for the same groups from the same noise each time.

Saving a model belongs in `training/hand_over.py`, judging by the truth in `osmf_models/evaluation`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from osmf_models.config import PretrainingConfig
from osmf_models.data.dataset import TrainingExport
from osmf_models.generation.picture_gate import LoggedPictures
from osmf_models.model.pipeline import GroupAdPipeline

_SHOWN_PX = 128
Drawn = dict[int, np.ndarray]
"""Row of a product in the export → pictures drawn of it, (groups, H, W, 3) in [0, 1]."""


def write_sample_grid(
    pipeline: GroupAdPipeline, export: TrainingExport, config: PretrainingConfig, path: Path
) -> Drawn:
    """Writes a PNG and returns what was drawn for it: one row per held-out product, one picture per group of its scope.

    A row begins with the product's cut-out. Small pictures are enlarged to about 128 px by repeating pixels.
    """
    held_out = export.products[export.products.split != "train"]
    products = held_out if not held_out.empty else export.products
    shown = [int(index) for index in products.index[: config.num_grid_rows]]
    drawn = {index: _drawn(pipeline, export, config, index) for index in shown}
    rows = [_grid_row(export.cutouts[index], drawn[index], config.num_grid_groups) for index in shown]
    grid = np.round(np.concatenate(rows) * 255).astype(np.uint8)
    scale = max(1, _SHOWN_PX // pipeline.image_px)
    Image.fromarray(np.kron(grid, np.ones((scale, scale, 1), np.uint8))).save(path)
    return drawn


def mean_scene_distance(drawn: Drawn, export: TrainingExport) -> float:
    """Returns how far drawn scenes are from the logged ones on average, in [0, 8], see `LoggedPictures.distance`."""
    logged = LoggedPictures.of(export)
    masks = {index: export.cutouts[index][..., 3] for index in drawn}
    return float(np.mean([logged.distance(one, masks[index]) for index, pictures in drawn.items() for one in pictures]))


def _drawn(pipeline: GroupAdPipeline, export: TrainingExport, config: PretrainingConfig, index: int) -> np.ndarray:
    """Returns a product's pictures, (groups, H, W, 3), of `num_grid_groups` groups of its scope at most."""
    product, cutout = export.products.iloc[index], export.cutouts[index]
    is_own = (export.groups.scope == product.scope) & ~export.groups.is_scope_root
    groups = np.flatnonzero(is_own)[: config.num_grid_groups]
    count = len(groups)
    pictures: np.ndarray = pipeline(
        np.repeat(cutout[None, ..., :3], count, 0),
        np.repeat(cutout[None, ..., 3], count, 0),
        [product.title or ""] * count,
        export.raw_group_features[groups],
        num_inference_steps=config.num_sampling_steps,
        generator=[torch.Generator().manual_seed(index) for _ in range(count)],
    )
    return pictures


def _grid_row(cutout: np.ndarray, pictures: np.ndarray, num_groups: int) -> np.ndarray:
    """Returns pictures side by side, (H, (1 + groups) * W, 3); a scope with fewer groups leaves grey."""
    shown, blank = cutout[..., :3] * cutout[..., 3:] + 0.5 * (1.0 - cutout[..., 3:]), num_groups - len(pictures)
    return np.concatenate([shown, *pictures, *[np.full_like(shown, 0.5)] * blank], axis=1)
