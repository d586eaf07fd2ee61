"""`osmf demo`: the whole chain on the Open Bandit logs and on a simulated market, and what came of it.

What `--full` adds: controls, and the closed loop of `closed_loop.py`, which begins with pictures to serve.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from osmf_pipelines.cli.doctor import find_problems
from osmf_pipelines.settings import Settings

if TYPE_CHECKING:
    from osmf_models.simulator.market import Market
    from osmf_pipelines.bench.closed_loop_shop import LoopShop
    from osmf_pipelines.spark.simulate_logs import Logs

_FIRST_DATE = date(2026, 3, 2)
_NUM_DAYS = 3
_IMPRESSIONS_PER_DAY = 600_000
_LAST_DATE = _FIRST_DATE + timedelta(days=_NUM_DAYS - 1)
_LOOP_IMPRESSIONS_PER_DAY = 400_000
_SEED = 7


@dataclass
class Story:
    """What `summary.json` will hold, and how long each part took.

    Attributes:
        console: where progress goes.
        path: of `summary.json`.
        seconds: of each part that is done.
    """

    console: Console
    path: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str, title: str) -> Iterator[None]:
        """One part of the demo, timed."""
        self.console.print(f"\n[bold]{title}[/]")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)

    @property
    def unfinished(self) -> Path:
        """Where the parts of a chain that has not come to its end are noted."""
        return self.path.with_name("demo-parts.json")

    def once(self, name: str, title: str, work: Callable[[], object]) -> None:
        """Does one part of the chain, unless a demo that was interrupted has done it, and notes it."""
        if name in self.seconds:
            self.console.print(f"\n[bold]{title}[/]: done before", highlight=False)
            return
        with self.part(name, title):
            work()
        _write(self.unfinished, self.seconds)

    def tell(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes what came of the parts so far, with their seconds; returns it."""
        told = {**summary, "seconds": {**self.seconds, "total": round(sum(self.seconds.values()), 1)}}
        _write(self.path, told)
        return told


