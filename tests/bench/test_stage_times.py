"""Phases and Spark's event log laid over each other, by hand; memory of real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from osmf_pipelines.bench.process_memory import MemorySampler
from osmf_pipelines.bench.stage_times import (
    END,
    START,
    EventLog,
    PhaseEvent,
    SparkWork,
    TaskTotals,
    cost_by_stage,
    merge_intervals,
    overlap,
)


def _phases(*told: tuple[float, str, str]) -> list[PhaseEvent]:
    return [PhaseEvent(*one) for one in told]


# Two assets: bronze with two tables, claimed from 5 on, and creative_stats.
EVENTS = _phases(
    (5, "claim", "bronze_clicks"),
    (5, "claim", "bronze_impressions"),
    (8, "stage", "bronze_impressions"),
    (10, "audit", "bronze_impressions"),
    (11, "commit", "bronze_impressions"),
    (12, "verify", "bronze_impressions"),
    (13, "discard", "bronze_impressions"),
    (14, "stage", "bronze_clicks"),
    (15, "discard", "bronze_clicks"),
    (17, "claim", "creative_stats"),
    (18, "stage", "creative_stats"),
    (20, "discard", "creative_stats"),
)


def test_every_second_is_in_one_stage() -> None:
    work = SparkWork(
        ((6.0, 9.0), (19.0, 19.5)), ((6.0, 6.5), (7.0, 8.5)), (6.0, 7.0, 19.0), (TaskTotals(8.5, 100, 20, 3),)
    )
    costs = cost_by_stage(0.0, 22.0, EVENTS, work)
    assert {name: cost.seconds for name, cost in costs.items()} == {
        START: 5.0,
        "bronze": 10.0,
        "creative_stats": 5.0,  # since the end of bronze
        END: 2.0,
    }
    bronze = costs["bronze"]
    # Computed: 5 to 8, and 13 to 14 for the second table.
    assert bronze.seconds_by_phase == {"compute": 4.0, "write": 3.0, "audit": 1.0, "commit": 2.0}
    assert (bronze.spark_seconds, bronze.job_seconds, bronze.num_jobs) == (3.0, 2.0, 2)
    assert (bronze.input_bytes, bronze.shuffle_bytes, bronze.spilled_bytes) == (100, 20, 3)
    assert (costs["creative_stats"].spark_seconds, costs["creative_stats"].num_jobs) == (0.5, 1)


def test_a_run_that_published_nothing_is_all_start() -> None:
    assert cost_by_stage(1.0, 4.0, [], SparkWork((), (), (), ()))[START].seconds == 3.0


def test_intervals_that_overlap_count_once() -> None:
    busy = merge_intervals([(5.0, 6.0), (1.0, 3.0), (2.0, 4.0)])
    assert busy == ((1.0, 4.0), (5.0, 6.0))
    assert overlap((0.0, 10.0), busy) == 4.0
    assert overlap((3.5, 5.5), busy) == 1.0


def test_an_event_log_is_read(tmp_path: Path) -> None:
    metrics = {
        "Input Metrics": {"Bytes Read": 7},
        "Shuffle Write Metrics": {"Shuffle Bytes Written": 8},
        "Disk Bytes Spilled": 9,
    }
    sql = "org.apache.spark.sql.execution.ui.SparkListenerSQLExecution"
    events = [
        {"Event": "SparkListenerApplicationStart", "Timestamp": 0},
        {"Event": f"{sql}Start", "executionId": 0, "time": 1000},
        {"Event": "SparkListenerJobStart", "Job ID": 0, "Submission Time": 1500},
        {"Event": "SparkListenerTaskEnd", "Task Info": {"Finish Time": 1800}, "Task Metrics": metrics},
        {"Event": "SparkListenerJobEnd", "Job ID": 0, "Completion Time": 2000},
        {"Event": f"{sql}End", "executionId": 0, "time": 2500},
        {"Event": "SparkListenerJobStart", "Job ID": 1, "Submission Time": 3000},
    ]
    log = tmp_path / "local-1.inprogress"
    log.write_text("\n".join(json.dumps(event) for event in events))
    reader = EventLog(tmp_path)
    # The last line may not be whole yet: the second job has not begun.
    assert reader.read_new() == SparkWork(((1.0, 2.5),), ((1.5, 2.0),), (1.5,), (TaskTotals(1.8, 7, 8, 9),))
    with log.open("a") as more:
        more.write('\n{"Event": "SparkListenerJobEnd", "Job ID": 1, "Completion Time": 3250}\n')
    assert reader.read_new() == SparkWork(((3.0, 3.25),), ((3.0, 3.25),), (3.0,), ())
    assert reader.read_new() == SparkWork((), (), (), ())
    (tmp_path / "local-2").write_text("")
    with pytest.raises(ValueError, match="holds 2 Spark event logs"):
        reader.read_new()


def test_memory_of_a_child_counts(tmp_path: Path) -> None:
    """A child of the sampled process takes 150 MB for a moment."""
    done = tmp_path / "done"
    grandchild = (
        f"data = bytearray(150_000_000); import time, pathlib; time.sleep(1); pathlib.Path({str(done)!r}).touch()"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    process = subprocess.Popen([sys.executable, "-c", code])
    with MemorySampler(process.pid) as sampler:
        process.wait()
    assert done.exists()
    assert 150_000_000 < sampler.peak.tree < 400_000_000
    assert sampler.peak.driver == 0
    with MemorySampler(os.getpid()) as own:
        time.sleep(0.3)
    assert own.peak.python > 10_000_000
