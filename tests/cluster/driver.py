"""The driver of a day on a cluster, in a process of its own; what it saw is the JSON on its last line.

python -m tests.cluster.driver MASTER HOME DROP DAY OTHER_PYTHON
"""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from pyspark.sql import SparkSession

from osmf_pipelines.jobs import EVENTS
from osmf_pipelines.resources.lake import LakeResource, OnPhase
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.cluster import store_problem, workers_problem
from osmf_pipelines.spark.session import get_spark
from tests.cluster.conftest import PAIRS, QUICK_JAVA, UPSTREAM
from tests.lake.conftest import tiny_settings
from tests.lake.jobs import run_job

_KILLED_AT = ("stage", "silver_exposures")
_CONF = {
    "spark.network.timeout": "1800s",  # an executor that a busy machine starves is not lost
    "spark.executor.extraJavaOptions": QUICK_JAVA,
}


def run_day(settings: Settings, day: date) -> dict[str, object]:
    """Dimensions, then the day's events while an executor is killed, then pairs."""
    spark = LakeResource(settings).lake.spark
    killed: list[int] = []
    kill = _kill_an_executor(spark, killed)
    return {
        "dimensions": run_job(settings, "ingest_days", day, selection=UPSTREAM).success,
        "events": run_job(settings, "ingest_days", day, selection=EVENTS, on_phase=kill).success,
        "pairs": run_job(settings, "form_pairs", day, selection=PAIRS).success,
        "killed": killed,
        "imports": spark.sparkContext.parallelize([0], 1).map(_imports).collect()[0],
    }


def find_problems(settings: Settings, other_python: Path) -> dict[str, str | None]:
    """What is said when the cluster, a folder or a worker's Python is not as it must be."""
    spark = get_spark(settings)
    problems = {
        "none": workers_problem(spark, settings),
        # Each process sees its own folder there.
        "lake": workers_problem(spark, settings.model_copy(update={"lake": "/proc/self/cwd/lake"})),
        "driver": workers_problem(spark, settings.model_copy(update={"lake": f"{__file__}/lake"})),
        "store": store_problem(spark, f"file://{settings.lake_root}"),
        "no store": store_problem(spark, "nosuch://bucket/lake"),
    }
    for name, python in (("versions", str(other_python)), ("python", "/nowhere/python")):
        spark.sparkContext.pythonExec = python
        problems[name] = workers_problem(spark, settings)
    spark.stop()
    conf = {"spark.executor.memory": "4g"}
    greedy = settings.model_copy(
        update={"spark_conf": conf, "executor_wait_seconds": 3, "spark_python": sys.executable}
    )
    try:
        get_spark(greedy)
    except RuntimeError as error:
        problems["executors"] = str(error)
    return problems


def _imports(_: int) -> dict[str, object]:
    """Where a worker has its code from."""
    import numpy

    import osmf_pipelines

    return {"osmf": osmf_pipelines.__file__, "numpy": numpy.__file__, "path": sys.path, "cwd": str(Path.cwd())}


def _kill_an_executor(spark: SparkSession, killed: list[int]) -> OnPhase:
    def on_phase(phase: str, table: str) -> None:
        if (phase, table) == _KILLED_AT:
            threading.Thread(target=_kill_while_tasks_run, args=(spark, killed), daemon=True).start()

    return on_phase


def _kill_while_tasks_run(spark: SparkSession, killed: list[int]) -> None:
    while not (working := _working_executors(spark)):
        time.sleep(0.01)
    of_executor = {"org.apache.spark.executor.CoarseGrainedExecutorBackend", spark.sparkContext.applicationId}
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if of_executor <= set(line) and line[line.index("--executor-id") + 1] == working[0]:
            process.kill()
            killed.append(process.pid)


def _working_executors(spark: SparkSession) -> list[str]:
    """Ids of executors that have a task."""
    scala: Any = spark.sparkContext._jsc.sc()
    executors = scala.statusStore().executorList(True)
    found = [executors.apply(index) for index in range(executors.size())]
    return [executor.id() for executor in found if executor.activeTasks() > 0]


if __name__ == "__main__":
    master, home, drop, day, other_python = sys.argv[1:]
    given = {"spark_master": master, "executor_wait_seconds": 600, "spark_conf": _CONF}
    settings = tiny_settings(Path(home), Path(drop)).model_copy(update=given)
    found = {**run_day(settings, date.fromisoformat(day)), "problems": find_problems(settings, Path(other_python))}
    print(json.dumps(found))
