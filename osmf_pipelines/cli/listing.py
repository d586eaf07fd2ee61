"""What is published in a lake."""

from __future__ import annotations

from collections.abc import Iterator

from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES


def list_tables(settings: Settings) -> Iterator[tuple[str, str, str, str, str]]:
    """Yields (table, rows, days, version, time of the last commit) for each published table."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from osmf_pipelines.resources.lake import LakeResource

    lake = LakeResource(settings).lake
    for name, table in TABLES.items():
        if not lake.exists(name):
            continue
        frame = lake.read(name)
        day = F.lit(None) if table.partition_column is None else F.col(table.partition_column)
        row = frame.agg(F.count(F.lit(1)), F.countDistinct(day), F.min(day), F.max(day)).collect()[0]
        days = f"{row[1]} ({row[2]} to {row[3]})" if row[1] else ""
        commit = DeltaTable.forPath(lake.spark, lake.path(name)).history(1).collect()[0]
        yield name, f"{row[0]:,}", days, str(commit["version"]), f"{commit['timestamp']:%Y-%m-%d %H:%M}"
