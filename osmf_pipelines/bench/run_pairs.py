"""`osmf bench pairs`: logs of each size, the pipeline and its peer on them, then day after day; then the report.

Every part runs in a process of its own, so that memory and the start of the JVM are each size's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from osmf_pipelines.bench.duckdb_peer import COMPARED, PeerRequest, connect
from osmf_pipelines.bench.pairs_logs import FIRST_DAY, MIN_IMPRESSIONS_PER_DAY, Workload
from osmf_pipelines.bench.pairs_pipeline import UP_TO_PAIRS, Refresh, event_log_conf
from osmf_pipelines.bench.pairs_report import (
    FORMAT,
    Row,
    growth_rows,
    peer_part,
    plot,
    print_report,
    refresh_growth,
    refresh_rows,
    size_row,
)
from osmf_pipelines.bench.process_memory import MemorySampler, PeakMemory
from osmf_pipelines.settings import DEFAULT_USER_KEY, Settings

_DAGSTER_YAML = Path(__file__).resolve().parents[2] / "dagster_home" / "dagster.yaml"
_TOLD_VERSIONS = ("pyspark", "delta-spark", "dagster", "great_expectations", "duckdb")
_LAST_LINES = 5


@dataclass(frozen=True)
class PairsBench:
    """What is measured.

    Attributes:
        impressions: of each size, over all its days; none for no sizes.
        num_days: days of logs of a size, ingested at once.
        refresh_days: days to refresh one after the other; 0 for none.
        refresh_impressions: of each of them.
        num_groups: to plant in made-up sums, for the part behind `creative_stats` alone; 0 for none.
        num_cores: for Spark and for the peer.
        driver_memory: heap of the Spark driver, the same for all sizes.
        num_products: of each category.
        seed: of market and logs.
        has_peer: whether DuckDB does the same on the same files.
        keeps_files: whether logs and lakes stay.
    """

    impressions: Sequence[int]
    num_days: int = 1
    refresh_days: int = 0
    refresh_impressions: int = 1_000_000
    num_groups: int = 0
    num_cores: int = 2
    driver_memory: str = "2g"
    num_products: int = 25
    seed: int = 1
    has_peer: bool = True
    keeps_files: bool = False


def run_pairs_bench(settings: Settings, output: Path, bench: PairsBench, console: Console) -> Row:
    """Writes `output`/pairs.json and pairs.png, after each size; returns the report.

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
    report: Row = {"format": FORMAT, "settings": asdict(bench), "machine": _machine()}
    report |= {"sizes": [], "refreshes": [], "groups": None}
    output.mkdir(parents=True, exist_ok=True)
    for impressions in sorted(set(bench.impressions)):
        report["sizes"].append(_measure_size(settings, output / "work", bench, impressions, console))
        _write(report, output)
    if bench.refresh_days:
        report["refreshes"] = _measure_refreshes(settings, output / "work", bench, console)
        _write(report, output)
    if bench.num_groups:
        report["groups"] = _measure_groups(settings, output / "work", bench, console)
    _write(report, output)
    print_report(report, console)
    console.print(f"{output / 'pairs.json'} and {output / 'pairs.png'} say more.", soft_wrap=True, highlight=False)
    return report


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


def _write(report: Row, output: Path) -> None:
    report["growth"] = growth_rows(report["sizes"])
    report["refresh_growth"] = refresh_growth(report["refreshes"])
    (output / "pairs.json").write_text(json.dumps(report, indent=1, allow_nan=False))
    plot(report, output / "pairs.png")