def _write(path: Path, told: dict[str, Any]) -> None:
    """Writes JSON whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(told, indent=1))
    temporary.replace(path)


def run_demo(settings: Settings, console: Console, *, has_models: bool) -> None:
    """Runs the chain; ends with a table, paths and commands to explore, and `summary.json` beside them.

    After an interruption it goes on with the part that was under way; a chain that came to its end is run anew, which
    publishes nothing new and trains nothing again where nothing changed.

    Args:
        settings: of the market's lake; the Open Bandit logs get a lake of their own below it.
        console: where progress goes.
        has_models: whether models are trained too, or the chain ends at the training export.

    Raises:
        RuntimeError: when the machine lacks something, or an asset fails.
    """
    from osmf_pipelines.cli.summary import print_summary

    story = Story(console, settings.home / "summary.json")
    print_summary(_run_chain(settings, story, has_models=has_models), settings, story.path, console)


def run_full_demo(settings: Settings, console: Console) -> None:
    """Runs the chain, then the controls, and a closed loop of several days, which begins with pictures to serve.

    Goes on where it was ended: parts that `summary.json` tells of are not run again, and the loop's steps that are done
    are not either.

    Args:
        settings: as of `run_demo`.
        console: where progress goes.

    Raises:
        RuntimeError: when the machine lacks something, or an asset fails.
    """
    from osmf_pipelines.cli.ab import show_readout
    from osmf_pipelines.cli.closed_loop import ClosedLoop, LoopOptions
    from osmf_pipelines.cli.runs import JobRunner
    from osmf_pipelines.cli.summary import print_full_summary, read_summary, summarise_models
    from osmf_pipelines.definitions import build_defs

    story = Story(console, settings.home / "summary.json")
    summary = read_summary(story.path)
    story.seconds = {name: seconds for name, seconds in summary.get("seconds", {}).items() if name != "total"}
    if "train_and_evaluate" in story.seconds:
        _check_machine(settings)
        console.print(f"{settings.home} holds a finished demo: it goes on from there.", soft_wrap=True, highlight=False)
    else:
        summary = _run_chain(settings, story, has_models=True)
    runner, shop = JobRunner(console), _open_shop(settings)
    defs = build_defs(settings, on_progress=runner.show_training)
    if "controls" not in story.seconds:
        with story.part("controls", "Controls: chosen pictures alone, and groups shuffled; judged beside the others"):
            runner.run(defs, "train_controls", _LAST_DATE)
        summary = story.tell(summary | summarise_models(settings, _LAST_DATE))
    with story.part("closed_loop", "The closed loop: drawn, served, logged, refreshed, tested, trained again"):
        options = LoopOptions(_LAST_DATE + timedelta(days=1))
        loop = ClosedLoop(settings, shop, options, runner, console).run()
        show_readout(Path(loop["rounds"][-1]["readout"]), console)
    print_full_summary(story.tell({**summary, "closed_loop": loop}), settings, story.path, console)


def _check_machine(settings: Settings) -> None:
    problems = find_problems(settings, lambda *_: None, is_thorough=False)
    if problems:
        raise RuntimeError(" ".join(problems))


def _run_chain(settings: Settings, story: Story, *, has_models: bool) -> dict[str, Any]:
    """Logs to pairs of both lakes, and models of the market's; returns what came of it."""
    from osmf_pipelines.cli.runs import JobRunner
    from osmf_pipelines.cli.simulate import simulate_market
    from osmf_pipelines.cli.summary import summarise_data, summarise_models
    from osmf_pipelines.definitions import build_defs, open_bandit_defs, open_bandit_settings

    _check_machine(settings)
    if story.unfinished.exists():
        story.seconds = json.loads(story.unfinished.read_text())
    runner, (market, logs) = JobRunner(story.console), _market()
    defs = build_defs(settings, on_progress=runner.show_training)
    bandit, bandit_settings = open_bandit_defs(settings), open_bandit_settings(settings)
    assert bandit_settings.end_date is not None
    bandit_last = bandit_settings.end_date - timedelta(days=1)

    def form_pairs() -> None:
        runner.run(defs, "ingest_days", _FIRST_DATE, _LAST_DATE)
        runner.run(defs, "form_pairs", _LAST_DATE)

    def form_bandit_pairs() -> None:
        runner.run(bandit, "ingest_days", bandit_settings.first_date, bandit_last)
        runner.run(bandit, "form_pairs", bandit_last)

    story.once(
        "simulate",
        "A simulated market, written as a drop folder",
        lambda: simulate_market(settings, market, settings.home / "market", logs, story.console),
    )
    story.once("market_pairs", "The market's logs to preference pairs", form_pairs)
    story.once("open_bandit_pairs", "The Open Bandit logs to preference pairs (real clicks)", form_bandit_pairs)
    summary = summarise_data(settings, bandit_settings)
    if has_models:
        story.once(
            "train_and_evaluate",
            "Models: pretrained, one size for all, and per group; judged; registered",
            lambda: runner.run(defs, "train_and_evaluate", _LAST_DATE),
        )
        summary |= summarise_models(settings, _LAST_DATE)
    story.unfinished.unlink(missing_ok=True)
    return story.tell(summary)


def _market() -> tuple[Market, Logs]:
    from osmf_models.simulator.mess import USUAL
    from osmf_pipelines.cli.simulate import MarketOptions, make_market
    from osmf_pipelines.spark.simulate_logs import Logs

    return make_market(MarketOptions(seed=_SEED)), Logs(_FIRST_DATE, _NUM_DAYS, _IMPRESSIONS_PER_DAY, _SEED, mess=USUAL)


def _open_shop(settings: Settings) -> LoopShop:
    from osmf_pipelines.bench.closed_loop_shop import LoopShop

    return LoopShop(*_market(), settings.drop_folder, _LOOP_IMPRESSIONS_PER_DAY)
