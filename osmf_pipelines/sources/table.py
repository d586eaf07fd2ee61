"""`OSMF_SOURCE=table`: logs in tables that Spark reads in place, one day at a time.

The form of its `mapping.toml` is in `mapping.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from osmf_pipelines.sources.mapped import MappedSource
from osmf_pipelines.sources.mapping import EventMapping
from osmf_pipelines.sources.read_mapping import read_mapping


def _utc_now() -> datetime:
    return datetime.now(UTC)


class TableSource(MappedSource):
    """Logs in tables.

    Args:
        folder: holds `mapping.toml`.
        first_date: first day of logs.
        now: the clock.

    Raises:
        ValueError: when the mapping is missing or wrong; it names the file, the field and the remedy.
    """

    def __init__(self, folder: Path, first_date: date, now: Callable[[], datetime] = _utc_now):
        super().__init__(folder, read_mapping(folder, "table"))
        self.first_date = first_date
        self._now = now

    def days(self) -> list[date]:
        """Returns every day from the first to the last one that has settled, oldest first.

        A table does not say whether a day has rows without being read; a day without any is refused when it is.
        """
        num_days = (self._now().date() - self.first_date).days
        days = [self.first_date + timedelta(days=index) for index in range(num_days)]
        return [day for day in days if self._settled_at(day) <= self._now()]

    def delivery_of(self, day: date) -> str:
        """Returns "": a table does not tell when a day is written again."""
        return ""

    def _events(self, spark: SparkSession, name: str, mapping: EventMapping, day: date) -> DataFrame:
        if self._now() < self._settled_at(day):
            raise ValueError(
                f"day {day} is not complete: its rows settle at {self._settled_at(day):%Y-%m-%d %H:%M} UTC, "
                f"{self.mapping.settle_hours:g} hours after its end (settle_hours)."
            )
        return super()._events(spark, name, mapping, day)

    def _settled_at(self, day: date) -> datetime:
        end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        return end + timedelta(hours=self.mapping.settle_hours)
