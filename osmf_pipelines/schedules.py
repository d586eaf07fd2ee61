"""The daily refresh, and how a day's refresh is asked for; the weekly training; the pools that runs wait for.

Days that the schedule could not take are found by `sensors.py`; the upkeep of the tables is in `maintenance.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG, SCHEDULE_NAME_TAG

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings

# The run's tag that says which delivery of its day the source had when the run was asked for.
DELIVERY_TAG = "osmf/delivery"
_NAME = "daily_refresh"
_POOLS = ("spark", "gpu")  # this machine, for Spark or for training; where training is started elsewhere


def announce_pools(instance: dg.DagsterInstance) -> None:
    """Tells a new Dagster home its pools, with the limit that dagster.yaml gives.

    Dagster hears of a pool as it takes the first run that needs it from the queue, too late for the runs that wait
    beside it: they would all start.
    """
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits and instance.global_op_concurrency_default_limit:
        for pool in set(_POOLS) - set(storage.get_concurrency_keys()):
            storage.initialize_concurrency_limit_to_default(pool)


def build_daily_refresh(settings: Settings, job: dg.UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Returns the schedule that refreshes yesterday, once its logs are complete; a day is launched once.

    Args:
        settings: of the lake.
        job: refreshes one day. Its runs are told from another lake's job of the same name by its tags.

    Raises:
        ValueError: when `settings.refresh_cron` is no cron expression.
    """

    def daily_refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        from osmf_pipelines.sources import open_source

        announce_pools(context.instance)
        yesterday = context.scheduled_execution_time.date() - timedelta(days=1)
        if yesterday < settings.first_date:
            return dg.SkipReason(f"{yesterday} is before OSMF_FIRST_DATE={settings.first_date}")
        source = open_source(settings)
        if yesterday not in source.days():
            return dg.SkipReason(f"the logs of {yesterday} are not complete")
        delivery = source.delivery_of(yesterday)
        for run in _runs_of_day(context.instance, job, yesterday):
            if not run.is_finished:
                return dg.SkipReason(f"{yesterday} is being refreshed by run {run.run_id}")
            if run.tags.get(SCHEDULE_NAME_TAG) == _NAME or run.tags.get(DELIVERY_TAG) == delivery:
                return dg.SkipReason(f"{yesterday} was launched before, as run {run.run_id}: {run.status.value}")
        return refresh_request(yesterday, delivery, run_key=yesterday.isoformat())

    return _schedule(
        daily_refresh,
        job,
        ("OSMF_REFRESH_CRON", settings.refresh_cron),
        "Yesterday's logs to preference pairs, once they are complete.",
    )


def build_weekly_training(
    settings: Settings, job: dg.UnresolvedAssetJobDefinition, export: dg.AssetKey, registered: dg.AssetKey
) -> dg.ScheduleDefinition:
    """Returns the schedule that trains on the newest day with pairs, unless that day's model is registered already.

    Args:
        settings: of the lake.
        job: trains, judges and registers the models of one day.
        export: what `job` learns from.
        registered: last asset of `job` that tells whether a day has been trained on.

    Raises:
        ValueError: when `settings.training_cron` is no cron expression.
    """

    def weekly_training(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        announce_pools(context.instance)
        days = context.instance.get_materialized_partitions(export)
        if not days:
            return dg.SkipReason("no day has a training export yet")
        newest = max(days)
        if newest in context.instance.get_materialized_partitions(registered):
            return dg.SkipReason(f"the newest day with pairs, {newest}, has its model")
        under_way = dg.RunsFilter(job_name=job.name, tags=job.run_tags or {}, statuses=NOT_FINISHED_STATUSES)
        for run in context.instance.get_runs(filters=under_way, limit=1):
            return dg.SkipReason(f"models are being trained by run {run.run_id}")
        return dg.RunRequest(partition_key=newest)

    description = "Models from the newest pairs, judged and registered."
    return _schedule(weekly_training, job, ("OSMF_TRAINING_CRON", settings.training_cron), description)


def _schedule(
    evaluate: Callable[[dg.ScheduleEvaluationContext], dg.RunRequest | dg.SkipReason],
    job: dg.UnresolvedAssetJobDefinition,
    setting: tuple[str, str],
    description: str,
) -> dg.ScheduleDefinition:
    """A schedule named as its function, in UTC; `setting` is the name and value of its cron expression."""
    name, cron = setting
    try:
        return dg.schedule(job=job, cron_schedule=cron, execution_timezone="UTC", description=description)(evaluate)
    except dg.DagsterInvalidDefinitionError as error:
        raise ValueError(
            f"{name}={cron!r} is no cron expression: give minute, hour, day of month, month and day of week, for "
            "example '0 3 * * *'."
        ) from error


def refresh_request(day: date, delivery: str, *, run_key: str) -> dg.RunRequest:
    """Returns the request to refresh `day`.

    Args:
        day: to refresh.
        delivery: which delivery of the day the source has now.
        run_key: a sensor never launches two runs of one key.
    """
    return dg.RunRequest(partition_key=day.isoformat(), run_key=run_key, tags={DELIVERY_TAG: delivery})


def _runs_of_day(instance: dg.DagsterInstance, job: dg.UnresolvedAssetJobDefinition, day: date) -> list[dg.DagsterRun]:
    """Runs of `job` for `day` alone, whoever launched them."""
    tags = {**(job.run_tags or {}), PARTITION_NAME_TAG: day.isoformat()}
    return list(instance.get_runs(filters=dg.RunsFilter(job_name=job.name, tags=tags)))
