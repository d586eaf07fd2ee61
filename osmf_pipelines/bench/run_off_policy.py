"""`osmf bench off-policy`: simulates, values, writes the report."""

from __future__ import annotations

import json
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from osmf_models.simulator.realistic import realistic_market
from osmf_pipelines.bench.off_policy import replicate
from osmf_pipelines.bench.off_policy_report import as_rows, plot, summarise
from osmf_pipelines.bench.open_bandit_values import value_open_bandit
from osmf_pipelines.bench.policy_market import LOGGING_POLICIES, choose
from osmf_pipelines.settings import Settings
from osmf_pipelines.sources.open_bandit import OpenBanditSource
from osmf_pipelines.spark.session import get_spark

IMPRESSIONS_PER_USER = 20  # on average
_CHOOSING_IMPRESSIONS = 600_000


def run_off_policy_bench(
    settings: Settings,
    output: Path,
    *,
    logging_policies: list[str],
    impressions: list[int],
    num_replications: int,
    seed: int,
    has_open_bandit: bool,
    console: Console,
) -> None:
    """Writes `output`/off_policy.json and off_policy.png.

    Args:
        settings: of the Spark session, and where the Open Bandit logs are kept.
        output: folder to write.
        logging_policies: names among `LOGGING_POLICIES`.
        impressions: of a replication, every level.
        num_replications: of each case.
        seed: of the market and of the draws.
        has_open_bandit: whether to value the Open Bandit logs' policies too.
        console: where progress goes.

    Raises:
        ValueError: when there is nothing to simulate, or it is impossible.
    """
    if not impressions or min(impressions) < IMPRESSIONS_PER_USER * 100 or num_replications < 2 or seed < 0:
        raise ValueError(
            f"impressions {impressions}, {num_replications} replications, seed {seed}: levels of "
            f"{IMPRESSIONS_PER_USER * 100} and more, 2 replications and a seed that is not negative are needed."
        )
    market = realistic_market(seed)
    columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found = []
    with Progress(*columns, console=console) as bars:
        for name, level in product(logging_policies, impressions):
            task = bars.add_task(f"{name}, {level:,}", total=num_replications)
            choices, truth = choose(market, LOGGING_POLICIES[name], seed, _CHOOSING_IMPRESSIONS)
            rows = replicate(
                truth,
                choices,
                num_users=level // IMPRESSIONS_PER_USER,
                impressions=level,
                num_replications=num_replications,
                seed=seed,
                progress=partial(bars.advance, task),
            )
            found.append(rows.assign(logging_policy=name, impressions=level))
    bandit = None
    if has_open_bandit:
        source = OpenBanditSource(settings.home / "open_bandit" / "source")
        bandit = as_rows(value_open_bandit(get_spark(settings), source, min_users=settings.min_group_users))
    told = {"logging_policies": logging_policies, "impressions": impressions, "num_replications": num_replications}
    report = summarise(pd.concat(found), bandit, {**told, "seed": seed, "choosing_impressions": _CHOOSING_IMPRESSIONS})
    output.mkdir(parents=True, exist_ok=True)
    (output / "off_policy.json").write_text(json.dumps(report, indent=1, allow_nan=False, default=np.generic.item))
    plot(report, output / "off_policy.png")
    _print(report, console)
    console.print(f"{output / 'off_policy.json'} and {output / 'off_policy.png'} say more.", soft_wrap=True)


def _print(report: dict[str, Any], console: Console) -> None:
    table = Table(title=f"95% intervals of {report['settings']['num_replications']} replications")
    names = ("logged by", "impressions", "chosen on", "policy", "minus", "estimator", "covered", "error", "eff. clicks")
    for name in names:
        table.add_column(name, justify="right" if name in ("impressions", "covered", "error") else "left")
    for row in report["coverage"]:
        what = (row["logging_policy"], f"{row['impressions']:,}", row["chosen_on"], row["policy"])
        covered = "none" if row["covered_share"] is None else f"{row['covered_share']:.3f}"
        error = "" if row["error_mean"] is None else f"{row['error_mean']:+.5f}"
        figures = (covered, error, f"{row['effective_clicks_mean']:.0f}")
        table.add_row(*what, row["compared_with"] or "", row["estimator"], *figures)
    console.print(table)
    if report["open_bandit"] is None:
        return
    bandit = Table(title="Open Bandit logs: policies valued on logs of another")
    for name in ("campaign", "logs", "policy", "minus", "estimator", "value", "95% interval", "eff. impressions"):
        bandit.add_column(name)
    for row in report["open_bandit"]:
        interval = "too few clicks" if row["value_low"] is None else f"{row['value_low']:+.5f} {row['value_high']:+.5f}"
        what = (row["scope"] or "together", row["logged_arm"], row["policy"], row["compared_with"] or "")
        size = f"{row['effective_impressions']:,.0f}"
        bandit.add_row(*what, row["estimator"], f"{row['value']:+.5f}", interval, size)
    console.print(bandit)
