"""What is published in a lake, and what the gate said last."""

from __future__ import annotations

from collections.abc import Iterator

from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES
from osmf_pipelines.verdicts import Verdict

COLUMNS = ("table", "rows", "days", "version", "published (UTC)", "last verdict")


def list_tables(settings: Settings) -> Iterator[tuple[str, ...]]:
    """Yields the values of `COLUMNS` for each table that was ever published or judged."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from osmf_pipelines.resources.lake import LakeResource

    resource = LakeResource(settings)
    lake = resource.lake
    for name, table in TABLES.items():
        verdict = resource.verdicts.read(name)
        if not lake.exists(name):
            if verdict is not None:
                yield name, "", "", "", "never", _tell(verdict)
            continue
        frame = lake.read(name)
        day = F.lit(None) if table.partition_column is None else F.col(table.partition_column)
        row = frame.agg(F.count(F.lit(1)), F.countDistinct(day), F.min(day), F.max(day)).collect()[0]
        days = f"{row[1]} ({row[2]} to {row[3]})" if row[1] else ""
        commit = DeltaTable.forPath(lake.spark, lake.path(name)).history(1).collect()[0]
        published = f"{commit['timestamp']:%Y-%m-%d %H:%M}"
        yield name, f"{row[0]:,}", days, str(commit["version"]), published, "" if verdict is None else _tell(verdict)


def _tell(verdict: Verdict) -> str:
    days = (
        ""
        if not verdict.days
        else f" {verdict.days[0]}"
        if len(set(verdict.days)) == 1
        else " " + " to ".join(verdict.days)
    )
    failed = ", ".join(verdict.failed_checks)
    if not verdict.is_published:
        return f"refused{days}: {failed}"
    return f"passed{days}" + (f", warned: {failed}" if failed else "")
