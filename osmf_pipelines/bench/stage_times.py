"""Where the time of a refresh goes: by stage and phase of publication, and how much of it Spark was at work.

Two records are laid over each other: the moments at which each phase of each publication begins (`PHASES` of
`spark/lake.py`) and Spark's own event log. Running a refresh belongs in `pairs_pipeline.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from osmf_pipelines.jobs import DIMENSIONS

START, END = "start", "end"
STAGE_OF_TABLE = {
    **dict.fromkeys(DIMENSIONS, "dimensions"),
    **dict.fromkeys(("bronze_impressions", "bronze_clicks", "quarantined_events", "ingest_ledger"), "bronze"),
    **dict.fromkeys(("silver_exposures", "attribution_ledger"), "silver_exposures"),
    "creative_stats": "creative_stats",
    "cell_users": "cell_users",
    **dict.fromkeys(("user_groups", "group_features"), "groups"),
}
DAILY_STAGES = ("dimensions", "bronze", "silver_exposures", "creative_stats", "cell_users")
AS_OF_STAGES = ("groups", "group_lineage", "group_ctr", "preference_pairs", "policy_values", "training_export")
# What a phase of publication is called in the report.
PHASE_NAMES = {
    "claim": "compute",
    "stage": "write",
    "audit": "audit",
    "commit": "commit",
    "verify": "commit",
    "discard": "commit",
}
_SQL = "org.apache.spark.sql.execution.ui.SparkListenerSQLExecution"
Interval = tuple[float, float]


@dataclass(frozen=True)
class PhaseEvent:
    """A phase of a table's publication begins.

    Attributes:
        at: seconds since the epoch.
        phase: one of `PHASES`.
        table: whose.
    """

    at: float
    phase: str
    table: str


@dataclass(frozen=True)
class TaskTotals:
    """What one Spark task did, at the moment it ended."""

    at: float
    input_bytes: int
    shuffle_bytes: int
    spilled_bytes: int


@dataclass(frozen=True)
class SparkWork:
    """What Spark's event log tells.

    Attributes:
        busy: when a query or a job ran, disjoint and in order.
        in_jobs: when a job ran, the same way.
        jobs: when each job was submitted.
        tasks: every task that ended.
    """

    busy: tuple[Interval, ...]
    in_jobs: tuple[Interval, ...]
    jobs: tuple[float, ...]
    tasks: tuple[TaskTotals, ...]

    def between(self, began: float, ended: float) -> SparkWork:
        """Returns the part of it that can matter from `began` to `ended`, seconds since the epoch."""
        busy, in_jobs = (
            tuple((start, end) for start, end in intervals if end > began and start < ended)
            for intervals in (self.busy, self.in_jobs)
        )
        return SparkWork(
            busy,
            in_jobs,
            tuple(at for at in self.jobs if began <= at < ended),
            tuple(task for task in self.tasks if began <= task.at < ended),
        )


@dataclass
class StageCost:
    """What one stage cost.

    Attributes:
        seconds: wall time.
        spark_seconds: of them, those in which Spark ran a query or a job: queries are planned, and Delta's commits
            written, in them too.
        job_seconds: of these, those in which a job ran.
        seconds_by_phase: compute (before the rows are written), write, audit, commit.
        num_jobs: Spark jobs.
        input_bytes: read from files by tasks.
        shuffle_bytes: written for other tasks.
        spilled_bytes: to disk, for want of memory.
    """

    seconds: float = 0.0
    spark_seconds: float = 0.0
    job_seconds: float = 0.0
    seconds_by_phase: dict[str, float] = field(default_factory=dict)
    num_jobs: int = 0
    input_bytes: int = 0
    shuffle_bytes: int = 0
    spilled_bytes: int = 0


def stage_of(table: str) -> str:
    """Returns the stage that a table is counted in; tables from the rates on are stages of their own."""
    return STAGE_OF_TABLE.get(table, table)


def cost_by_stage(began: float, ended: float, events: Sequence[PhaseEvent], work: SparkWork) -> dict[str, StageCost]:
    """Returns the cost of each stage; their seconds add up to `ended` - `began`.

    What passes before the first phase is `START`: imports, the JVM, the beginning of the run. What passes between the
    end of one asset's publication and the claim of the next, Dagster's, counts to the next; after the last is `END`.

    Args:
        began: seconds since the epoch.
        ended: the same.
        events: between the two, in order.
        work: of the same time and perhaps more.
    """
    work = work.between(began, ended)
    costs: dict[str, StageCost] = {}
    for first, last, stage, phase in _intervals(began, ended, events):
        cost = costs.setdefault(stage, StageCost())
        cost.seconds += last - first
        cost.spark_seconds += overlap((first, last), work.busy)
        cost.job_seconds += overlap((first, last), work.in_jobs)
        if phase:
            cost.seconds_by_phase[phase] = cost.seconds_by_phase.get(phase, 0.0) + last - first
        cost.num_jobs += sum(first <= at < last for at in work.jobs)
        for task in work.tasks:
            if first <= task.at < last:
                cost.input_bytes += task.input_bytes
                cost.shuffle_bytes += task.shuffle_bytes
                cost.spilled_bytes += task.spilled_bytes
    return costs


def _intervals(
    began: float, ended: float, events: Sequence[PhaseEvent]
) -> Iterable[tuple[float, float, str, str | None]]:
    if not events:
        yield began, ended, START, None
        return
    yield began, events[0].at, START, None
    for place, event in enumerate(events):
        following = events[place + 1] if place + 1 < len(events) else None
        until = following.at if following else ended
        stage = stage_of(event.table)
        if event.phase != "discard":
            yield event.at, until, stage, PHASE_NAMES[event.phase]
        elif following and stage_of(following.table) == stage:
            # The next table of the same asset is computed.
            yield event.at, until, stage, PHASE_NAMES["claim"]
        else:
            yield event.at, until, stage_of(following.table) if following else END, None


def overlap(interval: Interval, busy: Iterable[Interval]) -> float:
    """Returns the seconds of `interval` that lie in one of the disjoint intervals `busy`."""
    first, last = interval
    return sum(max(0.0, min(last, end) - max(first, start)) for start, end in busy)


def merge_intervals(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Returns the union of intervals as disjoint ones, in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)


class EventLog:
    """The event log that one Spark application writes, uncompressed and into one file; read while it goes on.

    Args:
        folder: `spark.eventLog.dir`, of this application alone.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._num_bytes = 0
        self._started: dict[tuple[str, int], float] = {}

    def read_new(self) -> SparkWork:
        """Returns what was logged since the last call; a query or a job that has not ended yet comes when it has.

        Raises:
            ValueError: when there is no log, or more than one.
        """
        logs = [path for path in self._folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        if len(logs) != 1:
            raise ValueError(f"{self._folder} holds {len(logs)} Spark event logs, one is needed.")
        return self._work(self._new_events(logs[0]))

    def _new_events(self, path: Path) -> Iterator[dict[str, Any]]:
        with path.open("rb") as log:
            log.seek(self._num_bytes)
            for line in log:
                if not line.endswith(b"\n"):
                    return  # not whole yet
                self._num_bytes += len(line)
                yield json.loads(line)

    def _work(self, events: Iterable[dict[str, Any]]) -> SparkWork:
        in_queries, in_jobs, jobs, tasks = [], [], [], []
        for event in events:
            name = event["Event"]
            if name == "SparkListenerJobStart":
                self._started["job", event["Job ID"]] = event["Submission Time"] / 1000
                jobs.append(event["Submission Time"] / 1000)
            elif name == "SparkListenerJobEnd":
                in_jobs.append((self._started.pop(("job", event["Job ID"])), event["Completion Time"] / 1000))
            elif name == f"{_SQL}Start":
                self._started["sql", event["executionId"]] = event["time"] / 1000
            elif name == f"{_SQL}End" and ("sql", event["executionId"]) in self._started:
                in_queries.append((self._started.pop(("sql", event["executionId"])), event["time"] / 1000))
            elif name == "SparkListenerTaskEnd" and event.get("Task Metrics"):
                tasks.append(_totals(event))
        busy = merge_intervals([*in_queries, *in_jobs])
        return SparkWork(busy, merge_intervals(in_jobs), tuple(jobs), tuple(tasks))


def _totals(event: dict[str, Any]) -> TaskTotals:
    metrics = event["Task Metrics"]
    return TaskTotals(
        event["Task Info"]["Finish Time"] / 1000,
        metrics["Input Metrics"]["Bytes Read"],
        metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"],
        metrics["Disk Bytes Spilled"],
    )
