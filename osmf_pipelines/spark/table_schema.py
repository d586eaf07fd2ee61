"""A table's description (`tables.py`) in Spark's and Delta's terms. Reading and writing belong in `lake`."""

from __future__ import annotations

from typing import cast

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from osmf_pipelines.tables import Table


def schema(table: Table) -> StructType:
    """Returns the table's columns and types."""
    return cast(StructType, StructType.fromDDL(table.ddl))


def partition_of(table: Table) -> str:
    """Returns the column that holds the day.

    Raises:
        ValueError: when the table is a snapshot.
    """
    if table.partition_column is None:
        raise ValueError(f"table {table.name} is a snapshot: it has no days.")
    return table.partition_column


def day_condition(column: str, days: list[str]) -> str:
    """Returns the SQL condition of rows of these days (ISO)."""
    return f"{column} IN ({', '.join(f'DATE{day!r}' for day in days)})"


def check_schema(table: Table, frame: DataFrame) -> None:
    """Compares the frame's types with the table's.

    Raises:
        ValueError: when they differ; it names the columns.
    """
    wrong = [
        f"{want.name}: {got.dataType.simpleString()} instead of {want.dataType.simpleString()}"
        for want, got in zip(schema(table), frame.schema, strict=True)
        if want.dataType.simpleString() != got.dataType.simpleString()
    ]
    if wrong:
        raise ValueError(f"table {table.name} does not take these columns: {'; '.join(wrong)}.")


def without_values(table: Table, error: PySparkException) -> Exception:
    """Returns the failure to raise, told by the constraint that was broken: Delta's own message quotes the row."""
    text = str(error)
    for constraint, sql in table.constraints:
        if "CONSTRAINT" in text and f" {constraint} " in text:
            return ValueError(
                f"table {table.name}: a row breaks the constraint {constraint} ({sql}); nothing is written."
            )
    return error
