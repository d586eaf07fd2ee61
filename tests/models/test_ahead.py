from __future__ import annotations

import threading

import pytest

from osmf_models.data.ahead import DrawnAhead


@pytest.mark.parametrize("num_ahead", [0, 3])
def test_batches_come_in_the_order_of_steps(num_ahead):
    batch_of = DrawnAhead(lambda step: 10 * step, num_ahead, num_steps=8)
    assert [batch_of(step) for step in range(2, 8)] == [20, 30, 40, 50, 60, 70]


def test_the_next_batch_is_drawn_while_nobody_asks():
    drawn = threading.Event()
    batch_of = DrawnAhead(lambda step: drawn.set() if step == 1 else None, num_ahead=1, num_steps=2)
    batch_of(0)
    assert drawn.wait(timeout=30)


def test_nothing_is_drawn_past_the_last_step():
    steps = []
    batch_of = DrawnAhead(steps.append, num_ahead=5, num_steps=2)
    for step in (0, 1):
        batch_of(step)
    assert sorted(steps) == [0, 1]


def test_an_error_in_drawing_is_raised_where_the_batch_is_asked_for():
    def draw(step):
        raise ValueError("picture of c7 is no readable PNG")

    with pytest.raises(ValueError, match="c7"):
        DrawnAhead(draw, num_ahead=2, num_steps=4)(0)
