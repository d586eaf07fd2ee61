"""Shows what a model draws: the same products for the same groups from the same noise each time.

Saving a model belongs in `training/hand_over.py`, judging pictures in `osmf_models/evaluation`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from osmf_models.config import PretrainingConfig
from osmf_models.data.dataset import TrainingExport
from osmf_models.model.pipeline import GroupAdPipeline

_SHOWN_PX = 128


def write_sample_grid(pipeline: GroupAdPipeline, export: TrainingExport, config: PretrainingConfig, path: Path) -> None:
    """Writes a PNG: one row per held-out product, its cut-out first, then one picture per group of its scope.

    Small pictures are enlarged to about 128 px by repeating pixels.
    """
    held_out = export.products[export.products.split != "train"]
    products = held_out if not held_out.empty else export.products
    rows = [_grid_row(pipeline, export, config, int(index)) for index in products.index[: config.num_grid_rows]]
    grid = np.round(np.concatenate(rows) * 255).astype(np.uint8)
    scale = max(1, _SHOWN_PX // pipeline.image_px)
    Image.fromarray(np.kron(grid, np.ones((scale, scale, 1), np.uint8))).save(path)


def _grid_row(pipeline: GroupAdPipeline, export: TrainingExport, config: PretrainingConfig, index: int) -> np.ndarray:
    """Returns pictures side by side, (H, (1 + groups) * W, 3); a scope with fewer groups leaves grey."""
    product, cutout = export.products.iloc[index], export.cutouts[index]
    is_own = (export.groups.scope == product.scope) & ~export.groups.is_scope_root
    groups = np.flatnonzero(is_own)[: config.num_grid_groups]
    count, blank = len(groups), config.num_grid_groups - len(groups)
    pictures = pipeline(
        np.repeat(cutout[None, ..., :3], count, 0),
        np.repeat(cutout[None, ..., 3], count, 0),
        [product.title or ""] * count,
        export.raw_group_features[groups],
        num_inference_steps=config.num_sampling_steps,
        generator=[torch.Generator().manual_seed(index) for _ in range(count)],
    )
    shown = cutout[..., :3] * cutout[..., 3:] + 0.5 * (1.0 - cutout[..., 3:])
    return np.concatenate([shown, *pictures, *[np.full_like(shown, 0.5)] * blank], axis=1)