def _measure_size(settings: Settings, work: Path, bench: PairsBench, impressions: int, console: Console) -> Row:
    workload = Workload(impressions // bench.num_days, bench.num_days, bench.num_products, bench.seed)
    place = _Place(work / f"{impressions}-impressions", settings, bench)
    place.write_logs(workload, console)
    days = [day.isoformat() for day in workload.days]
    refreshes = [
        Refresh("ingest_days", days[0], days[-1]),
        Refresh("form_pairs", days[-1], days[-1], UP_TO_PAIRS),
    ]
    with console.status(f"{impressions:,} impressions: pipeline"):
        done, peak = place.run_pipeline(refreshes, [*COMPARED, "preference_pairs"])
    row = size_row(impressions, done["refreshes"], done["num_rows"], peak)
    console.print(f"    {impressions:,} impressions: {row['seconds']:.0f} s", highlight=False)
    if bench.has_peer:
        with console.status(f"{impressions:,} impressions: DuckDB"):
            row = peer_part(*place.run_peer(days, done["files"]), row)
    place.remove()
    return row


def _measure_refreshes(settings: Settings, work: Path, bench: PairsBench, console: Console) -> list[Row]:
    workload = Workload(bench.refresh_impressions, bench.refresh_days, bench.num_products, bench.seed)
    place = _Place(work / f"{bench.refresh_days}-days", settings, bench)
    place.write_logs(workload, console)
    days = [day.isoformat() for day in workload.days]
    with console.status(f"{bench.refresh_days} days, {bench.refresh_impressions:,} impressions each"):
        done, _ = place.run_pipeline([Refresh("refresh_pairs", day, day) for day in days], [])
    place.remove()
    return refresh_rows(done["refreshes"])


def _measure_groups(settings: Settings, work: Path, bench: PairsBench, console: Console) -> Row:
    place = _Place(work / f"{bench.num_groups}-groups", settings, bench)
    with console.status(f"{bench.num_groups:,} groups"):
        done, peak = place.run_many_groups(bench.num_groups)
    place.remove()
    return {"num_groups_planted": bench.num_groups, **done, "peak_bytes": asdict(peak)}


class _Place:
    """A folder with logs, a lake and the peer's tables.

    Args:
        folder: to write into.
        settings: of the lake, but for where it is and what Spark gets.
        bench: what is measured.
    """

    def __init__(self, folder: Path, settings: Settings, bench: PairsBench):
        self.folder, self.bench = folder.absolute(), bench
        self.event_log = self.folder / "event-log"
        changed = {
            "home": self.folder / "home",
            "lake": "",
            "source": "files",
            "source_path": self.folder / "market" / "drop",
            "first_date": FIRST_DAY,
            "end_date": FIRST_DAY + timedelta(days=max(bench.num_days, bench.refresh_days)),
            # Requests are files, and made-up logs need nobody's secrets.
            "user_key": DEFAULT_USER_KEY,
            "alert_url": "",
            "mlflow_uri": "",
            "spark_master": f"local[{bench.num_cores}]",
            "driver_memory": bench.driver_memory,
        }
        self.settings = settings.model_copy(update=changed)

    def write_logs(self, workload: Workload, console: Console) -> None:
        """Simulates the logs; what is there already is kept."""
        of_simulator = {**self._dumped(), "home": str(self.folder / "simulator")}
        request = {"settings": of_simulator, "output": str(self.folder / "market"), "workload": asdict(workload)}
        with console.status(f"{workload.num_days} days, {workload.impressions_per_day:,} impressions each: logs"):
            self._run("pairs_logs", request)

    def run_pipeline(self, refreshes: Sequence[Refresh], tables: Sequence[str]) -> tuple[Any, PeakMemory]:
        """Runs jobs on an empty lake; returns what `run_refreshes` does, and peak memory."""
        for path in (self.settings.home, self.event_log, self._dagster_home):
            shutil.rmtree(path, ignore_errors=True)
        self.event_log.mkdir(parents=True)
        self._dagster_home.mkdir(parents=True)
        shutil.copy(_DAGSTER_YAML, self._dagster_home)
        logged = {**self._dumped(), "spark_conf": {**self.settings.spark_conf, **event_log_conf(self.event_log)}}
        request = {"settings": logged, "refreshes": [asdict(one) for one in refreshes], "tables": list(tables)}
        return self._run("pairs_pipeline", request)

    def run_many_groups(self, num_groups: int) -> tuple[Any, PeakMemory]:
        """Returns what `measure_many_groups` does, and peak memory."""
        request = {"settings": self._dumped(), "num_groups": num_groups, "seed": self.bench.seed}
        return self._run("many_groups", {**request, "output": str(self.folder / "tables")})

    def run_peer(
        self, days: list[str], lake_files: dict[str, list[str]]
    ) -> tuple[dict[str, float], PeakMemory, dict[str, dict[str, int]]]:
        """Runs the peer; returns its seconds by stage, its peak memory, and rows and differences by table.

        Raises:
            RuntimeError: when its tables are not the lake's.
        """
        settings = self.settings
        request = PeerRequest(
            drop=str(settings.drop_folder),
            days=days,
            output=str(self.folder / "duckdb"),
            num_threads=self.bench.num_cores,
            user_key=settings.user_key,
            attribution_window_hours=settings.attribution_window_hours,
            click_lookback_days=settings.click_lookback_days,
            max_impressions_per_user_day=settings.max_impressions_per_user_day,
        )
        seconds, peak = self._run("duckdb_peer", asdict(request))
        compared = {name: lake_files[name] for name in COMPARED}
        equality, _ = self._run("duckdb_peer", {**asdict(request), "lake_files": compared})
        different = {name: counts["num_different"] for name, counts in equality.items() if counts["num_different"]}
        if different:
            raise RuntimeError(f"DuckDB's tables are not the lake's: rows that differ {different}; see {self.folder}.")
        return seconds, peak, equality

    def remove(self) -> None:
        """Removes the folder, unless files are kept."""
        if not self.bench.keeps_files:
            shutil.rmtree(self.folder)

    @property
    def _dagster_home(self) -> Path:
        return self.folder / "dagster"

    def _dumped(self) -> dict[str, Any]:
        return self.settings.model_dump(mode="json")

    def _run(self, module: str, request: dict[str, Any]) -> tuple[Any, PeakMemory]:
        """Runs a module in a process of its own; returns its result and the peak memory of its tree."""
        paths = {name: self.folder / f"{module}.{name}" for name in ("request.json", "result.json", "log")}
        self.folder.mkdir(parents=True, exist_ok=True)
        paths["request.json"].write_text(json.dumps(request))
        arguments = [str(paths["request.json"]), str(paths["result.json"])]
        with paths["log"].open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"osmf_pipelines.bench.{module}", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "DAGSTER_HOME": str(self._dagster_home)},
            )
            with MemorySampler(process.pid) as sampler:
                try:
                    code = process.wait()
                finally:
                    process.kill()
        if code:
            last = "\n".join(paths["log"].read_text().splitlines()[-_LAST_LINES:])
            raise RuntimeError(f"{module} ended with {code}; {paths['log']} says more:\n{last}")
        return json.loads(paths["result.json"].read_text()), sampler.peak
