"""What a demo tells of its parts, so that the next one goes on after them."""

from __future__ import annotations

import io
import json
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


def test_an_interrupted_chain_goes_on_with_the_part_that_was_under_way(tmp_path: Path) -> None:
    done: list[str] = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    first = Story(Console(file=io.StringIO()), tmp_path / "summary.json")
    first.once("simulate", "A market", lambda: done.append("simulate"))
    with pytest.raises(KeyboardInterrupt):
        first.once("market_pairs", "Pairs", interrupted)
    console = Console(file=io.StringIO())
    second = Story(console, first.path, seconds=json.loads(first.unfinished.read_text()))
    second.once("simulate", "A market", lambda: done.append("again"))
    second.once("market_pairs", "Pairs", lambda: done.append("market_pairs"))
    assert done == ["simulate", "market_pairs"]
    assert "A market: done before" in console.file.getvalue()
    assert set(second.seconds) == {"simulate", "market_pairs"}


def test_before_the_first_demo_nothing_is_told(tmp_path: Path) -> None:
    assert read_summary(tmp_path / "summary.json") == {}
