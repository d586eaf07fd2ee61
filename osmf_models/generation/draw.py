"""Draws what is asked for with a trained pipeline, a batch at a time.

A batch is always made of the same requests, also when most of it is on disk already, so that a run that goes on draws
what it would have drawn. On a GPU last digits may differ between two runs; the noise does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from osmf_models.data.dataset import TrainingExport
from osmf_models.generation.requests import EVERYONE, Drawing, PictureRequest
from osmf_models.generation.store import PictureStore
from osmf_models.model.pipeline import GroupAdPipeline

Draw = Callable[[Sequence[PictureRequest]], NDArray[np.floating]]
"""requests that are all for everyone, or all for groups → pictures (B, H, W, 3) in [0, 1]."""

_PICTURES_AT_ONCE = 64
_PIXELS_AT_ONCE = _PICTURES_AT_ONCE * 256**2


def load_pipeline(model: Path, export: TrainingExport) -> GroupAdPipeline:
    """Returns a saved pipeline, on the GPU where there is one.

    Raises:
        ValueError: when it cannot draw for the groups and the products of the export.
    """
    pipeline = GroupAdPipeline.from_pretrained(model, local_files_only=True)
    if tuple(pipeline.group_encoder.config["feature_names"]) != export.manifest.group_feature_names:
        raise ValueError(
            f"{model} knows other group features than the groups of {export.manifest.as_of_date} have: train a model "
            "on that day's export and promote it."
        )
    if pipeline.image_px != export.manifest.image_px:
        raise ValueError(
            f"{model} draws {pipeline.image_px} px, the products of {export.manifest.as_of_date} have "
            f"{export.manifest.image_px}: train a model on that day's export and promote it."
        )
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    return pipeline


def draw_with(pipeline: GroupAdPipeline, export: TrainingExport, drawing: Drawing) -> Draw:
    """Returns how `pipeline` draws for the groups and products of `export`."""

    def draw(requests: Sequence[PictureRequest]) -> NDArray[np.floating]:
        cutouts = np.stack([export.cutouts[one.product_index] for one in requests])
        for_everyone = requests[0].audience == EVERYONE
        groups = [one.group_index for one in requests]
        return pipeline(
            cutouts[..., :3],
            cutouts[..., 3],
            [str(export.products.title[one.product_index] or "") for one in requests],
            None if for_everyone else export.raw_group_features[groups],
            num_inference_steps=drawing.num_inference_steps,
            guidance_scale=drawing.guidance_scale,
            generator=[torch.Generator().manual_seed(one.seed) for one in requests],
        )

    return draw


def batches(requests: Sequence[PictureRequest], image_px: int) -> Iterator[list[PictureRequest]]:
    """Yields requests, one for each fingerprint, in batches that fit in memory; a batch is for everyone or for groups.

    Args:
        requests: in a fixed order.
        image_px: side of the pictures.
    """
    at_once = max(1, min(_PICTURES_AT_ONCE, _PIXELS_AT_ONCE // image_px**2))
    distinct = {one.fingerprint: one for one in requests}.values()
    ordered = sorted(distinct, key=lambda one: one.audience != EVERYONE)
    for _, found in groupby(ordered, key=lambda one: one.audience != EVERYONE):
        alike = list(found)
        for start in range(0, len(alike), at_once):
            yield alike[start : start + at_once]


def draw_missing(batch: Sequence[PictureRequest], draw: Draw, store: PictureStore, drawing: Drawing) -> int:
    """Draws and stores the pictures of a batch that are not in the store; returns how many were drawn.

    A picture with values that are no finite numbers is not stored.
    """
    missing = [index for index, request in enumerate(batch) if store.read(request) is None]
    if missing:
        images = draw(batch)
        for index in missing:
            if np.isfinite(images[index]).all():
                store.write(batch[index], drawing, images[index])
    return len(missing)
