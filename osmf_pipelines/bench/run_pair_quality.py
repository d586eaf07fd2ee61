"""`osmf bench pair-quality`: simulates, judges, writes the report."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from osmf_pipelines.bench.pair_quality import PAIR_CONDITIONS, PairCase, bench_pairs
from osmf_pipelines.bench.pair_quality_report import plot, summarise
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.session import get_spark

MIN_IMPRESSIONS = 50


def run_pair_bench(
    settings: Settings,
    output: Path,
    *,
    markets: list[str],
    seeds: list[int],
    impressions: list[int],
    console: Console,
) -> None:
    """Writes `output`/pair_quality.json and pair_quality.png.

    Args:
        settings: of the Spark session, and the probability from which pairs are kept.
        output: folder to write.
        markets: names among `MARKETS`.
        seeds: of the markets.
        impressions: of a creative in one segment, every level.
        console: where progress goes.

    Raises:
        ValueError: when there are no seeds or impressions, or they are impossible.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {seeds}: different seeds, none of them negative, are needed.")
    if not impressions or min(impressions) < MIN_IMPRESSIONS or len(set(impressions)) < len(impressions):
        raise ValueError(f"impressions {impressions}: different levels of {MIN_IMPRESSIONS} and more are needed.")
    cases = [PairCase(*one) for one in product(markets, PAIR_CONDITIONS, seeds, impressions)]
    columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found = []
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("markets", total=len(cases))
        for frames in bench_pairs(get_spark(settings), cases, TreeSettings()):
            found.append(frames)
            bars.advance(task)
    joined = [pd.concat([getattr(one, name) for one in found]) for name in ("comparisons", "intervals", "bias")]
    told = {"markets": markets, "seeds": seeds, "impressions_per_arm": impressions}
    report = summarise(joined[0], joined[1], joined[2], settings.min_pair_probability, told)
    output.mkdir(parents=True, exist_ok=True)
    (output / "pair_quality.json").write_text(json.dumps(report, indent=1, allow_nan=False, default=np.generic.item))
    plot(report, output / "pair_quality.png")
    _print(report, console)
    console.print(f"{output / 'pair_quality.json'} and {output / 'pair_quality.png'} say more.", soft_wrap=True)


def _print(report: dict[str, Any], console: Console) -> None:
    table = Table(title=f"Pairs kept from probability {report['settings']['min_probability']} on")
    for name in ("market", "shown", "pairs", "expected wrong", "wrong", "wrong by CAIG's filter", "ours, as many"):
        table.add_column(name, justify="left" if name in ("market", "shown") else "right")
    for kept, caig in zip(report["kept"], report["caig"], strict=True):
        shares = (kept["expected_wrong_share"], kept["wrong_share"], caig["caig_wrong_share"], caig["wrong_share"])
        texts = ["none kept" if share is None else f"{share:.4f}" for share in shares]
        table.add_row(kept["market"], kept["condition"], f"{kept['num_pairs']:,}", *texts)
    console.print(table)
