"""Floating-point operations of a step, and what share of a GPU's peak they make.

Counted are the multiplications and additions (two operations each) of matrix products, convolutions and attention, as
they run; elementwise work is not counted, and causal attention counts whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

# bf16 without sparsity, by the vendors' data sheets; keys are names as torch tells them.
PEAK_BF16_FLOPS_PER_SECOND = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
}


def count_flops(run: Callable[[], object]) -> int:
    """Returns the operations that `run` performs, its backward pass included if it runs one."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def peak_flops_per_second(device: torch.device, precision: str) -> float | None:
    """Returns the peak of the device's matrix units at `precision`, or None where the table has none."""
    if device.type != "cuda" or precision != "bf16":
        return None
    return PEAK_BF16_FLOPS_PER_SECOND.get(torch.cuda.get_device_name(device))
