"""What `osmf bench pairs` measured, as a picture: growth, stages, refreshes, groups; a panel for what there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from osmf_pipelines.bench.part_process import Row

_PANEL_INCHES = (5.5, 4.8)
_BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "frameon": False}


def plot(report: Row, path: Path) -> None:
    """Draws time against impressions with the fitted growth, time by stage, cost by day, and time of groups by part."""
    panels: list[Callable[[Any, Row], None]] = []
    if report["sizes"]:
        panels += [_plot_sizes, _plot_stages]
    if report["refreshes"]:
        panels += [_plot_days]
    if report["groups"]:
        panels += [_plot_groups]
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, report)
    figure.savefig(path, dpi=110)


def _plot_sizes(axes: Any, report: Row) -> None:
    sizes = report["sizes"]
    millions = np.array([row["impressions"] / 1e6 for row in sizes])
    series = {
        "seconds": ("OSMF, files to pairs", [row["seconds"] for row in sizes]),
        "daily_seconds": ("OSMF, files to creative_stats", [row["daily_seconds"] for row in sizes]),
    }
    if all("duckdb" in row for row in sizes):
        told = [row["duckdb"]["daily_seconds"] for row in sizes]
        series["duckdb_daily_seconds"] = ("DuckDB, files to creative_stats", told)
    for name, (label, seconds) in series.items():
        fit = report["growth"].get(name)
        if fit:
            label += (
                f"\n{fit['fixed_seconds']:.1f} + {fit['seconds_per_million']:.1f} N^{fit['exponent']:.2f}, "
                f"exponent {fit['exponent_low']:.2f} to {fit['exponent_high']:.2f}"
            )
        (points,) = axes.plot(millions, seconds, marker="o", linestyle="none", label=label)
        if fit:
            fine = np.geomspace(millions.min(), millions.max(), 50)
            fitted = fit["fixed_seconds"] + fit["seconds_per_million"] * fine ** fit["exponent"]
            axes.plot(fine, fitted, color=points.get_color(), linewidth=1)
    axes.set(title="cost by volume", xlabel="million impressions (N)", ylabel="seconds", xscale="log", yscale="log")
    axes.set_xticks(millions, [f"{size:g}" for size in millions])
    axes.set_xticks([], minor=True)
    axes.legend(fontsize="small", **_BELOW)


def _plot_stages(axes: Any, report: Row) -> None:
    row = report["sizes"][-1]
    names = list(row["stages"])
    seconds = np.array([row["stages"][name]["seconds"] for name in names])
    spark = np.array([row["stages"][name]["spark_seconds"] for name in names])
    axes.barh(names, spark, label="Spark")
    axes.barh(names, seconds - spark, left=spark, label="everything else")
    axes.invert_yaxis()
    axes.set(title=f"{row['impressions'] / 1e6:g} million impressions, by stage", xlabel="seconds")
    axes.legend(ncols=2, **_BELOW)


def _plot_days(axes: Any, report: Row) -> None:
    """Days that start a process are hollow: the JVM's start is in them."""
    days = report["refreshes"]
    starts = np.array([row["starts_process"] for row in days])
    numbers = np.array([row["number"] for row in days])
    for name, label in (("daily_seconds", "files to creative_stats"), ("as_of_seconds", "groups to training export")):
        seconds = np.array([row[name] for row in days])
        (line,) = axes.plot(numbers, seconds, label=label)
        axes.plot(numbers[~starts], seconds[~starts], "o", color=line.get_color())
        axes.plot(numbers[starts], seconds[starts], "o", color=line.get_color(), markerfacecolor="white")
    axes.set(title="refresh of a day, equal volume", xlabel="day (hollow: starts Python and the JVM)", ylabel="seconds")
    axes.set_ylim(0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)


def _plot_groups(axes: Any, report: Row) -> None:
    groups = report["groups"]
    axes.barh(list(groups["seconds"]), list(groups["seconds"].values()))
    axes.invert_yaxis()
    axes.set(title=f"{groups['num_groups_planted']:,} groups from made-up sums", xlabel="seconds")
