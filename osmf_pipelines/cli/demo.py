"""`osmf demo`: the whole chain on the Open Bandit logs and on a simulated market, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta

from rich.console import Console

from osmf_pipelines.cli.doctor import find_problems
from osmf_pipelines.settings import Settings

_FIRST_DATE = date(2026, 3, 2)
_NUM_DAYS = 3
_IMPRESSIONS_PER_DAY = 600_000
_SEED = 7


@dataclass
class Story:
    """What `summary.json` will hold, and how long each part took."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str, title: str) -> Iterator[None]:
        """One part of the demo, timed."""
        self.console.print(f"\n[bold]{title}[/]")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)


def run_demo(settings: Settings, console: Console, *, has_models: bool) -> None:
    """Runs the chain; ends with a table, paths and commands to explore, and `summary.json` beside them.

    Args:
        settings: of the market's lake; the Open Bandit logs get a lake of their own below it.
        console: where progress goes.
        has_models: whether models are trained too, or the chain ends at the training export.

    Raises:
        RuntimeError: when the machine lacks something, or an asset fails.
    """
    from osmf_models.simulator.mess import USUAL
    from osmf_pipelines.cli.runs import JobRunner
    from osmf_pipelines.cli.simulate import MarketOptions, make_market, simulate_market
    from osmf_pipelines.cli.summary import print_summary, summarise_data, summarise_models
    from osmf_pipelines.definitions import build_defs, open_bandit_defs, open_bandit_settings
    from osmf_pipelines.spark.simulate_logs import Logs

    problems = find_problems(settings, lambda *_: None, is_thorough=False)
    if problems:
        raise RuntimeError(" ".join(problems))
    story, runner = Story(console), JobRunner(console)
    last_day = _FIRST_DATE + timedelta(days=_NUM_DAYS - 1)
    market = settings.home / "market"
    logs = Logs(_FIRST_DATE, _NUM_DAYS, _IMPRESSIONS_PER_DAY, _SEED, mess=USUAL)
    with story.part("simulate", "A simulated market, written as a drop folder"):
        simulate_market(settings, make_market(MarketOptions(seed=_SEED)), market, logs, console)
    defs = build_defs(settings, on_progress=runner.show_training)
    with story.part("market_pairs", "The market's logs to preference pairs"):
        runner.run(defs, "ingest_days", _FIRST_DATE, last_day)
        runner.run(defs, "form_pairs", last_day)
    bandit, bandit_settings = open_bandit_defs(settings), open_bandit_settings(settings)
    with story.part("open_bandit_pairs", "The Open Bandit logs to preference pairs (real clicks)"):
        bandit_end = bandit_settings.end_date
        assert bandit_end is not None
        runner.run(bandit, "ingest_days", bandit_settings.first_date, bandit_end - timedelta(days=1))
        runner.run(bandit, "form_pairs", bandit_end - timedelta(days=1))
    summary = summarise_data(settings, bandit_settings)
    if has_models:
        with story.part(
            "train_and_evaluate", "Models: pretrained, one size for all, and per group; judged; registered"
        ):
            runner.run(defs, "train_and_evaluate", last_day)
        summary |= summarise_models(settings, last_day)
    summary["seconds"] = {**story.seconds, "total": round(sum(story.seconds.values()), 1)}
    path = settings.home / "summary.json"
    path.write_text(json.dumps(summary, indent=1))
    print_summary(summary, settings, path, console)
