"""The daily refresh."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings


def build_daily_refresh(settings: Settings, job: dg.UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Returns the schedule that refreshes yesterday, once its logs are complete."""

    @dg.schedule(
        name="daily_refresh",
        job=job,
        cron_schedule="0 3 * * *",
        execution_timezone="UTC",
        description="Every night: yesterday's logs to preference pairs.",
    )
    def daily_refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        from osmf_pipelines.sources import open_source

        yesterday = context.scheduled_execution_time.date() - timedelta(days=1)
        if yesterday not in open_source(settings).days():
            return dg.SkipReason(f"the logs of {yesterday} are not complete")
        return dg.RunRequest(partition_key=yesterday.isoformat(), run_key=yesterday.isoformat())

    return daily_refresh
