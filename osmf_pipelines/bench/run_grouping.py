"""`osmf bench grouping`: all of its parts, with a bar for each, then the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from osmf_pipelines.bench.grouping import (
    CONDITIONS,
    LEVEL_CLICKS,
    ROW_DDL,
    UNSEEN_DDL,
    Case,
    form_by_kmeans,
    plan_cases,
    run_cases,
    score_case,
    score_unseen,
)
from osmf_pipelines.bench.grouping_report import BenchFrames, plot, summarise
from osmf_pipelines.bench.stability import days_until_change_is_found, stability_of
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.session import get_spark

_STABILITY_DDL = "market string, condition string, seed int, scope string, users_kept_share double, num_groups int"
_CHANGE_DDL = "condition string, seed int, clicks_wanted int, num_days double"


def run_grouping_bench(
    settings: Settings,
    output: Path,
    *,
    markets: list[str],
    seeds: list[int],
    clicks: list[int],
    num_agreeing: int,
    console: Console,
) -> None:
    """Writes `output`/grouping.json and grouping.png.

    Args:
        settings: of the Spark session.
        output: folder to write.
        markets: names among `MARKETS`.
        seeds: of the markets.
        clicks: of a scope, every level.
        num_agreeing: further scopes without disagreement, for each condition.
        console: where progress goes.

    Raises:
        ValueError: when there are no seeds or clicks, or they are impossible.
    """
    floors = TreeSettings()
    _check_plan(seeds, clicks, num_agreeing, floors)
    spark = get_spark(settings)
    levels = sorted({*clicks, LEVEL_CLICKS})
    cases = plan_cases(markets, seeds, levels, num_agreeing)
    level = [case for case in cases if case.clicks_wanted == LEVEL_CLICKS and not case.scopes]
    columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    weekly = [Case("easy", condition, seed, count) for condition in CONDITIONS for seed in seeds for count in levels]
    with Progress(*columns, console=console) as bars:

        def in_tasks(name: str, of: list[Case], score: Callable[[Case], pd.DataFrame], ddl: str) -> pd.DataFrame:
            task = bars.add_task(name, total=len(of))
            return run_cases(spark, of, score, ddl, lambda done: bars.update(task, completed=done))

        rows = in_tasks("markets", cases, lambda case: score_case(case, floors), ROW_DDL)
        unseen = in_tasks("unseen products", level, lambda case: score_unseen(case, floors), UNSEEN_DDL)
        stable = in_tasks("consecutive days", level, lambda case: _stability_rows(case, floors), _STABILITY_DDL)
        changed = in_tasks("changes of taste", weekly, lambda case: _change_row(case, floors), _CHANGE_DDL)
        by_kmeans = form_by_kmeans(spark, floors)
        kmeans = _side_by_side(bars, "k-means (MLlib)", level, lambda case: score_case(case, floors, by_kmeans))
        kmeans_unseen = _side_by_side(
            bars, "k-means, unseen", level, lambda case: score_unseen(case, floors, by_kmeans)
        )
    told = {"markets": markets, "seeds": seeds, "clicks": levels, "num_agreeing": num_agreeing, **vars(floors)}
    frames = BenchFrames(pd.concat([rows, *kmeans]), pd.concat([unseen, *kmeans_unseen]), stable, changed)
    report = summarise(frames, told)
    output.mkdir(parents=True, exist_ok=True)
    (output / "grouping.json").write_text(json.dumps(report, indent=1, allow_nan=False, default=np.generic.item))
    plot(report, output / "grouping.png")
    _print(report, console)
    console.print(f"{output / 'grouping.json'} and {output / 'grouping.png'} say more.", soft_wrap=True)


def _check_plan(seeds: list[int], clicks: list[int], num_agreeing: int, floors: TreeSettings) -> None:
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds) or num_agreeing < 0:
        raise ValueError(f"seeds {seeds}, agreeing {num_agreeing}: different seeds and no negative number are needed.")
    if not clicks or min(clicks) < floors.min_clicks:
        raise ValueError(f"clicks {clicks}: a scope needs {floors.min_clicks} of them, the floor of a group.")


def _side_by_side(
    bars: Progress, name: str, cases: list[Case], run: Callable[[Case], pd.DataFrame]
) -> list[pd.DataFrame]:
    """The rows of each case; two cases at a time, because MLlib's jobs are small and wait for the driver."""
    task = bars.add_task(name, total=len(cases))

    def run_and_tell(case: Case) -> pd.DataFrame:
        rows = run(case)
        bars.advance(task)
        return rows

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(run_and_tell, cases))


def _stability_rows(case: Case, floors: TreeSettings) -> pd.DataFrame:
    rows = [
        (case.market, case.condition, case.seed, one.scope, one.users_kept_share, one.num_groups)
        for one in stability_of(case, floors)
    ]
    return pd.DataFrame(rows, columns=["market", "condition", "seed", "scope", "users_kept_share", "num_groups"])


def _change_row(case: Case, floors: TreeSettings) -> pd.DataFrame:
    days = days_until_change_is_found(case, floors)
    found = {"condition": case.condition, "seed": case.seed, "clicks_wanted": case.clicks_wanted}
    return pd.DataFrame([{**found, "num_days": float("nan") if days is None else float(days)}])


def _print(report: dict[str, list[dict[str, float]]], console: Console) -> None:
    table = Table(title=f"Groups at {LEVEL_CLICKS:,} clicks a scope")
    for name in ("market", "users", "method", "adjusted Rand index", "held-out gain", "share of best", "groups"):
        table.add_column(name, justify="right" if name not in ("market", "users", "method") else "left")
    for row in report["methods"]:
        numbers = ("adjusted_rand_index_mean", "heldout_gain_per_1000_mean", "ctr_share_of_oracle_mean")
        texts = ["–" if row[name] is None else f"{row[name]:.3f}" for name in numbers]
        table.add_row(
            str(row["market"]), str(row["condition"]), str(row["method"]), *texts, f"{row['num_groups_mean']:.1f}"
        )
    console.print(table)
    for row in report["agreeing"]:
        if row["clicks_wanted"] == LEVEL_CLICKS:
            told = f"{row['num_split']} of {row['num_scopes']} agreeing scopes split"
            console.print(f"{row['market']}, {row['condition']}: {told}")
