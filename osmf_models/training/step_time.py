"""Times two ways of training side by side: a block of steps of one, a block of the other, and so on.

Noise of the machine then meets both, and medians over blocks leave its outliers out. The device is waited for at the
ends of blocks only, as in training. What a step does comes in as a function.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

RunSteps = Callable[[int, int], None]
"""(first step, number of steps) → trains so many steps, and reads the losses at their end."""


def block_seconds(
    ways: Mapping[str, RunSteps], num_blocks: int, steps_per_block: int, num_warmup_steps: int
) -> dict[str, list[float]]:
    """Returns each way's seconds per step, block by block; block i of one way ran beside block i of the others.

    Args:
        ways: by name; their order within a round turns from round to round.
        num_blocks: of each way.
        steps_per_block: steps between two readings of the clock.
        num_warmup_steps: of each way, before the clock runs.
    """
    for run in ways.values():
        run(0, num_warmup_steps)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for block in range(num_blocks):
        for name in list(ways) if block % 2 == 0 else reversed(list(ways)):
            synchronize()
            started = time.perf_counter()
            ways[name](num_warmup_steps + block * steps_per_block, steps_per_block)
            synchronize()
            seconds[name].append((time.perf_counter() - started) / steps_per_block)
    return seconds


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """Returns the median of the ratios of blocks that ran side by side: what slows both down leaves it as it is."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def synchronize() -> None:
    """Waits for what was given to the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
