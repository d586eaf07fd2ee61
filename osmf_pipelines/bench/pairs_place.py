"""Where one part of the benchmark of pairs runs: a folder with logs, a lake and the peer's tables.

Its name tells everything that the part's figures depend on, so that an interrupted benchmark finds what it measured.
Which parts there are belongs in `run_pairs.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from osmf_pipelines.bench.ablation_plan import fingerprint
from osmf_pipelines.bench.duckdb_peer import COMPARED, PeerRequest
from osmf_pipelines.bench.pairs_logs import FIRST_DAY, Workload
from osmf_pipelines.bench.pairs_pipeline import Refresh, event_log_conf
from osmf_pipelines.bench.part_process import Row, Steps, run_part
from osmf_pipelines.bench.process_memory import PeakMemory
from osmf_pipelines.settings import DEFAULT_USER_KEY, Settings

_DAGSTER_YAML = Path(__file__).resolve().parents[2] / "dagster_home" / "dagster.yaml"
_PACKAGE, _PIPELINE = "osmf_pipelines.bench", "pairs_pipeline"
Tell = Callable[[Row], None]


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
        driver_memory: heap of the Spark driver, the same for all parts.
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


class Place:
    """A folder with logs, a lake and the peer's tables.

    Args:
        work: folder to make it in.
        name: what it begins with.
        settings: of the lake, but for where it is and what Spark gets.
        bench: what is measured.
        machine: on which, and with which versions.
        workload: logs, or the number of groups.
    """

    def __init__(
        self, work: Path, name: str, settings: Settings, bench: PairsBench, machine: Row, workload: Workload | int
    ):
        self.bench, self.workload = bench, workload
        num_days = workload.num_days if isinstance(workload, Workload) else 1
        changed: dict[str, Any] = {
            "lake": "",
            "source": "files",
            "first_date": FIRST_DAY,
            "end_date": FIRST_DAY + timedelta(days=num_days),
            # Requests are files, and made-up logs need nobody's secrets.
            "user_key": DEFAULT_USER_KEY,
            "alert_url": "",
            "mlflow_uri": "",
            "spark_master": f"local[{bench.num_cores}]",
            "driver_memory": bench.driver_memory,
            # Of both this is what Spark takes.
            "spark_conf": {**settings.spark_conf, "spark.driver.memory": bench.driver_memory},
        }
        told = settings.model_copy(update=changed).model_dump(mode="json")
        of = workload if isinstance(workload, int) else asdict(workload)
        self.folder = work.absolute() / f"{name}-{fingerprint(told, machine, of, bench.seed)}"
        changed |= {"home": self.folder / "home", "source_path": self.folder / "market" / "drop"}
        self.settings = settings.model_copy(update=changed)

    def write_logs(self) -> None:
        """Simulates the logs; of what an interrupted simulation wrote, whole days are kept."""
        assert isinstance(self.workload, Workload)
        of_simulator = {**self._dumped(), "home": str(self.folder / "simulator")}
        output = str(self.folder / "market")
        request = {"settings": of_simulator, "output": output, "workload": asdict(self.workload)}
        run_part(f"{_PACKAGE}.pairs_logs", request, self.folder)

    def run_pipeline(
        self, refreshes: Sequence[Refresh], tables: Sequence[str], tell: Tell, *, goes_on: bool
    ) -> tuple[Any, PeakMemory]:
        """Runs jobs one after the other; returns what `run_refreshes` does, and peak memory.

        Args:
            refreshes: to run.
            tables: whose published files are listed.
            tell: given the row of each refresh as it ends.
            goes_on: whether the lake of an interrupted process is kept with what it published; emptied otherwise.
        """
        event_log, steps = self.folder / "event-log", Steps(self.folder / f"{_PIPELINE}.steps.json")
        if not (self.folder / f"{_PIPELINE}.done.json").is_file():
            shutil.rmtree(event_log, ignore_errors=True)
            event_log.mkdir(parents=True)
            if not (goes_on and steps.read()):
                steps.path.unlink(missing_ok=True)
                self._empty_lake()
        logged = {**self._dumped(), "spark_conf": {**self.settings.spark_conf, **event_log_conf(event_log)}}
        request = {"settings": logged, "refreshes": [asdict(one) for one in refreshes], "tables": list(tables)}
        environment = {"DAGSTER_HOME": str(self._dagster_home)}
        return run_part(f"{_PACKAGE}.{_PIPELINE}", request, self.folder, environment=environment, tell=tell)

    def _empty_lake(self) -> None:
        for path in (self.settings.home, self._dagster_home):
            shutil.rmtree(path, ignore_errors=True)
        self._dagster_home.mkdir()
        shutil.copy(_DAGSTER_YAML, self._dagster_home)

    def run_many_groups(self, tell: Tell) -> tuple[Any, PeakMemory]:
        """Returns what `measure_many_groups` does, and peak memory; goes on where an interrupted process was."""
        request: dict[str, Any] = {
            "settings": self._dumped(),
            "num_groups": self.workload,
            "seed": self.bench.seed,
            "output": str(self.folder / "tables"),
        }
        return run_part(f"{_PACKAGE}.many_groups", request, self.folder, tell=tell)

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
        peer = f"{_PACKAGE}.duckdb_peer"
        seconds, peak = run_part(peer, asdict(request), self.folder)
        compared = {**asdict(request), "lake_files": {name: lake_files[name] for name in COMPARED}}
        equality, _ = run_part(peer, compared, self.folder, name="duckdb_equality")
        different = {name: counts["num_different"] for name, counts in equality.items() if counts["num_different"]}
        if different:
            raise RuntimeError(f"DuckDB's tables are not the lake's: rows that differ {different}; see {self.folder}.")
        return seconds, peak, equality

    def remove_tables(self) -> None:
        """Removes logs, lake and the peer's tables, unless files are kept; results stay."""
        if not self.bench.keeps_files:
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)

    @property
    def _dagster_home(self) -> Path:
        return self.folder / "dagster"

    def _dumped(self) -> dict[str, Any]:
        return self.settings.model_dump(mode="json")
