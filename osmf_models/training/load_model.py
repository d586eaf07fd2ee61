"""Reads a trained model for an export. Reading checkpoints of an unfinished training belongs in `checkpoint.py`."""

from __future__ import annotations

from pathlib import Path

from osmf_models.data.dataset import TrainingExport
from osmf_models.model.gmllm import GMllm
from osmf_models.model.pipeline import GroupAdPipeline


def load_gmllm(folder: Path, export: TrainingExport) -> GMllm:
    """Returns a trained model's parts as one module, in training mode.

    Args:
        folder: of a `GroupAdPipeline`.
        export: whose groups and pictures it is for.

    Raises:
        ValueError: when it was trained for other group features or another picture size.
    """
    pipeline = GroupAdPipeline.from_pretrained(folder, local_files_only=True)
    if list(pipeline.group_encoder.config["feature_names"]) != list(export.manifest.group_feature_names):
        raise ValueError(f"{folder} was trained for other group features than the export's: pretrain again.")
    if pipeline.image_px != export.manifest.image_px:
        raise ValueError(f"{folder} draws {pipeline.image_px} px, the export holds {export.manifest.image_px} px.")
    return pipeline.gmllm.train()
