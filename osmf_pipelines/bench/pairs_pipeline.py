"""The pipeline of the benchmark of pairs: Dagster's jobs in a process of their own, every phase of it noted.

python -m osmf_pipelines.bench.pairs_pipeline REQUEST.json RESULT.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import psutil
from rich.console import Console

from osmf_pipelines.bench.part_process import Steps
from osmf_pipelines.bench.process_memory import driver_heap
from osmf_pipelines.bench.stage_times import EventLog, PhaseEvent, cost_by_stage
from osmf_pipelines.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

UP_TO_PAIRS = ("user_groups", "group_features", "group_ctr", "preference_pairs")


@dataclass(frozen=True)
class Refresh:
    """One run of a job.

    Attributes:
        job: its name.
        first_day: ISO.
        last_day: ISO; the same for a single day.
        selection: assets to run; None for all of the job.
    """

    job: str
    first_day: str
    last_day: str
    selection: Sequence[str] | None = None


def run_refreshes(
    settings: Settings, refreshes: Sequence[Refresh], tables: Sequence[str], steps: Steps
) -> dict[str, Any]:
    """Runs jobs one after the other in one Spark session, which is stopped then.

    The time of the first one begins with this process: imports and the start of the JVM are in it.

    Args:
        settings: of the lake; `spark_conf` must have `event_log_conf`.
        refreshes: to run, but for as many as `steps` has rows.
        tables: whose published files are listed.
        steps: gets a row as each refresh ends: `job`, `first_day`, `last_day`, `starts_process`, `seconds`,
            `num_reopened_days` of `silver_exposures`, `driver_heap`, and `stages` (`StageCost` by name).

    Returns:
        `refreshes`: the rows of `steps`; `files`: Parquet files of each table, `num_rows` of each table.

    Raises:
        RunFailedError: when an asset fails.
    """
    from osmf_pipelines.cli.runs import JobRunner
    from osmf_pipelines.definitions import build_defs
    from osmf_pipelines.resources.lake import LakeResource

    events: list[PhaseEvent] = []

    def note(phase: str, table: str) -> None:
        events.append(PhaseEvent(time.time(), phase, table))

    resource = LakeResource(settings, note)
    defs = build_defs(settings, resource_overrides={"lake": resource})
    runner = JobRunner(Console())
    log = EventLog(Path(settings.spark_conf["spark.eventLog.dir"]))
    process_began = began = psutil.Process().create_time()
    for one in refreshes[len(steps.read()) :]:
        events.clear()
        first, last = date.fromisoformat(one.first_day), date.fromisoformat(one.last_day)
        done = runner.run(defs, one.job, first, last, selection=one.selection)
        ended = time.time()
        _wait_for_events(resource.lake.spark)
        stages = cost_by_stage(began, ended, events, log.read_new())
        steps.append(
            {
                **{key: value for key, value in asdict(one).items() if key != "selection"},
                "starts_process": began == process_began,
                "seconds": ended - began,
                "num_reopened_days": _count_reopened_days(done),
                "driver_heap": driver_heap(),
                "stages": {name: asdict(cost) for name, cost in stages.items()},
            }
        )
        began = time.time()
    files = {name: [unquote(urlparse(uri).path) for uri in resource.lake.read(name).inputFiles()] for name in tables}
    num_rows = {name: resource.lake.read(name).count() for name in tables}
    resource.lake.spark.stop()
    return {"refreshes": steps.read(), "files": files, "num_rows": num_rows}


def _wait_for_events(spark: SparkSession) -> None:
    """Waits until Spark has logged everything that happened."""
    context: Any = spark.sparkContext._jsc
    context.sc().listenerBus().waitUntilEmpty()


def _count_reopened_days(done: Any) -> int:
    """Days before its own that a job rewrote because of late clicks."""
    for event in done.get_asset_materialization_events():
        told = event.step_materialization_data.materialization
        if told.asset_key.path[-1] == "silver_exposures" and "reopened_days" in told.metadata:
            return len(told.metadata["reopened_days"].value)
    return 0


def event_log_conf(folder: Path) -> dict[str, str]:
    """Returns the Spark configuration that logs one application's events into `folder`, which must exist."""
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": str(folder),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }


def _main(request_path: str, result_path: str) -> None:
    request = json.loads(Path(request_path).read_text())
    refreshes = [Refresh(**one) for one in request["refreshes"]]
    steps = Steps.beside(Path(result_path))
    result = run_refreshes(Settings(**request["settings"]), refreshes, request["tables"], steps)
    Path(result_path).write_text(json.dumps(result))


if __name__ == "__main__":
    _main(*sys.argv[1:])
