"""Steps that are skipped: a gradient that is no finite number teaches nothing and is counted.

How many may be skipped belongs in `loop.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def look_at_norm(optimizer: Any) -> None:
    """Makes ZeRO-1 and 2 skip a step by its gradient's norm in bf16 too, as they do in fp32.

    They ask `check_grad_overflow` twice: before they take the norm, where it costs a look at every gradient, and
    after, where the norm alone is looked at. It is on from the one to the other.

    Args:
        optimizer: of a DeepSpeed engine; left as it is under other stages, which look at the norm by themselves.
    """
    norm_of = getattr(optimizer, "scaled_global_norm", None)
    if norm_of is None:
        return

    def scaled_global_norm(*arguments: Any, **named: Any) -> Any:
        norm = norm_of(*arguments, **named)
        optimizer.check_grad_overflow = True
        return norm

    optimizer.scaled_global_norm = scaled_global_norm


def take_step(engine: Any) -> None:
    """Takes the optimiser's step of a DeepSpeed engine, or skips it.

    Where the gradient, averaged over the processes, is no finite number, all of them skip the step alike and count it
    in `engine.skipped_steps`: one broken share breaks the mean that every process sees, so that they need not talk.
    """
    if isinstance(engine.optimizer, torch.optim.Optimizer):  # fp32 under ZeRO-0: DeepSpeed looks at nothing
        gradients = [one.grad for one in engine.module.parameters() if one.grad is not None]
        if not torch.isfinite(nn.utils.get_total_norm(gradients)):
            engine.skipped_steps += 1
            engine.optimizer.zero_grad()
            return
    elif hasattr(engine.optimizer, "check_grad_overflow"):
        engine.optimizer.check_grad_overflow = False
    engine.step()
