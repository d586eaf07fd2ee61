"""Upkeep of the lake's files: small ones compacted, those that no readable version needs removed; content stays.

When it is done belongs in `osmf_pipelines/maintenance.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from osmf_pipelines.spark.lake import Lake


@dataclass(frozen=True)
class Upkeep:
    """What upkeep did to one table.

    Attributes:
        table: its name.
        version: Delta version that readers now see.
        num_files_compacted: small files that were rewritten into larger ones.
        num_files_removed: files that no version within the retention needs.
        num_bytes_removed: their size.
    """

    table: str
    version: int
    num_files_compacted: int
    num_files_removed: int
    num_bytes_removed: int


def maintain_table(lake: Lake, name: str, *, vacuum_hours: int) -> Upkeep:
    """Compacts the small files of the table `name`, then removes what no version of the last hours needs.

    Args:
        lake: that holds the table.
        name: of a published table.
        vacuum_hours: every version that readers saw in this time stays readable; Delta refuses less than 168.

    Raises:
        LakeConflictError: when another process writes the table for too long.
    """
    with lake.writing(name):
        table = DeltaTable.forPath(lake.spark, lake.path(name))
        compacted = table.optimize().executeCompaction().select("metrics.numFilesRemoved").collect()[0][0]
        num_files, num_bytes = _data_files(lake, name)
        with _vacuum_conf(lake.spark):
            table.vacuum(vacuum_hours)
        num_files_left, num_bytes_left = _data_files(lake, name)
        return Upkeep(
            table=name,
            version=lake.version(name),
            num_files_compacted=int(compacted),
            num_files_removed=num_files - num_files_left,
            num_bytes_removed=num_bytes - num_bytes_left,
        )


@contextmanager
def _vacuum_conf(spark: SparkSession) -> Iterator[None]:
    """What VACUUM reads from the session alone, for as long as the block runs."""
    settings = {
        # Its two commits would be versions without a change.
        "spark.databricks.delta.vacuum.logging.enabled": "false",
        # By default it lists a folder with 10,000 tasks, which take a laptop the better part of a minute.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(spark.sparkContext.defaultParallelism),
    }
    before = {name: spark.conf.get(name, None) for name in settings}
    try:
        for name, value in settings.items():
            spark.conf.set(name, value)
        yield
    finally:
        for name, old in before.items():
            if old is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, old)


def drop_candidates(lake: Lake, *, before: datetime) -> list[str]:
    """Removes candidates that a process which died has left behind.

    Args:
        lake: beside whose tables they are staged.
        before: those whose last file was written before then (UTC); no run that is under way may be older.

    Returns:
        "<table>/<run id>" of each that was removed.
    """
    root = _hadoop_path(lake, f"{lake.root}/_candidates")
    files = root.getFileSystem(lake.spark._jsc.hadoopConfiguration())
    if not files.exists(root):
        return []
    candidates = [folder.getPath() for table in files.listStatus(root) for folder in files.listStatus(table.getPath())]
    # A folder's own time means nothing on an object store: one without files yet is left alone.
    stale = [path for path in candidates if 0 < _last_written_ms(files, path) < before.timestamp() * 1000]
    for path in stale:
        files.delete(path, True)
    return sorted(f"{path.getParent().getName()}/{path.getName()}" for path in stale)


def _last_written_ms(files: Any, folder: Any) -> int:
    """When the newest file below `folder` was written, in ms since 1970; 0 without files."""
    found, newest = files.listFiles(folder, True), 0
    while found.hasNext():
        newest = max(newest, int(found.next().getModificationTime()))
    return newest


def _data_files(lake: Lake, name: str) -> tuple[int, int]:
    """Number of files of a table, its log left out, and their bytes."""
    everything, log = (_hadoop_path(lake, folder) for folder in (lake.path(name), f"{lake.path(name)}/_delta_log"))
    files = everything.getFileSystem(lake.spark._jsc.hadoopConfiguration())
    total, of_log = files.getContentSummary(everything), files.getContentSummary(log)
    return int(total.getFileCount() - of_log.getFileCount()), int(total.getLength() - of_log.getLength())


def _hadoop_path(lake: Lake, path: str) -> Any:
    jvm: Any = lake.spark._jvm
    return jvm.org.apache.hadoop.fs.Path(path)
