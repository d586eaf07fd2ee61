"""What `osmf bench pairs` measured, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from osmf_pipelines.bench.part_process import Row

_DAILY, _AS_OF = "files to creative_stats", "groups to training export"


def print_report(report: Row, console: Console) -> None:
    """Prints a row per size and per day, the growth, and what groups cost."""
    if report["sizes"]:
        console.print(_size_table(report["sizes"]))
    for name, fit in report["growth"].items():
        if fit:
            told = (
                f"{fit['fixed_seconds']:.1f} s + {fit['seconds_per_million']:.2f} s * (N / 10^6)^{fit['exponent']:.2f}"
            )
            interval = f"95% interval of the exponent {fit['exponent_low']:.2f} to {fit['exponent_high']:.2f}"
            console.print(f"{name}: {told}, {interval}", highlight=False)
    if report["refreshes"]:
        console.print(_day_table(report["refreshes"]))
    if report["refresh_growth"]:
        _print_refresh_growth(report["refresh_growth"], console)
    groups = report["groups"]
    if groups:
        seconds = sum(groups["seconds"].values()) - groups["seconds"]["sums"]
        found = f"{groups['num_groups']:,} groups in {groups['num_scopes']:,} scopes"
        peak = f"peak memory {groups['peak_bytes']['tree'] / 2**30:.1f} GiB"
        console.print(f"{found} and their pairs: {seconds:.0f} s, {peak}", highlight=False)


def _size_table(sizes: Sequence[Row]) -> Table:
    table = Table(title="From files to preference pairs")
    for name in ("impressions", _DAILY, "DuckDB", "ratio", "all", "not Spark", "no job", "peak memory"):
        table.add_column(name, justify="right")
    for row in sizes:
        peer = row.get("duckdb")
        table.add_row(
            f"{row['impressions']:,}",
            f"{row['daily_seconds']:.1f} s",
            f"{peer['daily_seconds']:.1f} s" if peer else "–",
            f"{row['daily_ratio_to_duckdb']:.1f}" if peer else "–",
            f"{row['seconds']:.1f} s",
            *_shares(row),
            f"{row['peak_bytes']['tree'] / 2**30:.1f} GiB",
        )
    return table


def _day_table(days: Sequence[Row]) -> Table:
    table = Table(
        title="Refreshes, day after day",
        caption="* starts Python and the JVM; re-opened: days before it, by late clicks",
    )
    for name in ("day", "re-opened", "to creative_stats", "as of", "all", "not Spark", "no job"):
        table.add_column(name, justify="right")
    for row in days:
        table.add_row(
            f"{'*' if row['starts_process'] else ''}{row['number']}",
            str(row["num_reopened_days"]),
            *(f"{row[name]:.1f} s" for name in ("daily_seconds", "as_of_seconds", "seconds")),
            *_shares(row),
        )
    return table


def _shares(row: Row) -> tuple[str, str]:
    """The shares of the time without a query or job of Spark, and without a job."""
    return f"{row['orchestration_share']:.0%}", f"{1 - row['job_seconds'] / row['seconds']:.0%}"


def _print_refresh_growth(growth: Row, console: Console) -> None:
    first, last = growth["first_days"], growth["last_days"]
    for name, label in (("daily_seconds", _DAILY), ("as_of_seconds", _AS_OF)):
        single = f"day {last[-1]} took {growth[name]['last_to_second']:.2f} times day {first[0]}'s"
        few = f"{growth[name]['last_to_first_few']:.2f} by medians of days {_range(last)} and {_range(first)}"
        console.print(f"refresh, {label}: {single}, {few}", highlight=False)
    told = f"not Spark: {growth['orchestration_share']:.0%} of {growth['num_days']} refreshes that start no process"
    console.print(told, highlight=False)


def _range(days: Sequence[int]) -> str:
    return f"{days[0]}–{days[-1]}" if len(days) > 1 else str(days[0])
