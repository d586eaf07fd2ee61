"""What a training leaves: a pipeline of its average, or without one of its fp32 weights; and checkpoints that can too.

Whatever the precision of training, weights are handed over in fp32, those that AdamW moved, not what the model saw of
them in bf16, so that all parts load alike. The average itself belongs in `averages.py`, what a pipeline is put together
from in `model/outline.py`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from osmf_models.config import PublishedConfig, TrainingConfig
from osmf_models.model.outline import OUTLINE_NAME, save_pipeline, trained_names, write_outline
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.training import zero
from osmf_models.training.averages import WeightAverage, averaged, has_average
from osmf_models.training.manifest import checkpoint_tags, newest_whole, verified_origin
from osmf_models.training.masters import checkpoint_weights, held_pieces, whole_weights


class HandOver:
    """The model of an engine as it will be handed over; goes along with a training, see `loop.train`.

    Args:
        engine: around a `GMllm`.
        training: its optimisation, which says whether there is an average.
        published: what of published parts is trained; None for whole layers.
    """

    def __init__(self, engine: Any, training: TrainingConfig, published: PublishedConfig | None):
        self._engine, self._published = engine, published
        self.average = WeightAverage(engine, training.ema_decay)

    def after_update(self) -> None:
        """Lets the average take in a step."""
        self.average.after_update()

    def save(self, folder: Path) -> None:
        """Writes into a checkpoint what its weights lack to be handed over; every process must call it."""
        self.average.save(folder)
        if zero.rank() == 0:
            write_outline(self._engine.module, self._published, folder / OUTLINE_NAME)

    def load(self, folder: Path) -> None:
        """Reads the average from a checkpoint; every process must call it."""
        self.average.load(folder)

    def save_model(self, folder: Path) -> GroupAdPipeline | None:
        """Writes the pipeline and returns it read back, on rank 0 only; every process must call it."""
        pieces = self.average.pieces if self.average.is_on else held_pieces(self._engine)
        weights = whole_weights(self._engine, pieces)
        if zero.rank() == 0:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".outline-", dir=folder.parent) as outline:
                write_outline(self._engine.module, self._published, Path(outline))
                save_pipeline(Path(outline), weights, folder)
        zero.barrier()
        if zero.rank() != 0:
            return None
        return GroupAdPipeline.from_pretrained(folder, local_files_only=True)


def export_checkpoint(checkpoint: Path, output: Path, is_averaged: bool | None = None) -> str:
    """Writes what the stage would have handed over, had it ended at a checkpoint, and returns the checkpoint's name.

    It needs one process and no GPU, whatever wrote the checkpoint.

    Args:
        checkpoint: its folder, or a folder of checkpoints, of which the newest whole one is taken.
        output: the pipeline's folder, to write; whole or absent.
        is_averaged: the running average of the weights, or the weights themselves; None for the average if there is
            one, as the stage itself would.

    Raises:
        ValueError: when the checkpoint is not whole or was written without an outline of its model, when there is no
            average that was asked for, or `output` holds something already.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} holds something already: name a new folder.")
    if checkpoint_tags(checkpoint):
        tag, origin = newest_whole(checkpoint)
        checkpoint = checkpoint / tag
    else:
        origin = verified_origin(checkpoint)
    outline = checkpoint / OUTLINE_NAME
    if not outline.is_dir():
        raise ValueError(f"{checkpoint} holds no outline of its model, without which it only serves --resume.")
    if is_averaged and not has_average(checkpoint):
        raise ValueError(f"{checkpoint} holds no average of the weights: export it with --no-average.")
    weights = checkpoint_weights(checkpoint, origin.zero_stage, trained_names(outline))
    if has_average(checkpoint) and is_averaged is not False:
        weights = averaged(checkpoint, weights)
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    save_pipeline(outline, weights, temporary)
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)
    return checkpoint.name
