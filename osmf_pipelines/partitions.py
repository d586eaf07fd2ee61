"""The days of a lake."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings


def daily_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Returns one partition per day of logs, UTC."""
    end = settings.end_date.isoformat() if settings.end_date else None
    return dg.DailyPartitionsDefinition(settings.first_date.isoformat(), end_date=end, timezone="UTC")


def evidence_days(as_of_date: date, num_days: int) -> tuple[date, ...]:
    """Returns the days of the evidence window that ends with `as_of_date`, oldest first."""
    return tuple(as_of_date - timedelta(days=back) for back in reversed(range(num_days)))
