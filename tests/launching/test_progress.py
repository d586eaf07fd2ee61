"""Lines of progress for people who read a log."""

from __future__ import annotations

from typing import Any

import pytest

from osmf_pipelines.resources.progress import ProgressLines, progress_line


def beat(step: int, eta_seconds: float = 0.0, loss: float | None = 0.25) -> dict[str, Any]:
    return {"step": step, "num_steps": 8, "eta_seconds": eta_seconds, "loss": loss, "time": 0.0}


@pytest.mark.parametrize(
    ("heartbeat", "line"),
    [
        (beat(2, 42.4), "a model: step 2 of 8 (25%), loss 0.2500, about 42 s left"),
        (beat(2, 61.0), "a model: step 2 of 8 (25%), loss 0.2500, about 1 min 1 s left"),
        (beat(2, 7260.0), "a model: step 2 of 8 (25%), loss 0.2500, about 2 h 1 min left"),
        (beat(4, 5.0, None), "a model: step 4 of 8 (50%), about 5 s left"),
        (beat(8), "a model: step 8 of 8 (100%), loss 0.2500"),
    ],
)
def test_a_line_says_how_far_and_how_long(heartbeat: dict[str, Any], line: str) -> None:
    assert progress_line("a model", heartbeat) == line


def test_the_first_and_the_last_are_told_and_not_all_between() -> None:
    lines: list[str] = []
    progress = ProgressLines(lines.append, seconds_between=60.0)
    for step in range(1, 9):
        progress("a model", beat(step))
    assert [line.split()[3] for line in lines] == ["1", "8"]
    every: list[str] = []
    progress = ProgressLines(every.append, seconds_between=0.0)
    for step in range(1, 9):
        progress("a model", beat(step))
    assert len(every) == 8
