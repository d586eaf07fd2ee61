"""Says how far a stage is, in lines for a log that people read while it runs.

Bars on a terminal belong in the commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SECONDS_BETWEEN_LINES = 20.0


class ProgressLines:
    """Takes heartbeats; tells the first, then one in 20 seconds at most, and the last.

    Args:
        tell: takes a line.
        seconds_between: lines.
    """

    def __init__(self, tell: Callable[[str], object], seconds_between: float = SECONDS_BETWEEN_LINES):
        self._tell, self._seconds_between = tell, seconds_between
        self._told_at: float | None = None

    def __call__(self, run_name: str, heartbeat: dict[str, Any]) -> None:
        """Takes a heartbeat of a run."""
        now, is_last = time.monotonic(), heartbeat["step"] == heartbeat["num_steps"]
        if is_last or self._told_at is None or now - self._told_at >= self._seconds_between:
            self._told_at = now
            self._tell(progress_line(run_name, heartbeat))


def progress_line(run_name: str, heartbeat: dict[str, Any]) -> str:
    """Returns how far a run is, and how long it will take as it goes now."""
    step, num_steps, loss = heartbeat["step"], heartbeat["num_steps"], heartbeat.get("loss")
    told = f"{run_name}: step {step} of {num_steps} ({step / max(1, num_steps):.0%})"
    told += "" if loss is None else f", loss {loss:.4f}"
    return told if step == num_steps else f"{told}, about {_duration(heartbeat['eta_seconds'])} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
