"""Dagster jobs run inside this process, with a line per asset and a bar while a model trains.

The runs go into the same instance that `dagster dev` shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster._core.events import DagsterEventType
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    SCHEDULE_NAME_TAG,
    SENSOR_NAME_TAG,
)
from dagster._core.utils import make_new_run_id
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from osmf_pipelines.schedules import announce_pools

_CHECKOUT = Path(__file__).resolve().parents[2]
_NIGHT = clock_time(3)
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class RunFailedError(RuntimeError):
    """A job ended without success; the message says which asset and why."""


@dataclass(frozen=True)
class Asked:
    """What a schedule or a sensor says of a day.

    Attributes:
        tags: of the run that it asks for; None where it asks for none.
        reason: why it does not.
    """

    tags: dict[str, str] | None
    reason: str = ""


class JobRunner:
    """Runs jobs and tells how they go.

    Args:
        console: where progress goes.
    """

    def __init__(self, console: Console):
        self.console = console
        self.progress: Progress | None = None
        os.environ.setdefault("DAGSTER_HOME", str(_CHECKOUT / "dagster_home"))
        self.instance = dg.DagsterInstance.get()
        announce_pools(self.instance)

    def run(
        self,
        defs: dg.Definitions,
        job: str,
        first_day: date,
        last_day: date | None = None,
        asset_config: dict[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        selection: Sequence[str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Runs `job` for a day, or for all days of a range at once.

        Args:
            defs: of the lake.
            job: its name.
            first_day: the day.
            last_day: of a range.
            asset_config: run configuration by asset.
            tags: of the run, as a schedule or a sensor gives it them.
            selection: names of the assets of the job to run; default: all.

        Raises:
            RunFailedError: when an asset fails.
        """
        days: dict[str, Any] = {"partition_key": first_day.isoformat(), "tags": dict(tags or {})}
        if last_day is not None and last_day != first_day:
            range_tags = {
                ASSET_PARTITION_RANGE_START_TAG: first_day.isoformat(),
                ASSET_PARTITION_RANGE_END_TAG: last_day.isoformat(),
            }
            days = {"tags": {**range_tags, **(tags or {})}}
        run_id = make_new_run_id()
        reporter = _Reporter(self.console)
        self.instance.add_event_listener(run_id, reporter.handle)
        config = {**_QUIET, "ops": asset_config or {}}
        result = defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            run_id=run_id,
            raise_on_error=False,
            run_config=config,
            asset_selection=None if selection is None else [dg.AssetKey(name) for name in selection],
            **days,
        )
        if not result.success:
            raise RunFailedError(reporter.failure or f"{job} failed: see run {run_id} in `dagster dev`.")
        return result

    def ask_schedule(self, defs: dg.Definitions, day: date) -> Asked:
        """Returns what the schedule `daily_refresh` says of `day` in the night after it."""
        at = datetime.combine(day + timedelta(days=1), _NIGHT, UTC)
        with dg.build_schedule_context(instance=self.instance, scheduled_execution_time=at) as context:
            told = cast(dg.RunRequest | dg.SkipReason, defs.resolve_schedule_def("daily_refresh")(context))
        return _asked([told], day, {SCHEDULE_NAME_TAG: "daily_refresh"})

    def ask_sensor(self, defs: dg.Definitions, day: date) -> Asked:
        """Returns what the sensor `missing_days` says of `day`; other days that it asks for too are left."""
        with dg.build_sensor_context(instance=self.instance) as context:
            told = cast(list[dg.RunRequest] | dg.SkipReason, defs.resolve_sensor_def("missing_days")(context))
        return _asked([told] if isinstance(told, dg.SkipReason) else told, day, {SENSOR_NAME_TAG: "missing_days"})

    def show_training(self, name: str, heartbeat: dict[str, Any]) -> None:
        """Moves the bar of a model that trains."""
        if self.progress is None:
            columns = (TextColumn("    {task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self.progress = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self.progress.start()
            self.task = self.progress.add_task(name, total=heartbeat["num_steps"])
        text = f"{name} loss {heartbeat['loss']:.4f}" if heartbeat.get("loss") is not None else name
        self.progress.update(self.task, completed=heartbeat["step"], total=heartbeat["num_steps"], description=text)
        if heartbeat["step"] >= heartbeat["num_steps"]:
            self.progress.stop()
            self.progress = None


def _asked(told: Sequence[dg.RunRequest | dg.SkipReason], day: date, tags: dict[str, str]) -> Asked:
    for one in told:
        if isinstance(one, dg.RunRequest) and one.partition_key == day.isoformat():
            return Asked({**one.tags, **tags})
    skipped = [one.skip_message or "" for one in told if isinstance(one, dg.SkipReason)]
    return Asked(None, "; ".join(skipped) or f"it asks for other days than {day}")


class _Reporter:
    """Turns a run's events into lines."""

    def __init__(self, console: Console):
        self.console = console
        self.failure = ""
        self.told: set[dg.AssetKey] = set()
        self.since = time.monotonic()

    def handle(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            return
        if event.event_type == DagsterEventType.ASSET_MATERIALIZATION:
            self._tell_materialization(event.step_materialization_data.materialization)
        elif event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed:
                self.console.print(f"    [yellow]! {check.asset_key.path[-1]}: {check.check_name} did not hold[/]")
        elif event.event_type == DagsterEventType.STEP_FAILURE:
            failure = event.step_failure_data
            told = failure.user_failure_data.description if failure.user_failure_data else None
            cause = failure.error.cause if failure.error and failure.error.cause else failure.error
            self.failure = f"{event.step_key}: {told or (cause.message.strip() if cause else 'failed')}"

    def _tell_materialization(self, materialization: dg.AssetMaterialization) -> None:
        # A day beside those of the run, which says why; the table's own line comes after it.
        if materialization.description:
            told = f"{materialization.asset_key.path[-1]} of {materialization.partition} {materialization.description}"
            self.console.print(f"    [green]+[/] {told}", highlight=False)
            return
        # A range of days is one event per day, all of one publication.
        if materialization.asset_key in self.told:
            return
        self.told.add(materialization.asset_key)
        now = time.monotonic()
        rows = materialization.metadata.get("dagster/row_count")
        text = f"{rows.value:>11,} rows" if rows is not None else " " * 16
        name = materialization.asset_key.path[-1]
        self.console.print(f"    [green]✓[/] {name:<20} {text} {now - self.since:7.1f} s", highlight=False)
        self.since = now
