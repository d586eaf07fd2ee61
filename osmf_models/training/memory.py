"""What weights, their average, gradients and optimiser take of a device's memory, told before they are put there.

Activations, which depend on the batch, are not counted: what is refused here cannot fit, what passes may still not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch

from osmf_models.config import RunConfig, TrainingConfig, ZeroConfig
from osmf_models.model.gmllm import GMllm
from osmf_models.training import zero as processes

_GB = 1e9
# Bytes of fp32: Adam's two moments, the copy that bf16 weights are updated from, the running average.
_MOMENTS, _MASTER, _AVERAGE = 8, 4, 4


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that one process keeps on its device, and how they come about."""

    weights: float
    gradients: float
    optimizer: float
    average: float
    copy: float
    arithmetic: str

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.average + self.copy


def memory_need(
    num_parameters: int,
    num_trainable: int,
    zero: ZeroConfig,
    world_size: int,
    has_average: bool = False,
    has_copy: bool = False,
) -> MemoryNeed:
    """Returns what a process needs: ZeRO shares the optimiser from stage 1 on, gradients from 2, weights from 3.

    The average of the weights is shared under all stages.

    Args:
        num_parameters: of the whole model.
        num_trainable: of them, those that are trained.
        zero: stage and precision.
        world_size: processes that share.
        has_average: whether a running average of the trained weights is kept.
        has_copy: whether a frozen copy of the model runs beside it, whole on every process.
    """
    is_bf16 = zero.precision == "bf16"
    width, state = (2, _MASTER + _MOMENTS) if is_bf16 else (4, _MOMENTS)
    over = [world_size if zero.stage >= stage else 1 for stage in (3, 2, 1)]
    weights, gradients = num_parameters * width / over[0], num_trainable * width / over[1]
    optimizer = num_trainable * state / over[2]
    arithmetic = (
        f"weights {num_parameters:,} x {width} B / {over[0]} = {weights / _GB:.1f} GB, "
        f"gradients {num_trainable:,} x {width} B / {over[1]} = {gradients / _GB:.1f} GB, "
        f"optimiser {num_trainable:,} x {state} B / {over[2]} = {optimizer / _GB:.1f} GB"
    )
    average = num_trainable * _AVERAGE / world_size if has_average else 0.0
    if has_average:
        arithmetic += f", average {num_trainable:,} x {_AVERAGE} B / {world_size} = {average / _GB:.1f} GB"
    copy = float(num_parameters * width) if has_copy else 0.0
    if has_copy:
        arithmetic += f", frozen copy {num_parameters:,} x {width} B = {copy / _GB:.1f} GB"
    return MemoryNeed(weights, gradients, optimizer, average, copy, arithmetic)


def check_memory(model: GMllm, config: RunConfig, training: TrainingConfig, has_copy: bool = False) -> None:
    """Compares what a model needs with what this process's device has.

    Args:
        model: weights are not looked at; they may lie on the meta device.
        config: precision and ZeRO stage.
        training: whether an average is kept.
        has_copy: whether a frozen copy runs beside it.

    Raises:
        ValueError: when it cannot fit.
    """
    count, num_trainable = sum(model.num_parameters().values()), sum(model.num_trainable_parameters().values())
    has_average = training.ema_decay > 0.0
    need = memory_need(count, num_trainable, config.zero, processes.world_size(), has_average, has_copy)
    has = device_bytes(processes.device())
    if need.total > has:
        raise ValueError(
            f"recipe {config.recipe!r} needs {need.total / _GB:.1f} GB before any activation ({need.arithmetic}), and "
            f"the device has {has / _GB:.1f} GB for this process: raise zero.stage and the number of processes, choose "
            "zero.precision=bf16, or train less of it."
        )


def device_bytes(device: torch.device) -> float:
    """Returns the memory of a GPU, or this process's share of the machine's."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return psutil.virtual_memory().total / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
