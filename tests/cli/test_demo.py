"""What a demo tells of its parts, so that the next one goes on after them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from osmf_pipelines.cli.demo import Story
from osmf_pipelines.cli.summary import read_summary


def test_parts_that_are_done_are_told_and_one_that_failed_is_not(tmp_path: Path) -> None:
    story = Story(Console(file=io.StringIO()), tmp_path / "summary.json", seconds={"simulate": 2.5})
    with story.part("market_pairs", "pairs"):
        pass
    with pytest.raises(RuntimeError), story.part("controls", "controls"):
        raise RuntimeError
    told = story.tell({"market": 1})
    assert read_summary(story.path) == told
    assert told["market"] == 1
    assert set(told["seconds"]) == {"simulate", "market_pairs", "total"}
    assert told["seconds"]["total"] == pytest.approx(2.5, abs=0.5)


def test_before_the_first_demo_nothing_is_told(tmp_path: Path) -> None:
    assert read_summary(tmp_path / "summary.json") == {}
