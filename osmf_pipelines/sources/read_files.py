"""Files of one table as a frame with their own columns; what Spark would find out late, or not at all, is refused here.

Parquet keeps its types; CSV and JSON Lines are text, and a line that cannot be read is kept in `_corrupt_record`.
Which files make a table or a day belongs in `mapped.py`.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from osmf_pipelines.sources.read_mapping import MAPPING_NAME, near_match
from osmf_pipelines.sources.source import CORRUPT_RECORD

_NUM_SAMPLE_LINES = 1000
_UNREADABLE = (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error)
ColumnTypes = dict[str, tuple[tuple[str, str, str], ...]]


def read_files(spark: SparkSession, section: str, paths: list[Path], columns: set[str]) -> DataFrame:
    """Returns the rows of `paths` with their own column names.

    Grain: one row per row or line.

    Args:
        spark: the session.
        section: of mapping.toml, for messages.
        paths: files, or folders of files as Spark writes them, all of one format.
        columns: their columns that the mapping names; every file must have them (JSON Lines: some line of some file).

    Raises:
        ValueError: when a file cannot be read, lacks a column or differs from the others; it names the file.
    """
    files = [file for path in paths for file in _files_below(path)]
    if not files:
        raise ValueError(f"[{section}]: {paths[0]} is a folder without files.")
    names = [str(path) for path in paths]
    if _format(files) == ".parquet":
        _check_footers(section, files, columns)
        frame = spark.read.parquet(*names)
        check_columns(section, str(files[0]), columns, frame.columns)
        return frame
    if _format(files) == ".csv":
        header = _common_header(section, files, columns)
        reader = spark.read.schema(_text_schema(header)).option("header", True)
        # With pruning, whether a line is corrupt would depend on the columns that a query happens to use.
        return reader.option("columnPruning", False).csv(names)
    _check_keys(spark, section, files, columns)
    return spark.read.schema(_text_schema(sorted(columns))).json(names)


def check_columns(section: str, origin: str, needed: set[str], available: Iterable[str]) -> None:
    """Refuses a table that lacks a mapped column.

    Raises:
        ValueError: naming the first column that `origin` lacks, and what it has.
    """
    has = [name for name in available if name != CORRUPT_RECORD]
    for name in sorted(needed - set(has)):
        raise ValueError(
            f"{origin} has no column {name!r} that {MAPPING_NAME} names in [{section}]{near_match(name, has)}; "
            f"it has {', '.join(has)}."
        )


def is_hidden(path: Path) -> bool:
    """Returns whether Spark and Hadoop take a file or folder for no data."""
    return path.name.startswith(("_", "."))


def _files_below(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (file for file in path.rglob("*") if file.is_file())
    return sorted(f for f in found if not any(is_hidden(Path(part)) for part in f.relative_to(path).parts))


def _format(files: list[Path]) -> str:
    formats = {_suffix(file): file for file in files}
    if len(formats) > 1:
        first, second = list(formats.values())[:2]
        raise ValueError(f"{first} and {second} are of two formats: deliver a table in one.")
    (suffix,) = formats
    if suffix not in (".parquet", ".csv", ".jsonl", ".json"):
        raise ValueError(
            f"{files[0]}: {suffix or 'a file without an ending'} is not read; use .parquet, .csv or .jsonl, or give "
            f"`format` and `path` in {MAPPING_NAME}."
        )
    return suffix


def _suffix(file: Path) -> str:
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _text_schema(names: list[str]) -> StructType:
    return StructType([StructField(name, StringType()) for name in (*names, CORRUPT_RECORD)])


def _check_footers(section: str, files: list[Path], columns: set[str]) -> None:
    """Compares all files with the first: Spark takes one file's columns for all, and nulls for what another lacks."""
    first = _parquet_types(files[0])
    for file in files:
        types = _parquet_types(file)
        # What is in no file at all may be a partition's column, which folder names tell.
        check_columns(section, str(file), columns & first.keys(), types)
        for name, type_ in types.items():
            if any("nanoseconds" in logical for _, _, logical in type_):
                raise ValueError(
                    f"{file}: column {name!r} holds nanoseconds, which Spark does not read; write microseconds "
                    '(pandas: to_parquet(..., coerce_timestamps="us", allow_truncated_timestamps=True)).'
                )
            if type_ != first.get(name, type_):
                raise ValueError(
                    f"{file}: column {name!r} is {_describe(type_)}, but {_describe(first[name])} in {files[0]}; "
                    "write both alike."
                )


def _parquet_types(file: Path) -> ColumnTypes:
    """Top-level column to (path, physical type, logical type) of each of its leaves."""
    try:
        schema = pq.read_metadata(file).schema
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is no readable Parquet file: {error}") from error
    types: ColumnTypes = {}
    for index in range(len(schema)):
        leaf = schema.column(index)
        name = leaf.path.split(".")[0]
        types[name] = (*types.get(name, ()), (leaf.path, leaf.physical_type, str(leaf.logical_type)))
    return types


def _describe(types: tuple[tuple[str, str, str], ...]) -> str:
    return ", ".join(physical if logical == "None" else f"{physical} ({logical})" for _, physical, logical in types)


def _lines(file: Path) -> Iterator[str]:
    """The lines that are not blank."""
    is_gzip, encoding = file.suffix.lower() == ".gz", "utf-8-sig"
    try:
        with gzip.open(file, "rt", encoding=encoding) if is_gzip else file.open(encoding=encoding) as lines:
            yield from (line for line in lines if line.strip())
    except _UNREADABLE as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _common_header(section: str, files: list[Path], columns: set[str]) -> list[str]:
    """Columns of CSV files, which must all have the same: Spark reads by place."""
    headers = {file: _header(file) for file in files}
    for file, header in headers.items():
        check_columns(section, str(file), columns, header)
        if header != headers[files[0]]:
            raise ValueError(
                f"{file} has the header {', '.join(header)}, but {files[0]} has {', '.join(headers[files[0]])}; "
                "deliver a day's files with one header."
            )
    return headers[files[0]]


def _header(file: Path) -> list[str]:
    line = next(_lines(file), None)
    if line is None:
        raise ValueError(f"{file} is empty: deliver at least the header.")
    try:
        (cells,) = csv.reader([line])
    except _UNREADABLE as error:
        raise ValueError(f"{file}: its first line is no header of a CSV file: {error}") from error
    names = [cell or f"_c{index}" for index, cell in enumerate(cells)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{file} has two columns {name!r}.")
    return names


def _check_keys(spark: SparkSession, section: str, files: list[Path], columns: set[str]) -> None:
    """Refuses JSON Lines of which no line has a mapped key: all of it would be null."""
    sample = {key for line in islice(_lines(files[0]), _NUM_SAMPLE_LINES) for key in _keys(line)}
    missing = sorted(columns - sample)
    if not missing:
        return
    lines = spark.read.text([str(file) for file in files])
    keys = [
        row["key"] for row in lines.select(F.explode(F.json_object_keys("value")).alias("key")).distinct().collect()
    ]
    # Without any readable line nothing is known; every line is refused later.
    if keys:
        origin = files[0] if len(files) == 1 else files[0].parent
        check_columns(section, str(origin), columns, sorted(keys))


def _keys(line: str) -> list[str]:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return []
    return list(event) if isinstance(event, dict) else []
