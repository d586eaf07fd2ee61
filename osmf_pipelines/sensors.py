"""What Dagster watches between two ticks of the schedule: days that lack their pairs, and runs that failed.

What an alert says and where it goes is in `alerts.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from osmf_pipelines.alerts import Alert, append_alert, post_alert
from osmf_pipelines.partitions import daily_partitions
from osmf_pipelines.schedules import DELIVERY_TAG, announce_pools, refresh_request

if TYPE_CHECKING:
    from dagster._core.execution.plan.objects import StepFailureData

    from osmf_pipelines.settings import Settings
    from osmf_pipelines.sources.source import Source

# As many runs as wait for the Spark pool at a time, so that a year of missing days does not fill the queue.
MAX_RUNS_WAITING = 10
_MISSING_DAYS_INTERVAL_SECONDS = 300
_NUM_NAMED_DAYS = 5
_MAX_MESSAGE_CHARACTERS = 500
_OWN_CODE = tuple(f'File "{Path(__file__).resolve().parents[1] / name}/' for name in ("osmf_pipelines", "osmf_models"))


def build_missing_days_sensor(
    settings: Settings, job: dg.UnresolvedAssetJobDefinition, asset_key: dg.AssetKey
) -> dg.SensorDefinition:
    """Returns the sensor that asks for every complete day of the source that has no pairs, the oldest first.

    A day that is under way is left alone. A day whose run for the same delivery ended without pairs is not asked for
    again; the days after it are.

    Args:
        settings: of the lake.
        job: refreshes one day.
        asset_key: last asset of `job`; a day is missing until its partition is materialised.
    """
    partitions = daily_partitions(settings)

    @dg.sensor(
        name="missing_days",
        job=job,
        minimum_interval_seconds=_MISSING_DAYS_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Refreshes every complete day without {asset_key.path[-1]}, the oldest first.",
    )
    def missing_days(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        from osmf_pipelines.sources import open_source

        announce_pools(context.instance)
        source = open_source(settings)
        days = [day for day in sorted(source.days()) if partitions.has_partition_key(day.isoformat())]
        materialized = context.instance.get_materialized_partitions(asset_key)
        missing = [day for day in days if day.isoformat() not in materialized]
        if not missing:
            return dg.SkipReason(f"none of {len(days)} complete days is missing")
        triage = _triage(
            source, missing, _running(context.instance, job, asset_key), _ended(context.instance, job, missing)
        )
        return [
            refresh_request(day, delivery, run_key=f"{day}/{delivery}") for day, delivery in triage.asked_for
        ] or dg.SkipReason(triage.reason)

    return missing_days


@dataclass(frozen=True)
class _Triage:
    """What happens to the missing days.

    Attributes:
        asked_for: (day, delivery) to ask for now.
        num_under_way: days that a queued or started run will make.
        ended: days whose run for the present delivery ended without pairs.
        num_waiting: days that are not looked at while enough runs wait.
    """

    asked_for: tuple[tuple[date, str], ...]
    num_under_way: int
    ended: tuple[date, ...]
    num_waiting: int

    @property
    def reason(self) -> str:
        """Why nothing is asked for."""
        told = [f"{self.num_under_way} under way"] if self.num_under_way else []
        if self.ended:
            named = ", ".join(str(day) for day in self.ended[:_NUM_NAMED_DAYS])
            more = f" and {len(self.ended) - _NUM_NAMED_DAYS} more" if len(self.ended) > _NUM_NAMED_DAYS else ""
            told.append(
                f"{len(self.ended)} whose run for the present delivery ended without pairs ({named}{more}): mend and "
                "deliver them again, or launch them by hand"
            )
        if self.num_waiting:
            told.append(f"{self.num_waiting} waiting for the runs before them")
        return f"missing days: {'; '.join(told)}"


def _triage(source: Source, missing: list[date], running: list[dg.DagsterRun], ended: set[tuple[str, str]]) -> _Triage:
    under_way = {day for run in running for day in _days_of(run)}
    candidates = [day for day in missing if day not in under_way]
    asked_for: list[tuple[date, str]] = []
    ended_days: list[date] = []
    for day in candidates:
        if len(asked_for) >= MAX_RUNS_WAITING - len(running):
            break
        delivery = source.delivery_of(day)
        if (day.isoformat(), delivery) in ended:
            ended_days.append(day)
        else:
            asked_for.append((day, delivery))
    return _Triage(
        asked_for=tuple(asked_for),
        num_under_way=len(missing) - len(candidates),
        ended=tuple(ended_days),
        num_waiting=len(candidates) - len(asked_for) - len(ended_days),
    )


def _running(
    instance: dg.DagsterInstance, job: dg.UnresolvedAssetJobDefinition, asset_key: dg.AssetKey
) -> list[dg.DagsterRun]:
    """Queued and started runs that will materialise `asset_key`: of the job, or of assets chosen by hand."""

    def makes_asset(run: dg.DagsterRun) -> bool:
        if run.asset_selection is not None:
            return asset_key in run.asset_selection
        return run.job_name == job.name and (job.run_tags or {}).items() <= run.tags.items()

    unfinished = instance.get_runs(filters=dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return [run for run in unfinished if makes_asset(run)]


def _ended(
    instance: dg.DagsterInstance, job: dg.UnresolvedAssetJobDefinition, days: Iterable[date]
) -> set[tuple[str, str]]:
    """(day, delivery) of the job's runs that have ended, however."""
    tags = {**(job.run_tags or {}), PARTITION_NAME_TAG: [day.isoformat() for day in days]}
    runs = instance.get_runs(filters=dg.RunsFilter(job_name=job.name, tags=tags))
    return {
        (run.tags[PARTITION_NAME_TAG], run.tags[DELIVERY_TAG])
        for run in runs
        if run.is_finished and DELIVERY_TAG in run.tags
    }


