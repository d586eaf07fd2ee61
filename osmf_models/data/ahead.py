"""Draws the batches of coming steps in threads, while the present one is trained on.

A batch is a function of its step (see `collate.py`), so drawing it early changes nothing but the time that it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class DrawnAhead(Generic[Batch]):
    """step → batch, for steps asked for in rising order.

    Args:
        draw: step → batch.
        num_ahead: batches drawn in advance, by as many threads; 0 draws each when it is asked for.
        num_steps: steps from this one on are never asked for.
    """

    def __init__(self, draw: Callable[[int], Batch], num_ahead: int, num_steps: int):
        self._draw, self._num_ahead, self._num_steps = draw, num_ahead, num_steps
        self._threads = ThreadPoolExecutor(num_ahead, "draw") if num_ahead else None
        self._coming: dict[int, Future[Batch]] = {}

    def __call__(self, step: int) -> Batch:
        """Returns the batch of `step`; what drawing it raised is raised here."""
        if self._threads is None:
            return self._draw(step)
        for coming in range(step, min(step + self._num_ahead + 1, self._num_steps)):
            if coming not in self._coming:
                self._coming[coming] = self._threads.submit(self._draw, coming)
        return self._coming.pop(step).result()
