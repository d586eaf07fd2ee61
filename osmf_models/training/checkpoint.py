"""Checkpoints that are whole or absent: a temporary folder, a manifest of hashes, a rename, then a pointer.

DeepSpeed's own pointer is written too early and its files are pickles, so a checkpoint is verified before it is read
(`manifest.py`). Reading one that other processes wrote belongs in `universal.py`; handing over a trained model
(safetensors) in `model/pipeline.py`.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from osmf_models.config import TrainingConfig
from osmf_models.training import zero
from osmf_models.training.manifest import (
    Origin,
    checkpoint_tag,
    checkpoint_tags,
    newest_whole,
    write_manifest,
    write_pointer,
)
from osmf_models.training.universal import load_converted

logger = logging.getLogger(__name__)

NUM_KEPT = 2
# The moments of a save at which it may be interrupted: whichever it is, the newest whole checkpoint is the one before
# or the one being written. The first and the last process each tell them; all but `shards` are the first one's alone.
PHASES = ("clear", "shards", "manifest", "publish", "point", "prune")
OnPhase = Callable[[str, int], None]
"""(phase, step): told as each phase begins."""

# Settings that may change between a checkpoint and going on from it: the course of training does not depend on them.
_FREE_SETTINGS = ("log_every", "checkpoint_every", "max_skipped_steps")
_IF_UNTOLD = {"ema_decay": 0.0}  # what a checkpoint was trained with that does not name the setting
_NOTHING_MORE: Mapping[str, Any] = {}


class Companion(Protocol):
    """Goes along with the weights of a training and is saved with them; every process calls it."""

    def after_update(self) -> None:
        """Is told that a step was taken, and not skipped."""

    def save(self, folder: Path) -> None:
        """Writes what it needs into the folder of a checkpoint."""

    def load(self, folder: Path) -> None:
        """Takes up what `save` wrote, once the weights of the checkpoint are in their place."""


def tell_nobody(phase: str, step: int) -> None:
    """The `OnPhase` of a run that nobody interrupts."""


def save_checkpoint(
    engine: Any,
    folder: Path,
    step: int,
    config: TrainingConfig,
    on_phase: OnPhase = tell_nobody,
    companion: Companion | None = None,
    course: Mapping[str, Any] = _NOTHING_MORE,
) -> None:
    """Writes the state after `step` steps and points at it; the one before is kept, all others are removed."""
    tag, temporary = checkpoint_tag(step), f"tmp-{step:07d}"
    is_first = zero.rank() == 0
    if is_first:
        on_phase("clear", step)
        for stale in folder.glob("tmp-*"):
            shutil.rmtree(stale)
        folder.mkdir(parents=True, exist_ok=True)
    zero.barrier()
    on_phase("shards", step)
    zero.save_sharded(engine, folder, temporary, {"step": step})
    if companion is not None:
        companion.save(folder / temporary)
    zero.barrier()
    if is_first:
        on_phase("manifest", step)
        write_manifest(folder / temporary, origin_of(engine, step, config, course))
        on_phase("publish", step)
        shutil.rmtree(folder / tag, ignore_errors=True)
        (folder / temporary).rename(folder / tag)
        on_phase("point", step)
        write_pointer(folder, tag)
        on_phase("prune", step)
        _prune(folder, tag)
    zero.barrier()


def load_checkpoint(
    engine: Any,
    folder: Path,
    config: TrainingConfig,
    companion: Companion | None = None,
    course: Mapping[str, Any] = _NOTHING_MORE,
) -> int:
    """Restores the newest whole checkpoint and returns the number of steps behind it.

    One that another number of processes wrote is converted first.

    Args:
        engine: to fill.
        folder: of checkpoints.
        config: of the optimisation.
        companion: takes up what it saved.
        course: what else the course of training depends on, by name, see `course.py`.

    Raises:
        ValueError: on all processes alike, when none is whole, or the newest is of another model or other settings.
    """
    tag, origin = zero.from_first_rank(lambda: _checkpoint_for(engine, folder, config, course))
    now = origin_of(engine, origin.step, config, course)
    if zero.rank() == 0:
        logger.info("going on from %s", folder / tag)
    if origin.zero_stage == now.zero_stage and (origin.world_size == now.world_size or not now.zero_stage):
        zero.load_sharded(engine, folder, tag)
    else:
        if zero.rank() == 0:
            logger.warning(
                "checkpoint %s was written by %d processes under ZeRO-%d: converting it for %d under ZeRO-%d",
                *(tag, origin.world_size, origin.zero_stage, now.world_size, now.zero_stage),
            )
        load_converted(engine, folder / tag, origin.zero_stage, now.zero_stage)
    if companion is not None:
        companion.load(folder / tag)
    return origin.step


def set_aside(folder: Path) -> None:
    """Clears the way for a fresh start: checkpoints of an earlier run in `folder` move to `folder`-before."""
    if zero.rank() == 0:
        before = folder.with_name(f"{folder.name}-before")
        if checkpoint_tags(folder):
            shutil.rmtree(before, ignore_errors=True)
            folder.rename(before)
            logger.warning("no --resume: checkpoints of an earlier run are now in %s", before)
        shutil.rmtree(folder, ignore_errors=True)
    zero.barrier()


def origin_of(engine: Any, step: int, config: TrainingConfig, course: Mapping[str, Any] = _NOTHING_MORE) -> Origin:
    """Returns who this process and its peers are, after `step` steps."""
    settings = {name: value for name, value in asdict(config).items() if name not in _FREE_SETTINGS}
    return Origin(step, zero.world_size(), zero.stage(engine), _model_sha256(engine.module), {**settings, **course})


def _checkpoint_for(engine: Any, folder: Path, config: TrainingConfig, course: Mapping[str, Any]) -> tuple[str, Origin]:
    """Returns the newest whole checkpoint, refusing one of another configuration."""
    tag, origin = newest_whole(folder)
    now = origin_of(engine, origin.step, config, course)
    if origin.model_sha256 != now.model_sha256:
        raise ValueError(
            f"{folder / tag} is of another model (names, shapes or precision of parameters): resume with the recipe and"
            " overrides that it was trained with, or start afresh without --resume."
        )
    before = {**course, **_IF_UNTOLD, **origin.settings}  # a checkpoint that tells no course is of any
    changed = [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.settings.items()
        if before.get(name) != value
    ]
    if changed:
        raise ValueError(
            f"{folder / tag} is of other settings ({'; '.join(changed)}): resume with those that it was trained with,"
            " or start afresh without --resume."
        )
    return tag, origin


def _model_sha256(model: nn.Module) -> str:
    """Returns a hash of what `model` is: the names, shapes and precisions of its parameters, not their values."""
    told = (
        f"{name} {tuple(getattr(one, 'ds_shape', one.shape))} {one.dtype} {one.requires_grad}"
        for name, one in model.named_parameters()
    )
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _prune(folder: Path, newest: str) -> None:
    """Removes older checkpoints past `NUM_KEPT`, and those of a course past `newest` that was given up."""
    tags = checkpoint_tags(folder)
    kept = tags[tags.index(newest) :][:NUM_KEPT]
    for tag in tags:
        if tag not in kept:
            shutil.rmtree(folder / tag)
