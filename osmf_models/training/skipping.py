"""Steps that are skipped: a gradient that is no finite number teaches nothing and is counted.

How many may be skipped belongs in `loop.py`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def look_at_norm(optimizer: Any) -> None:
    """Makes ZeRO-1 and 2 skip a step by its gradient's norm in bf16 too, as they do in fp32.

    They ask `check_grad_overflow` twice: before they take the norm, where it costs a look at every gradient, and
    after, where the norm alone is looked at. It is on from the one to the other. The norm is taken of all gradients at
    once, where DeepSpeed takes that of each by itself, in double precision, while the GPU waits for the next.

    Args:
        optimizer: of a DeepSpeed engine; left as it is in fp32 and under other stages, which look at the norm by
            themselves.
    """
    if not hasattr(optimizer, "scaled_global_norm") or optimizer.dtype != torch.bfloat16:
        return

    def scaled_global_norm() -> Tensor:
        optimizer.check_grad_overflow = True
        shares = [share for group in optimizer.averaged_gradients.values() for share in group]
        squared = torch.stack(torch._foreach_norm(shares, 2, dtype=torch.float32)).square().sum()
        dist.all_reduce(squared)
        return squared.sqrt()

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
