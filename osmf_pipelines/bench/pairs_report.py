"""What `osmf bench pairs` measured, as JSON, as a picture and on the terminal. docs/scale.md describes the keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from osmf_pipelines.bench.growth import Growth, fit_growth
from osmf_pipelines.bench.process_memory import PeakMemory
from osmf_pipelines.bench.stage_times import AS_OF_STAGES, DAILY_STAGES, START

FORMAT = "osmf-bench-pairs/1"
_NUM_COMPARED_DAYS = 3
Row = dict[str, Any]
Stages = dict[str, Row]


def size_row(impressions: int, refreshes: Sequence[Row], num_rows: dict[str, int], peak: PeakMemory) -> Row:
    """Returns what one size cost the pipeline.

    Args:
        impressions: right ones, all days.
        refreshes: of `run_refreshes`.
        num_rows: of the published tables.
        peak: of the process and all that it started.
    """
    stages = _add_stages([one["stages"] for one in refreshes])
    return {"impressions": impressions, **_costs(stages), "num_rows": num_rows, "peak_bytes": asdict(peak)}


def peer_part(seconds: dict[str, float], peak: PeakMemory, equality: dict[str, dict[str, int]], row: Row) -> Row:
    """Returns the row of a size with the peer's figures added.

    Args:
        seconds: of each stage of the peer, its `start` among them.
        peak: of its process.
        equality: rows and rows that differ, by table.
        row: the pipeline's.
    """
    total = sum(seconds.values()) - seconds["start"]
    told = {"seconds_by_stage": seconds, "daily_seconds": total, "peak_bytes": peak.tree, "equality": equality}
    return {**row, "duckdb": told, "daily_ratio_to_duckdb": row["daily_seconds"] / total}


def refresh_rows(refreshes: Sequence[Row]) -> list[Row]:
    """Returns what each day's refresh cost, in order; `number` counts from 1."""
    return [
        {"number": number, "day": one["first_day"], **_costs(one["stages"])} for number, one in enumerate(refreshes, 1)
    ]


