"""One Parquet shard of an export: found, verified against the manifest, read whole.

Shards with pictures are not read whole, see `unpacked.py`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from osmf_models.records import EXPORT_TABLES, ExportFile


def shard_path(folder: Path, file: ExportFile) -> Path:
    """Returns where the shard lies.

    Raises:
        ValueError: when that is outside the export in `folder`, or nothing is there.
    """
    path = folder / file.path
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: the manifest names {file.path!r}, which lies outside the export.")
    if not path.is_file():
        raise ValueError(f"{folder}: {file.path} is listed in the manifest and missing: export again.")
    return path


def open_shard(folder: Path, file: ExportFile) -> pq.ParquetFile:
    """Returns the shard, verified, to read from it bit by bit.

    Raises:
        ValueError: when it is missing or altered, or has other columns or another number of rows than it is to have.
    """
    path = shard_path(folder, file)
    with path.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
            raise ValueError(f"{folder}: {file.path} is not the file that was exported (sha256 differs): export again.")
    shard = pq.ParquetFile(path, buffer_size=2**20)  # else a whole column of a row group lies in memory
    columns, num_rows = shard.schema_arrow.names, shard.metadata.num_rows
    if tuple(columns) != EXPORT_TABLES[file.table]:
        raise ValueError(
            f"{folder}: {file.path} has columns {columns}, {file.table} needs {EXPORT_TABLES[file.table]}."
        )
    if num_rows != file.num_rows:
        raise ValueError(f"{folder}: {file.path} has {num_rows} rows, the manifest says {file.num_rows}.")
    return shard


def read_shard(folder: Path, file: ExportFile) -> pa.Table:
    """Returns the rows of a shard, verified; errors as `open_shard`."""
    with open_shard(folder, file) as shard:
        return shard.read()
