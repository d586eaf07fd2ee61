"""One hash per day of a table, the same for the same rows in any order.

It decides whether a refresh changed anything. Hashes of files do not belong here.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import MapType

from osmf_pipelines.tables import Table

# Sums of 64 bits overflow, and decimals wide enough are an object a row: three sums, of 22 bits at most, are plain
# numbers and do not overflow below 2^41 rows a day.
_PART_BITS = 22


def list_days(table: Table, frame: DataFrame) -> set[str]:
    """Returns the days that have rows, as `content_hashes` names them; reads no other column."""
    if table.partition_column is None:
        return set() if frame.isEmpty() else {"all"}
    days = frame.select(F.col(table.partition_column).cast("string").alias("day")).distinct()
    return {row["day"] for row in days.collect()}


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
    parts = [
        F.shiftrightunsigned("row_hash", first).bitwiseAND(F.lit((1 << _PART_BITS) - 1))
        for first in range(0, 64, _PART_BITS)
    ]
    totals = (
        frame.select(day.alias("day"), row_hash.alias("row_hash"))
        .groupBy("day")
        .agg(F.count(F.lit(1)), *[F.sum(part) for part in parts])
    )
    return {of_day: ":".join(str(total) for total in told) for of_day, *told in totals.collect()}


def _hashable(frame: DataFrame, name: str) -> Column:
    is_map = isinstance(frame.schema[name].dataType, MapType)
    return F.array_sort(F.map_entries(F.col(name))) if is_map else F.col(name)
