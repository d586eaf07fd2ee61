"""A table that Spark reads in place: by name from a catalog, or by format from a path or a database.

Files that `mapping.toml` names are read in `read_files.py`.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.sources.mapping import TableMapping
from osmf_pipelines.sources.read_files import check_columns
from osmf_pipelines.sources.read_mapping import MAPPING_NAME
from osmf_pipelines.sources.source import quoted

_DAY_TYPES = ("date", "timestamp", "timestamp_ntz", "string")
_FROM_ENVIRONMENT = "env:"


def read_table(spark: SparkSession, folder: Path, section: str, mapping: TableMapping, columns: set[str]) -> DataFrame:
    """Returns the table with all its columns; nothing is read yet.

    Grain: one row per row of the table.

    Args:
        spark: the session.
        folder: holds mapping.toml; a relative path lies below it.
        section: of mapping.toml, for messages.
        mapping: names a table or a format.
        columns: their columns that the table must have.

    Raises:
        ValueError: when the table cannot be opened or lacks a column; it names the section, the table and the cause.
    """
    where = f"{folder / MAPPING_NAME}: [{section}] {mapping.origin!r}"
    reader = spark.read.options(**{name: _option(where, name, value) for name, value in mapping.options.items()})
    try:
        if mapping.table is not None:
            table = reader.table(mapping.table)
        else:
            table = reader.format(str(mapping.format)).load(mapping.path and absolute_path(folder, mapping.path))
    except (PySparkException, Py4JJavaError) as error:
        raise ValueError(f"{where} cannot be read: {_first_line(error)}") from error
    check_columns(section, mapping.origin, columns, table.columns)
    return table


def rows_of_day(table: DataFrame, section: str, column: str, day: date, day_format: str | None) -> DataFrame:
    """Returns the rows of one day, by a condition that Spark turns into a choice of partitions.

    Grain: one row per row of that day. A row without a day is in none.

    Args:
        table: as read.
        section: of mapping.toml, for messages.
        column: of the day.
        day: the day.
        day_format: how `column` writes it, in strftime's form; None: as a date, timestamp or text 2026-03-02.

    Raises:
        ValueError: when the column is of a type that holds no day.
    """
    if day_format is not None:
        return table.where(quoted(column).cast("string") == F.lit(day.strftime(day_format)))
    type_ = dict(table.dtypes)[column]
    if type_ not in _DAY_TYPES:
        raise ValueError(
            f"{MAPPING_NAME}: [{section}] day_column {column!r} is of type {type_}: name one of type "
            f"{', '.join(_DAY_TYPES)}, or say by day_format how it writes a day (%Y%m%d for 20260302)."
        )
    return table.where(quoted(column).cast("date") == F.lit(day))


def absolute_path(folder: Path, path: str) -> str:
    """Returns `path` itself where it is absolute or a URI, else below `folder`."""
    return path if "://" in path else str(folder.absolute() / path)


def picture_path(value: Column, root: str) -> Column:
    """Returns picture paths: absolute ones and URIs as they are, others below `root`."""
    is_complete = value.rlike("^(/|[A-Za-z][A-Za-z0-9+.-]*://)")
    return F.when(is_complete, value).otherwise(F.concat(F.lit(f"{root.rstrip('/')}/"), value))


def _option(where: str, name: str, value: str | bool | int | float) -> str | bool | int | float:
    if not isinstance(value, str) or not value.startswith(_FROM_ENVIRONMENT):
        return value
    variable = value.removeprefix(_FROM_ENVIRONMENT)
    if variable not in os.environ:
        raise ValueError(f"{where}: option {name} is read from the environment, where {variable} is not set.")
    return os.environ[variable]


def _first_line(error: PySparkException | Py4JJavaError) -> str:
    text = error.java_exception.toString() if isinstance(error, Py4JJavaError) else str(error)
    return text.splitlines()[0]
