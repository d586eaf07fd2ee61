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
from typing import Any
from urllib.parse import unquote, urlparse

import psutil
from rich.console import Console

from osmf_pipelines.bench.stage_times import PhaseEvent, cost_by_stage, read_event_log
from osmf_pipelines.settings import Settings

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


def run_refreshes(settings: Settings, refreshes: Sequence[Refresh], tables: Sequence[str]) -> dict[str, Any]:
    """Runs jobs one after the other in one Spark session, which is stopped then.

    The first refresh's time begins with this process: imports and the start of the JVM are in it.

    Args:
        settings: of the lake; `spark_conf` must have `event_log_conf`.
        refreshes: to run.
        tables: whose published files are listed.

    Returns:
        `refreshes`: for each `job`, `first_day`, `last_day`, `seconds`, and `stages` (`StageCost` by name);
        `files`: Parquet files of each table, `num_rows` of each table.

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
    ends = [psutil.Process().create_time()]
    for one in refreshes:
        first, last = date.fromisoformat(one.first_day), date.fromisoformat(one.last_day)
        runner.run(defs, one.job, first, last, selection=one.selection)
        ends.append(time.time())
    files = {name: [unquote(urlparse(uri).path) for uri in resource.lake.read(name).inputFiles()] for name in tables}
    num_rows = {name: resource.lake.read(name).count() for name in tables}
    resource.lake.spark.stop()
    work = read_event_log(Path(settings.spark_conf["spark.eventLog.dir"]))
    told = []
    for one, began, ended in zip(refreshes, ends, ends[1:], strict=False):
        stages = cost_by_stage(began, ended, [event for event in events if began <= event.at < ended], work)
        told.append(
            {
                **{key: value for key, value in asdict(one).items() if key != "selection"},
                "seconds": ended - began,
                "stages": {name: asdict(cost) for name, cost in stages.items()},
            }
        )
    return {"refreshes": told, "files": files, "num_rows": num_rows}


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
    result = run_refreshes(Settings(**request["settings"]), refreshes, request["tables"])
    Path(result_path).write_text(json.dumps(result))


if __name__ == "__main__":
    _main(*sys.argv[1:])
