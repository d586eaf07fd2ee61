"""Trains a small model in processes that can be killed at a named point, or be given a broken batch.

Processes are forked from a server that has imported PyTorch and DeepSpeed, so that each takes a fraction of a second.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from osmf_models.config import TrainingConfig, ZeroConfig
from osmf_models.records import CHECKPOINT_PATTERN, CHECKPOINTS_NAME
from osmf_models.training import zero
from osmf_models.training.averages import WeightAverage
from osmf_models.training.loop import StepLoss, train
from osmf_models.training.manifest import write_json
from osmf_models.training.masters import Piece, held_pieces, whole_weights

BATCH_SIZE = 4
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["osmf_models.training.loop", "torch._dynamo"])


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        output: its folder.
        world_size: processes.
        zero: stage and precision.
        config: of the optimisation.
        is_resumed: go on from a checkpoint.
        killed_at: (phase, step, rank) at which that process ends itself with SIGKILL, if at all.
        kill_delay_seconds: from there on, so that whatever it does by then is interrupted.
        broken: (step, rank, where) of losses that are no numbers; `where` is `loss` or `gradient` (of a finite loss).
    """

    output: Path
    world_size: int = 1
    zero: ZeroConfig = field(default_factory=lambda: ZeroConfig(stage=1))
    config: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            num_steps=8, batch_size=BATCH_SIZE, learning_rate=0.01, warmup_steps=2, log_every=1, checkpoint_every=2
        )
    )
    is_resumed: bool = False
    killed_at: tuple[str, int, int] | None = None
    kill_delay_seconds: float = 0.0
    broken: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How it ended: exit codes (-9 is SIGKILL), and by rank the model's hash, or what was raised; the losses.

    `averaged` is what the first process saw of a run with an average, see `Averaged`.
    """

    exit_codes: list[int]
    weights: list[str]
    errors: list[str]
    logs: list[str]
    losses: dict[int, float]
    num_skipped_steps: list[int]
    averaged: Averaged | None


@dataclass(frozen=True)
class Averaged:
    """All weights of the model, flattened: as AdamW has them before each step and after the last, and their averages.

    `swapped_in` is what the model computed with while the average stood in its place; `is_given_back` whether it had
    its own weights afterwards, bit for bit.
    """

    weights: list[list[float]]
    averages: list[list[float]]
    num_updates: int
    swapped_in: list[float]
    is_given_back: bool


def run(job: Job) -> Outcome:
    """Runs the job's processes to their end; when one fails, the others are killed, as a launcher does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    job.output.mkdir(parents=True, exist_ok=True)
    processes = [_FORKS.Process(target=_main, args=(job, rank, port)) for rank in range(job.world_size)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        time.sleep(0.02)
        if any(process.exitcode not in (None, 0) for process in processes):
            time.sleep(0.5)  # for the others to raise what they raise
            for process in processes:
                process.kill()
    reports = [json.loads((job.output / f"rank-{rank}.json").read_text()) for rank in range(job.world_size)]
    path = job.output / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return Outcome(
        [int(process.exitcode or 0) for process in processes],
        [report.get("weights", "") for report in reports],
        [report.get("error", "") for report in reports],
        [(job.output / f"rank-{rank}.log").read_text() for rank in range(job.world_size)],
        {record["step"]: record["train/loss"] for record in records},
        [report.get("num_skipped_steps", 0) for report in reports],
        Averaged(**reports[0]["averaged"]) if reports[0].get("averaged") else None,
    )


def resumed(job: Job) -> Outcome:
    """Goes on from what a job left."""
    return run(replace(job, is_resumed=True, killed_at=None))


def restarted(job: Job) -> Outcome:
    """Starts a job again as the orchestrator does: it goes on where there is a checkpoint, else it starts afresh."""
    is_resumed = any((job.output / CHECKPOINTS_NAME).glob(CHECKPOINT_PATTERN))
    return run(replace(job, is_resumed=is_resumed, killed_at=None))


def initial_model() -> nn.Module:
    """The model that every job starts from."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))


def weights_sha256(model: nn.Module) -> str:
    """Hash of every weight's bits."""
    values = [parameter.detach().float().numpy().tobytes() for parameter in model.parameters()]
    return hashlib.sha256(b"".join(values)).hexdigest()


def _main(job: Job, rank: int, port: str) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job.world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    log = os.open(job.output / f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    report = job.output / f"rank-{rank}.json"
    write_json(report, {})
    torch.set_num_threads(1)
    try:
        write_json(report, _train(job, rank))
    except ValueError as error:
        write_json(report, {"error": str(error)})
        sys.exit(2)


def _train(job: Job, rank: int) -> dict[str, Any]:
    with zero.process_group():
        model = initial_model()
        engine = zero.build_engine(model, job.zero, job.config)
        average = WeightAverage(engine, job.config.ema_decay)
        seen: list[tuple[list[float], list[float]]] = []

        def look() -> None:
            if average.is_on:
                seen.append((flattened(engine, held_pieces(engine)), flattened(engine, average.pieces)))

        def on_phase(phase: str, step: int) -> None:
            if (phase, step, rank) == job.killed_at:
                _kill_self(job.kill_delay_seconds)
            if phase == "step":
                look()

        try:
            step_loss = _loss(engine, job, rank)
            result = train(
                engine, step_loss, job.config, job.output, job.is_resumed, on_phase=on_phase, companion=average
            )
            with zero.whole_parameters(model.parameters()):
                weights = weights_sha256(model)
            look()
            averaged = _swapped(model, average, seen) if average.is_on else None
        finally:
            engine.destroy()
    num_skipped_steps = int(result.final_metrics["num_skipped_steps"])
    return {"weights": weights, "num_skipped_steps": num_skipped_steps, "averaged": averaged}


def _kill_self(delay_seconds: float) -> None:
    if delay_seconds:
        threading.Timer(delay_seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def flattened(engine: Any, pieces: list[Piece]) -> list[float]:
    """Returns the weights that the pieces of all processes make up, on the first process."""
    return [value for weight in whole_weights(engine, pieces).values() for value in weight.flatten().tolist()]


def _swapped(model: nn.Module, average: WeightAverage, seen: list[tuple[list[float], list[float]]]) -> dict[str, Any]:
    """Returns the fields of `Averaged`."""

    def now() -> list[float]:
        with zero.whole_parameters(model.parameters()):
            return [value for parameter in model.parameters() for value in parameter.detach().flatten().tolist()]

    before = now()
    with average.swapped_in():
        inside = now()
    weights, averages = ([one[index] for one in seen] for index in (0, 1))
    told = {"weights": weights, "averages": averages, "num_updates": average.num_updates}
    return {**told, "swapped_in": inside, "is_given_back": now() == before}


def _loss(engine: Callable[[Tensor], Tensor], job: Job, rank: int) -> StepLoss:
    """A loss on examples that depend on (step, index in the global batch) only."""
    share = job.config.batch_size // job.world_size
    broken = {step: where for step, broken_rank, where in job.broken if broken_rank == rank}

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        indices = range(rank * share, (rank + 1) * share)
        draws = [torch.randn(6, generator=torch.Generator().manual_seed(1000 * step + index)) for index in indices]
        examples = torch.stack(draws).to(torch.bfloat16 if job.zero.precision == "bf16" else torch.float32)
        loss = (engine(examples).squeeze(-1) - examples.sum(-1)).float().square().mean()
        if broken.get(step) == "loss":
            loss = loss * torch.nan
        if broken.get(step) == "gradient":
            loss = loss + 0.0 * torch.sqrt(0.0 * loss)  # adds 0, whose gradient is 0 times infinity
        return loss, {}

    return loss_of