def refresh_growth(rows: Sequence[Row]) -> Row | None:
    """Returns how the last days compare with the second and those after it; None for fewer than 3 days.

    The first day is left out: it starts the JVM and makes the tables. `last_to_second` compares single days,
    `last_to_first_few` medians of as many as three days from the second on and of as many last ones.
    """
    if len(rows) < 3:
        return None
    later = rows[1:]
    few = min(_NUM_COMPARED_DAYS, len(later) // 2)
    told: Row = {"num_days": len(rows), "num_days_in_median": few}
    for name in ("daily_seconds", "as_of_seconds"):
        values = [row[name] for row in later]
        told[name] = {
            "last_to_second": values[-1] / values[0],
            "last_to_first_few": median(values[-few:]) / median(values[:few]),
        }
    return told


def growth_rows(sizes: Sequence[Row]) -> dict[str, Row | None]:
    """Returns the growth of what is timed with the impressions; null where there are too few sizes."""
    impressions = [row["impressions"] for row in sizes]
    columns = {name: [row[name] for row in sizes] for name in ("daily_seconds", "seconds")}
    if sizes and all("duckdb" in row for row in sizes):
        columns["duckdb_daily_seconds"] = [row["duckdb"]["daily_seconds"] for row in sizes]
    found: dict[str, Growth | None] = {name: fit_growth(impressions, seconds) for name, seconds in columns.items()}
    return {name: None if growth is None else asdict(growth) for name, growth in found.items()}


def _costs(stages: Stages) -> Row:
    seconds = sum(stage["seconds"] for stage in stages.values())
    spark_seconds = sum(stage["spark_seconds"] for stage in stages.values())
    return {
        "seconds": seconds,
        "start_seconds": stages.get(START, {"seconds": 0.0})["seconds"],
        "daily_seconds": sum(stages[name]["seconds"] for name in DAILY_STAGES if name in stages),
        "as_of_seconds": sum(stages[name]["seconds"] for name in AS_OF_STAGES if name in stages),
        "spark_seconds": spark_seconds,
        "orchestration_share": 1 - spark_seconds / seconds,
        "stages": stages,
    }


def _add_stages(each: Sequence[Stages]) -> Stages:
    """The same stages of several runs, added up."""
    total: Stages = {}
    for stages in each:
        for name, stage in stages.items():
            total[name] = _add(total[name], stage) if name in total else stage
    return total


def _add(first: Row, second: Row) -> Row:
    phases = first["seconds_by_phase"].keys() | second["seconds_by_phase"].keys()
    added = {name: first[name] + second[name] for name in first if name != "seconds_by_phase"}
    by_phase = {
        name: first["seconds_by_phase"].get(name, 0.0) + second["seconds_by_phase"].get(name, 0.0) for name in phases
    }
    return {**added, "seconds_by_phase": by_phase}


def plot(report: Row, path: Path) -> None:
    """Draws time against impressions with the fitted growth, time by stage of the largest size, and cost by day."""
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    by_size, by_stage, by_day = figure.subplots(1, 3)
    sizes = sorted(report["sizes"], key=lambda row: row["impressions"])
    _plot_sizes(by_size, sizes, report["growth"])
    if sizes:
        _plot_stages(by_stage, sizes[-1])
    days = report["refreshes"]
    for name, label in (("daily_seconds", "up to creative_stats"), ("as_of_seconds", "groups to pairs")):
        by_day.plot([row["number"] for row in days], [row[name] for row in days], marker="o", label=label)
    by_day.set(title="refresh of a day, equal volume", xlabel="day", ylabel="seconds", ylim=(0, None))
    if days:
        by_day.legend(frameon=False)
    figure.savefig(path, dpi=110)


def _plot_sizes(axes: Any, sizes: Sequence[Row], growth: dict[str, Row | None]) -> None:
    axes.set(
        title="files to creative_stats", xlabel="million impressions", ylabel="seconds", xscale="log", yscale="log"
    )
    if not sizes:
        return
    millions = np.array([row["impressions"] / 1e6 for row in sizes])
    series = {"daily_seconds": ("OSMF", [row["daily_seconds"] for row in sizes])}
    if all("duckdb" in row for row in sizes):
        series["duckdb_daily_seconds"] = ("DuckDB", [row["duckdb"]["daily_seconds"] for row in sizes])
    for name, (label, seconds) in series.items():
        (points,) = axes.plot(millions, seconds, marker="o", linestyle="none", label=label)
        fit = growth.get(name)
        if fit:
            fine = np.geomspace(millions.min(), millions.max(), 50)
            fitted = fit["fixed_seconds"] + fit["seconds_per_million"] * fine ** fit["exponent"]
            label = f"{fit['fixed_seconds']:.1f} + {fit['seconds_per_million']:.1f} N^{fit['exponent']:.2f}"
            axes.plot(fine, fitted, color=points.get_color(), linewidth=1, label=label)
    axes.legend(frameon=False)


def _plot_stages(axes: Any, row: Row) -> None:
    names = list(row["stages"])
    seconds = np.array([row["stages"][name]["seconds"] for name in names])
    spark = np.array([row["stages"][name]["spark_seconds"] for name in names])
    axes.barh(names, spark, label="Spark")
    axes.barh(names, seconds - spark, left=spark, label="everything else")
    axes.invert_yaxis()
    axes.set(title=f"{row['impressions'] / 1e6:g} million impressions, by stage", xlabel="seconds")
    axes.legend(frameon=False)


def print_report(report: Row, console: Console) -> None:
    """Prints a row per size, the growth, and what refreshes cost."""
    table = Table(title="From files to preference pairs")
    for name in ("impressions", "files to creative_stats", "DuckDB", "ratio", "all", "not Spark", "peak memory"):
        table.add_column(name, justify="right")
    for row in report["sizes"]:
        peer = row.get("duckdb")
        table.add_row(
            f"{row['impressions']:,}",
            f"{row['daily_seconds']:.1f} s",
            f"{peer['daily_seconds']:.1f} s" if peer else "–",
            f"{row['daily_ratio_to_duckdb']:.1f}" if peer else "–",
            f"{row['seconds']:.1f} s",
            f"{row['orchestration_share']:.0%}",
            f"{row['peak_bytes']['tree'] / 2**30:.1f} GiB",
        )
    if report["sizes"]:
        console.print(table)
    for name, fit in report["growth"].items():
        if fit:
            told = (
                f"{fit['fixed_seconds']:.1f} s + {fit['seconds_per_million']:.2f} s * (N / 10^6)^{fit['exponent']:.2f}"
            )
            interval = f"95% interval of the exponent {fit['exponent_low']:.2f} to {fit['exponent_high']:.2f}"
            console.print(f"{name}: {told}, {interval}", highlight=False)
    groups = report["groups"]
    if groups:
        seconds = sum(groups["seconds"].values()) - groups["seconds"]["sums"]
        found = f"{groups['num_groups']:,} groups in {groups['num_scopes']:,} scopes"
        console.print(f"{found} and their pairs: {seconds:.0f} s", highlight=False)
    growth = report["refresh_growth"]
    if growth:
        for name, label in (("daily_seconds", "files to creative_stats"), ("as_of_seconds", "groups to pairs")):
            ratio = growth[name]["last_to_first_few"]
            console.print(
                f"refresh of day {growth['num_days']}, {label}: {ratio:.2f} times the first days'", highlight=False
            )
