"""The pictures of an export, unpacked from its Parquet shards so that each can be read by itself.

A shard is compressed by pages, in row groups of 128 MB: one picture would cost a row group. So whichever process comes
first unpacks a shard, once, into EXPORT/.unpacked/SHA256: `rows.parquet`, its rows with length and CRC-32 of each
picture in the picture's place, and COLUMN.pngs for each column of pictures, the pictures end to end. The shard is
verified then, a picture each time that it is read. Decoding belongs in `png.py`, what is kept decoded in `dataset.py`.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from osmf_models.data.png import PngFormat
from osmf_models.data.shards import open_shard, shard_path
from osmf_models.records import ExportFile

logger = logging.getLogger(__name__)

UNPACKED_NAME = ".unpacked"
_ROWS_NAME = "rows.parquet"
_ROWS_AT_ONCE = 16  # in memory while a shard is unpacked


@dataclass(frozen=True)
class PngColumn:
    """A column of pictures on disk; 20 bytes of each are in memory.

    Attributes:
        files: one for each shard.
        file_index, start, num_bytes, crc32: of each picture: its file, place and length there, and checksum, (N,).
    """

    files: Sequence[Path]
    file_index: NDArray[np.int32]
    start: NDArray[np.int64]
    num_bytes: NDArray[np.int32]
    crc32: NDArray[np.uint32]

    def __getitem__(self, index: int) -> bytes:
        """Returns the PNG of row `index`; nothing else is read of its file.

        Raises:
            ValueError: when it is not what was unpacked.
        """
        path = self.files[self.file_index[index]]
        with path.open("rb", buffering=0) as file:
            file.seek(int(self.start[index]))
            png = file.read(int(self.num_bytes[index]))
        if zlib.crc32(png) != self.crc32[index]:
            raise ValueError(f"{path} is not what was unpacked (CRC-32 differs): delete the folder {path.parent}.")
        return png


def unpacked_rows(
    folder: Path, files: Sequence[ExportFile], formats: Mapping[str, PngFormat]
) -> tuple[pd.DataFrame, dict[str, PngColumn]]:
    """Returns the rows of one table without its pictures, in the order of `files`, and its pictures by column.

    Args:
        folder: of the export.
        files: the table's shards; what is not unpacked yet is, shared among the processes that ask at the same time.
        formats: by column of pictures, what they must be like.

    Raises:
        ValueError: when a shard is missing, altered or has other columns, a picture is missing or says that it is
            another kind of picture, or the export's folder cannot be written and not all is unpacked.
    """
    try:
        (folder / UNPACKED_NAME).mkdir(exist_ok=True)
    except OSError as error:
        told = f"{folder}: pictures are unpacked there before their first use, and it cannot be written"
        raise ValueError(f"{told} ({error}).") from error
    # What another process is unpacking is left to it at first, and waited for in the end.
    for is_waiting in (False, True):
        for file in files:
            shard_path(folder, file)
            if not _unpacked(folder, file).is_dir():
                _unpack_alone(folder, file, formats, is_waiting)
    shards = [pq.read_table(_unpacked(folder, file) / _ROWS_NAME).to_pandas() for file in files]
    pictures = {name: _column([_unpacked(folder, file) for file in files], shards, name) for name in formats}
    return pd.concat(shards, ignore_index=True).drop(
        columns=[*map(_length, formats), *map(_checksum, formats)]
    ), pictures


def _unpack_alone(folder: Path, file: ExportFile, formats: Mapping[str, PngFormat], is_waiting: bool) -> None:
    """Unpacks a shard, unless another process has done so; where one is about it, waits or leaves it."""
    target = _unpacked(folder, file)
    with target.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB))
        except BlockingIOError:
            return
        if not target.is_dir():
            part = target.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            part.mkdir()
            _unpack(folder, file, formats, part)
            part.rename(target)
            logger.info("unpacked %s: pictures of %d rows", file.path, file.num_rows)


def _unpack(folder: Path, file: ExportFile, formats: Mapping[str, PngFormat], target: Path) -> None:
    """Writes the rows and the pictures of a shard into `target`; pictures are named by the table's first column."""
    batches = []
    with open_shard(folder, file) as shard, ExitStack() as stack:
        outputs = {name: stack.enter_context((target / f"{name}.pngs").open("wb")) for name in formats}
        # Spark writes shards without rows too.
        tables = chain([shard.schema_arrow.empty_table()], shard.iter_batches(batch_size=_ROWS_AT_ONCE))
        for rows in (table.to_pandas() for table in tables):
            for name, format_ in formats.items():
                for of, png in zip(rows.iloc[:, 0], rows[name], strict=True):
                    format_.check(of, png)
                    outputs[name].write(png)
                rows[_length(name)] = rows[name].map(len).astype(np.int32)
                rows[_checksum(name)] = rows[name].map(zlib.crc32).astype(np.uint32)
            batches.append(rows.drop(columns=list(formats)))
    pd.concat(batches, ignore_index=True).to_parquet(target / _ROWS_NAME, index=False)


def _column(folders: Sequence[Path], shards: Sequence[pd.DataFrame], name: str) -> PngColumn:
    """Returns where the pictures of the shards lie."""
    lengths = [rows[_length(name)].to_numpy(np.int32) for rows in shards]
    return PngColumn(
        files=[folder / f"{name}.pngs" for folder in folders],
        file_index=np.repeat(np.arange(len(shards), dtype=np.int32), [len(rows) for rows in shards]),
        start=np.concatenate([np.cumsum(one, dtype=np.int64) - one for one in lengths]),
        num_bytes=np.concatenate(lengths),
        crc32=np.concatenate([rows[_checksum(name)].to_numpy(np.uint32) for rows in shards]),
    )


def _unpacked(folder: Path, file: ExportFile) -> Path:
    return folder / UNPACKED_NAME / file.sha256


def _length(column: str) -> str:
    return f"{column}_num_bytes"


def _checksum(column: str) -> str:
    return f"{column}_crc32"
