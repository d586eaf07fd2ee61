"""The one training loop: batches in, optimiser steps out, a heartbeat, logs, checkpoints.

What is minimised comes in as a function; DeepSpeed stays in `zero.py`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osmf_models.config import TrainingConfig
from osmf_models.records import CHECKPOINTS_NAME, HEARTBEAT_NAME
from osmf_models.training import zero
from osmf_models.training.checkpoint import load_checkpoint, save_checkpoint
from osmf_models.training.tracking import Tracker

logger = logging.getLogger(__name__)

StepLoss = Callable[[int], tuple[Tensor, dict[str, Tensor]]]
"""step → (loss, metrics), scalars of this rank's share of the batch."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training went: `final_metrics` are the means over the last tenth of the steps; `loss` is one of them."""

    first_step: int
    final_metrics: dict[str, float]
    seconds_per_step: float


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Returns the rate of `step` (from 0): linear warm-up, then linear decay."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay = 1.0 - (1.0 - config.final_learning_rate_share) * step / config.num_steps
    return config.learning_rate * warm * decay


def train_step(engine: Any, step_loss: StepLoss, step: int, config: TrainingConfig) -> dict[str, Tensor]:
    """Takes one optimiser step and returns this rank's metrics, the loss among them; nothing waits for the device."""
    zero.set_learning_rate(engine, learning_rate_at(step, config))
    loss, metrics = step_loss(step)
    engine.backward(loss)
    engine.step()
    norm = zero.gradient_norm(engine)
    told = {"loss": loss, **metrics} if norm is None else {"loss": loss, "gradient_norm": norm, **metrics}
    return {name: value.detach() for name, value in told.items()}


def read_metrics(metrics: list[dict[str, Tensor]], first_step: int) -> list[dict[str, float]]:
    """Returns the means over ranks of each step's metrics, in one exchange; all ranks must bring as many steps.

    Raises:
        ValueError: when a loss or a gradient is no finite number, on all ranks alike.
    """
    if not metrics:
        return []
    values = torch.stack([torch.stack([value.float() for value in step.values()]) for step in metrics])
    means = zero.mean_over_ranks(values).tolist()
    result = [dict(zip(metrics[0], row, strict=True)) for row in means]
    for step, row in enumerate(result, first_step):
        if not math.isfinite(row["loss"]):
            raise ValueError(f"the loss of step {step} is {row['loss']}: lower the learning rate.")
        if not 0.0 <= row.get("gradient_norm", 0.0) < math.inf:
            raise ValueError(f"the gradient of step {step} is no finite number: lower the learning rate.")
    return result


def train(
    engine: Any, step_loss: StepLoss, config: TrainingConfig, output: Path, is_resumed: bool = False
) -> TrainingResult:
    """Trains to `config.num_steps`, from the newest checkpoint if `is_resumed`.

    Metrics stay on the device until something is written, so that a step waits for no other.

    Raises:
        ValueError: when a loss, a gradient or, before they are saved or handed over, a weight is no finite number, or
            when nothing can be resumed. No checkpoint is written after such a step.
    """
    checkpoints = output / CHECKPOINTS_NAME
    first_step = load_checkpoint(engine, checkpoints) if is_resumed else 0
    tracker = Tracker(output, zero.rank(), first_step)
    started = time.monotonic()
    recent: list[dict[str, float]] = []
    unread: list[dict[str, Tensor]] = []
    for step in range(first_step, config.num_steps):
        unread.append(train_step(engine, step_loss, step, config))
        done = step + 1
        is_last = done == config.num_steps
        is_reported = done % config.log_every == 0 or is_last
        is_saved = bool(config.checkpoint_every) and done % config.checkpoint_every == 0 and not is_last
        if is_reported or is_saved:
            recent += read_metrics(unread, done - len(unread))
            unread.clear()
        if is_reported:
            rate = (time.monotonic() - started) / (done - first_step)
            _report(tracker, output, done, config, _averaged(recent[-config.log_every :]), rate)
        # ZeRO-0 tells no norm of the gradient: what a broken one leaves behind is broken weights.
        if (is_saved or is_last) and not zero.has_finite_weights(engine.module):
            raise ValueError(f"after step {step} a weight is no finite number: lower the learning rate.")
        if is_saved:
            save_checkpoint(engine, checkpoints, done)
    if engine.skipped_steps:
        raise ValueError(f"{engine.skipped_steps} optimiser steps were skipped: gradients overflowed.")
    seconds = (time.monotonic() - started) / max(1, config.num_steps - first_step)
    return TrainingResult(first_step, _averaged(recent[-max(1, config.num_steps // 10) :]), seconds)


def write_heartbeat(output: Path, step: int, num_steps: int, eta_seconds: float, loss: float) -> None:
    """Tells whoever watches the run how far it is, atomically."""
    content = {"step": step, "num_steps": num_steps, "eta_seconds": eta_seconds, "loss": loss, "time": time.time()}
    temporary = output / f".{HEARTBEAT_NAME}.tmp"
    temporary.write_text(json.dumps(content))
    temporary.replace(output / HEARTBEAT_NAME)


def _averaged(records: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(record[name] for record in records) / len(records) for name in (records[0] if records else ())}


def _report(
    tracker: Tracker, output: Path, done: int, config: TrainingConfig, metrics: dict[str, float], rate: float
) -> None:
    if zero.rank() != 0:
        return
    tracker.log(done, {f"train/{name}": value for name, value in metrics.items()})
    write_heartbeat(output, done, config.num_steps, rate * (config.num_steps - done), metrics["loss"])
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    logger.info("step %d/%d  %.2f s/step  %s", done, config.num_steps, rate, numbers)
