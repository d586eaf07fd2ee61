"""`osmf bench pairs`: logs of each size, the pipeline and its peer on them, then day after day; then the report.

Every part runs in a process of its own, so that memory and the start of the JVM are each part's own. What is measured
is kept below OUTPUT/work until all of it is: the same call goes on where it was interrupted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from osmf_pipelines.bench.duckdb_peer import COMPARED, connect
from osmf_pipelines.bench.many_groups import PARTS
from osmf_pipelines.bench.pairs_logs import MIN_IMPRESSIONS_PER_DAY, Workload
from osmf_pipelines.bench.pairs_pipeline import UP_TO_PAIRS, Refresh
from osmf_pipelines.bench.pairs_place import PairsBench, Place
from osmf_pipelines.bench.pairs_plots import plot
from osmf_pipelines.bench.pairs_report import (
    FORMAT,
    groups_row,
    growth_rows,
    peer_part,
    refresh_growth,
    refresh_row,
    size_row,
)
from osmf_pipelines.bench.pairs_tables import print_report
from osmf_pipelines.bench.part_process import Row, write_json
from osmf_pipelines.settings import Settings

_TOLD_VERSIONS = ("pyspark", "delta-spark", "dagster", "great_expectations", "duckdb")


def run_pairs_bench(settings: Settings, output: Path, bench: PairsBench, console: Console) -> Row:
    """Writes `output`/pairs.json after each size, day and part, and pairs.png at the end; returns the report.

    Args:
        settings: of every lake; homes are made below `output`/work.
        output: folder to write.
        bench: what is measured.
        console: where progress goes.

    Raises:
        ValueError: when there is nothing to measure, it is impossible, or DuckDB is missing.
        RuntimeError: when a part fails, or the peer's tables are not the lake's; it names the log.
    """
    _check(bench)
    run = _Run(settings, output, bench, console)
    output.mkdir(parents=True, exist_ok=True)
    for impressions in sorted(set(bench.impressions)):
        run.measure_size(impressions)
    if bench.refresh_days:
        run.measure_refreshes()
    if bench.num_groups:
        run.measure_groups()
    run.write()
    plot(run.report, output / "pairs.png")
    print_report(run.report, console)
    console.print(f"{output / 'pairs.json'} and {output / 'pairs.png'} say more.", soft_wrap=True, highlight=False)
    if not bench.keeps_files:
        shutil.rmtree(run.work)
    return run.report


def _check(bench: PairsBench) -> None:
    if not (bench.impressions or bench.refresh_days or bench.num_groups):
        raise ValueError("nothing to measure: name sizes with --impressions, or --refresh-days, or --groups.")
    if min(bench.num_days, bench.num_cores, bench.num_products) < 1:
        raise ValueError("days, cores and products must be at least 1.")
    if min(bench.seed, bench.refresh_days, bench.num_groups) < 0:
        raise ValueError("seed, refresh days and groups must not be negative.")
    per_day = [impressions // bench.num_days for impressions in bench.impressions]
    per_day += [bench.refresh_impressions] if bench.refresh_days else []
    if per_day and min(per_day) < MIN_IMPRESSIONS_PER_DAY:
        raise ValueError(f"{min(per_day):,} impressions a day: at least {MIN_IMPRESSIONS_PER_DAY:,} are needed.")
    if bench.has_peer and bench.impressions:
        connect(1).close()


def _machine() -> Row:
    """What it is measured on, and with."""
    found = {dist.metadata["Name"]: dist.version for dist in distributions()}
    versions = {name: found[name] for name in _TOLD_VERSIONS if name in found}
    return {"num_cpus": os.cpu_count(), "memory_bytes": psutil.virtual_memory().total, "versions": versions}


class _Run:
    """Measures part by part, and keeps the report that is written."""

    def __init__(self, settings: Settings, output: Path, bench: PairsBench, console: Console):
        self.settings, self.output, self.bench, self.console = settings, output, bench, console
        self.work = output / "work"
        self.report: Row = {"format": FORMAT, "settings": asdict(bench), "machine": _machine()}
        self.report |= {"sizes": [], "refreshes": [], "groups": None}

    def measure_size(self, impressions: int) -> None:
        """Measures the pipeline and its peer on one size."""
        bench = self.bench
        workload = Workload(impressions // bench.num_days, bench.num_days, bench.num_products, bench.seed)
        place = self._place(f"{impressions}-impressions", workload)
        days = [day.isoformat() for day in workload.days]
        refreshes = [
            Refresh("ingest_days", days[0], days[-1]),
            Refresh("form_pairs", days[-1], days[-1], UP_TO_PAIRS),
        ]
        name, num_parts = f"{impressions:,} impressions", 1 + len(refreshes) + bench.has_peer
        with _progress(self.console, name, num_parts) as tell:
            place.write_logs()
            tell("logs")
            tables = [*COMPARED, "preference_pairs"]
            done, peak = place.run_pipeline(
                refreshes, tables, lambda row: tell(f"{row['job']}: {row['seconds']:.0f} s"), goes_on=False
            )
            row = size_row(impressions, done["refreshes"], done["num_rows"], peak)
            if bench.has_peer:
                row = peer_part(*place.run_peer(days, done["files"]), row)
                tell(f"DuckDB: {row['duckdb']['daily_seconds']:.0f} s, its tables are the lake's")
        self.report["sizes"].append(row)
        self.write()
        place.remove_tables()

    def measure_refreshes(self) -> None:
        """Refreshes day after day; an interrupted run goes on with the day that it was at."""
        bench, rows = self.bench, self.report["refreshes"]
        workload = Workload(bench.refresh_impressions, bench.refresh_days, bench.num_products, bench.seed)
        place = self._place(f"{bench.refresh_days}-days", workload)
        with _progress(self.console, f"days of {bench.refresh_impressions:,} impressions", bench.refresh_days) as tell:
            place.write_logs()

            def keep(refresh: Row) -> None:
                row = refresh_row(len(rows) + 1, refresh)
                rows.append(row)
                self.write()
                tell(f"day {row['number']}: {row['seconds']:.0f} s, {row['daily_seconds']:.0f} s to creative_stats")

            days = [day.isoformat() for day in workload.days]
            place.run_pipeline([Refresh("refresh_pairs", day, day) for day in days], [], keep, goes_on=True)
        place.remove_tables()

    def measure_groups(self) -> None:
        """Forms groups and their pairs from made-up sums; an interrupted run goes on with the part that it was at."""
        num_groups, steps = self.bench.num_groups, list[Row]()
        place = self._place(f"{num_groups}-groups", num_groups)
        with _progress(self.console, f"{num_groups:,} groups", len(PARTS)) as tell:

            def keep(step: Row) -> None:
                steps.append(step)
                self.report["groups"] = groups_row(num_groups, steps, {}, None)
                self.write()
                tell(f"{step['part']}: {step['seconds']:.0f} s")

            result, peak = place.run_many_groups(keep)
        self.report["groups"] = groups_row(num_groups, steps, result, peak)
        place.remove_tables()

    def write(self) -> None:
        """Writes what is measured so far."""
        self.report["growth"] = growth_rows(self.report["sizes"])
        self.report["refresh_growth"] = refresh_growth(self.report["refreshes"])
        write_json(self.output / "pairs.json", self.report)

    def _place(self, name: str, workload: Workload | int) -> Place:
        return Place(self.work, name, self.settings, self.bench, self.report["machine"], workload)


@contextmanager
def _progress(console: Console, name: str, total: int) -> Iterator[Callable[[str], None]]:
    """Shows how much of a part is done and since when; what it yields says what came to its end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Once a second: what is measured has the same cores.
    with Progress(*columns, console=console, transient=True, refresh_per_second=1) as bar:
        task = bar.add_task(name, total=total)

        def tell(text: str) -> None:
            console.print(f"    {name}: {text}", highlight=False)
            bar.advance(task)

        yield tell