def _days_of(run: dg.DagsterRun) -> list[date]:
    """The day of a run, or all days of its range."""
    first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG, run.tags.get(PARTITION_NAME_TAG))
    last = run.tags.get(ASSET_PARTITION_RANGE_END_TAG, first)
    if first is None or last is None:
        return []
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [start + timedelta(days=index) for index in range((end - start).days + 1)]


def build_failure_sensor(settings: Settings) -> dg.SensorDefinition:
    """Returns the sensor that tells of every failed run of this code location.

    One line of JSON goes to HOME/alerts.jsonl, and to `settings.alert_url` where there is one.
    """

    @dg.run_failure_sensor(
        name="tell_failures",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A line in alerts.jsonl, and a POST to OSMF_ALERT_URL, for every run that fails.",
    )
    def tell_failures(context: dg.RunFailureSensorContext) -> None:
        alert = _describe_failure(context)
        append_alert(settings.home / "alerts.jsonl", alert)
        if settings.alert_url:
            try:
                post_alert(settings.alert_url, alert)
            except ConnectionError as error:
                # The alert is in the file; this is a second way.
                context.log.error(str(error))

    return tell_failures


def _describe_failure(context: dg.RunFailureSensorContext) -> Alert:
    run = context.dagster_run
    record = context.instance.get_run_record_by_id(run.run_id)
    if record is None or record.end_time is None:
        raise ValueError(f"run {run.run_id} failed, but Dagster does not know when: was it deleted?")
    first, last = run.tags.get(ASSET_PARTITION_RANGE_START_TAG), run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    failures = context.get_step_failure_events()
    message = _own_words(failures[0].step_failure_data) if failures else context.failure_event.message
    return Alert(
        time=datetime.fromtimestamp(record.end_time, UTC),
        job=run.job_name,
        partition=f"{first}...{last}" if first else run.tags.get(PARTITION_NAME_TAG),
        run_id=run.run_id,
        failed_step=failures[0].step_key if failures else None,
        message=(message or "the run says nothing")[:_MAX_MESSAGE_CHARACTERS],
    )


def _own_words(failure: StepFailureData) -> str:
    """What the failure says of itself, where it is this project's own; else its type alone.

    A library's message may quote data: Spark shows the value that it could not cast.
    """
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    if failure.error is None:
        return "the step says nothing"
    error = failure.error.cause or failure.error
    is_own = bool(error.stack) and error.stack[-1].lstrip().startswith(_OWN_CODE)
    return error.message.strip() if is_own else f"{error.cls_name}: see the run"
