"""The one training loop: batches in, optimiser steps out, a heartbeat, logs, checkpoints.

A step whose gradient is no finite number is skipped, by all processes alike, and counted. What is minimised comes in as
a function; DeepSpeed stays in `zero.py`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from osmf_models.config import TrainingConfig
from osmf_models.records import CHECKPOINTS_NAME, HEARTBEAT_NAME
from osmf_models.training import zero
from osmf_models.training.checkpoint import (
    Companion,
    OnPhase,
    load_checkpoint,
    save_checkpoint,
    set_aside,
    tell_nobody,
)
from osmf_models.training.skipping import take_step
from osmf_models.training.tracking import Tracker

logger = logging.getLogger(__name__)

StepLoss = Callable[[int], tuple[Tensor, dict[str, Tensor]]]
"""step → (loss, metrics), scalars of this rank's share of the batch."""


class Watch(Protocol):
    """Looks at the model between steps, and may end the training; every process calls it, and all decide alike."""

    def begin(self, first_step: int) -> None:
        """Is told where training starts."""

    def after_step(self, done: int) -> dict[str, float]:
        """Is told how many steps are done, before they are saved; returns what to log."""

    def is_over(self) -> bool:
        """Returns whether to stop here."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training went.

    Attributes:
        first_step, last_step: where it began and ended.
        final_metrics: means over the last tenth of the steps, those that were skipped left out, `loss` among them; and
            `num_skipped_steps` of the whole run.
        seconds_per_step: of wall time.
    """

    first_step: int
    last_step: int
    final_metrics: dict[str, float]
    seconds_per_step: float


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Returns the rate of `step` (from 0): linear warm-up, then linear decay."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay = 1.0 - (1.0 - config.final_learning_rate_share) * step / config.num_steps
    return config.learning_rate * warm * decay


def train_step(engine: Any, step_loss: StepLoss, step: int, config: TrainingConfig) -> dict[str, Tensor]:
    """Takes one optimiser step, or skips it (see `skipping.py`), and returns this rank's metrics, with the loss."""
    zero.set_learning_rate(engine, learning_rate_at(step, config))
    loss, metrics = step_loss(step)
    engine.backward(loss)
    take_step(engine)
    norm = zero.gradient_norm(engine)
    told = {"loss": loss, **metrics} if norm is None else {"loss": loss, "gradient_norm": norm, **metrics}
    return {name: value.detach() for name, value in told.items()}


def read_metrics(metrics: dict[int, dict[str, Tensor]]) -> list[dict[str, float]]:
    """Returns the means over ranks of each step's metrics, in one exchange; all ranks must bring the same steps.

    Raises:
        ValueError: when a loss or a gradient is no finite number, on all ranks alike.
    """
    if not metrics:
        return []
    values = torch.stack([torch.stack([value.float() for value in step.values()]) for step in metrics.values()])
    names = next(iter(metrics.values()))
    result = [dict(zip(names, row, strict=True)) for row in zero.mean_over_ranks(values).tolist()]
    for step, row in zip(metrics, result, strict=True):
        if not math.isfinite(row["loss"]):
            raise ValueError(f"the loss of step {step} is {row['loss']}: lower the learning rate.")
        if not 0.0 <= row.get("gradient_norm", 0.0) < math.inf:
            raise ValueError(f"the gradient of step {step} is no finite number: lower the learning rate.")
    return result


