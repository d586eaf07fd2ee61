"""One hash per day of a table, the same for the same rows in any order.

It decides whether a refresh changed anything. Hashes of files do not belong here.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import MapType

from osmf_pipelines.tables import Table


def content_hashes(table: Table, frame: DataFrame) -> dict[str, str]:
    """Returns one hash per day ("all" for a snapshot): the same rows in any order give the same hash.

    Columns that only say where a row came from are left out. A day without rows has no entry.
    """
    day = F.lit("all") if table.partition_column is None else F.col(table.partition_column).cast("string")
    columns = [
        _hashable(frame, column)
        for column in table.column_names
        if column not in (*table.provenance_columns, table.partition_column)
    ]
    # Nulls do not change xxhash64, so whether each column is null goes in beside it.
    row_hash = F.xxhash64(*columns, *[column.isNull() for column in columns])
    totals = frame.groupBy(day.alias("day")).agg(
        F.count(F.lit(1)).alias("num_rows"), F.sum(row_hash.cast("decimal(38,0)")).alias("hash")
    )
    return {row["day"]: f"{row['num_rows']}:{row['hash']}" for row in totals.collect()}


def _hashable(frame: DataFrame, name: str) -> Column:
    is_map = isinstance(frame.schema[name].dataType, MapType)
    return F.array_sort(F.map_entries(F.col(name))) if is_map else F.col(name)
