"""`osmf bench ab`: simulates an A/B test of pictures, reads it out, holds it against the truth, writes the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from osmf_models.evaluation.ab import check_lift
from osmf_models.simulator.realistic import realistic_market
from osmf_pipelines.bench.ab import Design, replicate, replicate_same, run_once, sample_ratio_alarms
from osmf_pipelines.bench.ab_market import CONTROL, PER_GROUP, Arm, Crowd, crowd_of, exact_rates, logged_arms
from osmf_pipelines.bench.ab_report import plot, print_report, summarise
from osmf_pipelines.bench.policy_market import LOGGING_POLICIES, choose
from osmf_pipelines.settings import Settings

_CHOOSING_IMPRESSIONS = 600_000
_MIN_USERS = 200


def run_ab_bench(
    settings: Settings,
    output: Path,
    *,
    models: Sequence[str],
    num_products: int,
    num_users: int,
    impressions: int,
    num_replications: int,
    seed: int,
    lift: float,
    console: Console,
) -> None:
    """Writes `output`/ab.json and ab.png.

    Args:
        settings: whose home holds the export and the market that models draw for; of the privacy floor.
        output: folder to write.
        models: arms that models draw, NAME=DIR; none for logged pictures alone, on a market of its own.
        num_products: held-out products of each category that models draw, at most.
        num_users: of an experiment.
        impressions: of its users, on average.
        num_replications: of the experiment, and of the control against itself.
        seed: of the market, where there is no model, and of every draw.
        lift: whose sample size is told.
        console: where progress goes.

    Raises:
        ValueError: when there is nothing to simulate, a model is none, or the home lacks what models draw for.
    """
    if num_users < _MIN_USERS or impressions < num_users or num_replications < 2 or seed < 0:
        raise ValueError(
            f"{num_users} users, {impressions} impressions, {num_replications} replications, seed {seed}: {_MIN_USERS} "
            "users, an impression each, 2 replications and a seed that is not negative are needed."
        )
    check_lift(lift)
    design = Design(num_users, impressions, num_replications, seed, settings.min_group_users)
    output.mkdir(parents=True, exist_ok=True)
    if models:
        crowd, arms = _model_arms(settings, models, output, num_products, seed, console)
    else:
        market = realistic_market(seed)
        choices, truth = choose(market, LOGGING_POLICIES["uniform"], seed, _CHOOSING_IMPRESSIONS)
        crowd, arms = crowd_of(truth, choices, market), logged_arms(truth, choices)
    shares = {arm.name: 1 / len(arms) for arm in arms}
    columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks = [bars.add_task(name, total=num_replications) for name in ("experiments", "control against itself")]
        rows = replicate(crowd, arms, shares, design, partial(bars.advance, tasks[0]))
        same = replicate_same(crowd, arms[0], design, partial(bars.advance, tasks[1]))
    exact = {case: rate for arm in arms for case, rate in exact_rates(crowd, arm).items()}
    told: dict[str, Any] = asdict(design) | {"lift": lift, "choosing_impressions": _CHOOSING_IMPRESSIONS}
    told["models"] = list(models)
    readout = run_once(crowd, arms, shares, design, 0)
    alarms = sample_ratio_alarms(shares, design)
    report = summarise(readout, rows, same, alarms, exact=exact, settings=told)
    (output / "ab.json").write_text(json.dumps(report, indent=1, allow_nan=False))
    plot(report, output / "ab.png")
    print_report(report, console)
    console.print(f"{output / 'ab.json'} and {output / 'ab.png'} say more.", soft_wrap=True, highlight=False)


def _model_arms(
    settings: Settings, models: Sequence[str], output: Path, num_products: int, seed: int, console: Console
) -> tuple[Crowd, list[Arm]]:
    """The home's market and groups; the logged picture that is best for all against what each model draws."""
    from osmf_pipelines.bench.ab_models import ModelMarket, parse_models
    from osmf_pipelines.bench.ablation_market import open_markets

    folders = parse_models(models, (CONTROL, PER_GROUP))
    (files,) = open_markets(settings, [], None, output)
    home = ModelMarket(files, num_products)
    choices, truth = choose(home.market, LOGGING_POLICIES["uniform"], seed, _CHOOSING_IMPRESSIONS, home.cells)
    crowd = crowd_of(truth, choices, home.market, is_sold=home.is_sold, group_ids=home.group_ids)
    arms = logged_arms(truth, choices)
    for name, folder in folders.items():
        console.print(f"    {name} draws", highlight=False, markup=False)
        arms.append(home.draw_arm(name, folder, arms[0].rates.shape, output / "markets"))
    return crowd, arms