def train(
    engine: Any,
    step_loss: StepLoss,
    config: TrainingConfig,
    output: Path,
    is_resumed: bool = False,
    watch: Watch | None = None,
    on_phase: OnPhase = tell_nobody,
    companion: Companion | None = None,
    course: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Trains to `config.num_steps`, or until `watch` ends it, from the newest whole checkpoint if `is_resumed`.

    Metrics stay on the device until something is written, so that a step waits for no other.

    Args:
        engine: around the model.
        step_loss: what is minimised.
        config: of the optimisation.
        output: folder for metrics, the heartbeat and checkpoints.
        is_resumed: go on; without it, checkpoints of an earlier run are set aside.
        watch: looks at the model after each step.
        on_phase: told (phase, step) as each step, each report and each of `checkpoint.PHASES` begins.
        companion: goes along with the weights, before `watch` looks at them.
        course: what else the course of training depends on, by name; a checkpoint of another is refused.

    Raises:
        ValueError: on all ranks alike, when too many steps are skipped, when a loss that was learned from or, before
            they are saved or handed over, a weight is no finite number, or when nothing can be resumed.
    """
    checkpoints = output / CHECKPOINTS_NAME
    first_step = 0
    if is_resumed:
        first_step = load_checkpoint(engine, checkpoints, config, companion, course or {})
    else:
        set_aside(checkpoints)
    tracker = Tracker(output, zero.rank(), first_step)
    if watch is not None:
        watch.begin(first_step)
    started = time.monotonic()
    recent: list[dict[str, float]] = []
    num_told = 0
    unread: dict[int, dict[str, Tensor]] = {}
    done = first_step
    for step in range(first_step, config.num_steps):
        on_phase("step", step)
        unread |= _step(engine, step_loss, step, config, companion)
        done = step + 1
        if watch is not None and (watched := watch.after_step(done)):
            tracker.log(done, watched)
        is_over = watch is not None and watch.is_over()
        is_last = done == config.num_steps or is_over
        is_reported = done % config.log_every == 0 or is_last
        is_saved = bool(config.checkpoint_every) and done % config.checkpoint_every == 0 and not is_last
        if is_reported or is_saved:
            recent += read_metrics(unread)
            unread.clear()
        if is_reported and len(recent) > num_told:
            on_phase("report", step)
            rate = (time.monotonic() - started) / (done - first_step)
            shown = {**_averaged(recent[num_told:]), "num_skipped_steps": float(engine.skipped_steps)}
            num_told = len(recent)
            _report(tracker, output, done, done if is_over else config.num_steps, shown, rate)
        # What learning from large finite numbers leaves behind is broken weights.
        if (is_saved or is_last) and not zero.has_finite_weights(engine.module):
            raise ValueError(f"after step {step} a weight is no finite number: lower the learning rate.")
        if is_saved:
            save_checkpoint(engine, checkpoints, done, config, on_phase, companion, course or {})
        if is_over:
            break
    seconds = (time.monotonic() - started) / max(1, done - first_step)
    final = _averaged(recent[-max(1, config.num_steps // 10) :])
    return TrainingResult(first_step, done, {**final, "num_skipped_steps": float(engine.skipped_steps)}, seconds)


def _step(
    engine: Any, step_loss: StepLoss, step: int, config: TrainingConfig, companion: Companion | None
) -> dict[int, dict[str, Tensor]]:
    """Takes one step and returns its metrics by its number, or nothing when it was skipped."""
    before = engine.skipped_steps
    metrics = train_step(engine, step_loss, step, config)
    if engine.skipped_steps == before:
        if companion is not None:
            companion.after_update()
        return {step: metrics}
    own, count = float(metrics["loss"]), engine.skipped_steps
    if zero.rank() == 0 or not math.isfinite(own):
        told = "step %d is skipped: its gradient is no finite number (%d of at most %d so far); loss of process %d: %f"
        logger.warning(told, step, count, config.max_skipped_steps, zero.rank(), own)
    if count > config.max_skipped_steps:
        raise ValueError(
            f"{count} steps were skipped because their gradients were no finite numbers, the last one step {step}; "
            f"max_skipped_steps is {config.max_skipped_steps}: lower the learning rate or look at the data."
        )
    return {}


def write_heartbeat(output: Path, step: int, num_steps: int, eta_seconds: float, loss: float) -> None:
    """Tells whoever watches the run how far it is, atomically."""
    content = {"step": step, "num_steps": num_steps, "eta_seconds": eta_seconds, "loss": loss, "time": time.time()}
    temporary = output / f".{HEARTBEAT_NAME}.tmp"
    temporary.write_text(json.dumps(content))
    temporary.replace(output / HEARTBEAT_NAME)


def _averaged(records: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(record[name] for record in records) / len(records) for name in (records[0] if records else ())}


def _report(tracker: Tracker, output: Path, done: int, num_steps: int, metrics: dict[str, float], rate: float) -> None:
    if zero.rank() != 0:
        return
    tracker.log(done, {f"train/{name}": value for name, value in metrics.items()})
    write_heartbeat(output, done, num_steps, rate * (num_steps - done), metrics["loss"])
    told = {name: value for name, value in metrics.items() if name != "num_skipped_steps" or value}
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in told.items())
    logger.info("step %d/%d  %.2f s/step  %s", done, num_steps, rate, numbers)
