"""The one place that reads and writes Delta tables: write, audit, publish.

A candidate is staged beside the lake, audited by whoever asked for it, and published in one atomic commit that
replaces just the days whose content changed. Readers see the last published version. What a table holds is in
`tables.py`; whether it may be published is decided in `quality/`.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, cast

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from osmf_pipelines.spark.content_hash import content_hashes
from osmf_pipelines.tables import TABLES, Table

_LOCK_TIMEOUT_SECONDS = 120.0


class LakeConflictError(RuntimeError):
    """Another process holds the table, or has overtaken this one's commit."""


@dataclass(frozen=True)
class Candidate:
    """Rows that are staged, not published.

    Attributes:
        table: the table that they are for.
        frame: the staged rows, in the table's schema.
        path: where they are staged.
        days: partition values that they replace; None for a snapshot, which is replaced as a whole.
    """

    table: Table
    frame: DataFrame
    path: str
    days: tuple[date, ...] | None


@dataclass(frozen=True)
class Publication:
    """The outcome of publishing a candidate.

    Attributes:
        version: Delta version that readers now see.
        num_rows: rows of the candidate.
        changed_days: days whose content changed, ISO; "all" stands for a snapshot; empty when nothing changed.
    """

    version: int
    num_rows: int
    changed_days: tuple[str, ...]


class Lake:
    """Delta tables under one root.

    Args:
        spark: session with Delta.
        root: folder or URI of the tables.
        locks: local folder for the locks that keep two writer processes apart.
    """

    def __init__(self, spark: SparkSession, root: str, locks: Path):
        self.spark = spark
        self.root = root.rstrip("/")
        self.locks = locks

    def path(self, name: str) -> str:
        """Where the table `name` lives."""
        return f"{self.root}/{TABLES[name].name}"

    def exists(self, name: str) -> bool:
        """Whether `name` was ever published."""
        return DeltaTable.isDeltaTable(self.spark, self.path(name))

    def read(self, name: str, days: tuple[date, ...] | None = None) -> DataFrame:
        """Returns the published rows of `name`, of the given days only if any are named.

        Raises:
            ValueError: when the table has never been published.
        """
        if not self.exists(name):
            raise ValueError(f"table {name} has not been published in {self.root}: materialise the asset {name} first.")
        frame = self.spark.read.format("delta").load(self.path(name))
        return frame if days is None else frame.where(F.col(_partition_of(TABLES[name])).isin(list(days)))

    def version(self, name: str) -> int:
        """Returns the Delta version that readers see."""
        return int(self._last_commit(name)["version"])

    def stage(self, name: str, frame: DataFrame, *, run_id: str, days: tuple[date, ...] | None = None) -> Candidate:
        """Writes `frame` aside as a candidate for `name`.

        Raises:
            ValueError: when the columns or types are not the table's, or days are missing for a partitioned table.
        """
        table = TABLES[name]
        if (table.partition_column is None) != (days is None):
            raise ValueError(f"table {name} is partitioned by {table.partition_column}: days given were {days}.")
        rows = frame.select(*table.column_names)
        _check_schema(table, rows)
        path = f"{self.root}/_candidates/{name}/{run_id}"
        rows.write.mode("overwrite").parquet(path)
        staged = self.spark.read.schema(_schema(table)).parquet(path)
        return Candidate(table, staged, path, days)

    def discard(self, candidate: Candidate) -> None:
        """Removes a candidate's files."""
        jvm: Any = self.spark._jvm
        path = jvm.org.apache.hadoop.fs.Path(candidate.path)
        path.getFileSystem(self.spark._jsc.hadoopConfiguration()).delete(path, True)

    def publish(self, candidate: Candidate, *, run_id: str, input_versions: dict[str, int]) -> Publication:
        """Commits an audited candidate; unchanged content makes no new version.

        Raises:
            LakeConflictError: when another process holds the table too long, or its commit took the place of this one.
        """
        name = candidate.table.name
        with self._lock(name):
            changed = self._changed_days(candidate)
            if changed or not self.exists(name):
                self._commit(candidate, changed, {"run_id": run_id, "input_versions": input_versions})
            return Publication(self.version(name), candidate.frame.count(), tuple(changed))

    def _changed_days(self, candidate: Candidate) -> list[str]:
        """Days of the candidate whose content differs from what is published."""
        table = candidate.table
        new = content_hashes(table, candidate.frame)
        if not self.exists(table.name):
            return sorted(new)
        published = self.spark.read.format("delta").load(self.path(table.name))
        if candidate.days is not None:
            published = published.where(F.col(_partition_of(table)).isin(list(candidate.days)))
        old = content_hashes(table, published)
        return sorted(day for day in new.keys() | old.keys() if new.get(day) != old.get(day))

    def _commit(self, candidate: Candidate, changed: list[str], metadata: dict[str, object]) -> None:
        table, rows = candidate.table, candidate.frame
        before = self.version(table.name) if self.exists(table.name) else -1
        condition = _day_condition(table.partition_column, changed) if table.partition_column and before >= 0 else None
        writer = (rows if condition is None else rows.where(condition)).write.format("delta").mode("overwrite")
        writer = writer.option("userMetadata", json.dumps(metadata))
        if table.partition_column is not None:
            writer = writer.partitionBy(table.partition_column)
        if condition is not None:
            writer = writer.option("replaceWhere", condition)
        writer.save(self.path(table.name))
        self._verify_commit(table.name, before, metadata)

    def _verify_commit(self, name: str, before: int, metadata: dict[str, object]) -> None:
        """Delta's local log store excludes writers inside one JVM only: look whether the commit is really there."""
        last = self._last_commit(name)
        if last["version"] != before + 1 or json.loads(last["userMetadata"] or "{}") != metadata:
            raise LakeConflictError(
                f"table {name}: version {before + 1} is not this run's commit; another process wrote it at the same "
                "time. Run again."
            )

    def _last_commit(self, name: str) -> Row:
        return DeltaTable.forPath(self.spark, self.path(name)).history(1).collect()[0]

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        self.locks.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
        with (self.locks / f"{name}.lock").open("w") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise LakeConflictError(
                            f"table {name} is being written by another process: wait for it, then run again."
                        ) from None
                    time.sleep(0.1)
            yield


def _schema(table: Table) -> StructType:
    return cast(StructType, StructType.fromDDL(table.ddl))


def _partition_of(table: Table) -> str:
    if table.partition_column is None:
        raise ValueError(f"table {table.name} is a snapshot: it has no days.")
    return table.partition_column


def _day_condition(column: str, days: list[str]) -> str:
    return f"{column} IN ({', '.join(f'DATE{day!r}' for day in days)})"


def _check_schema(table: Table, frame: DataFrame) -> None:
    wrong = [
        f"{want.name}: {got.dataType.simpleString()} instead of {want.dataType.simpleString()}"
        for want, got in zip(_schema(table), frame.schema, strict=True)
        if want.dataType.simpleString() != got.dataType.simpleString()
    ]
    if wrong:
        raise ValueError(f"table {table.name} does not take these columns: {'; '.join(wrong)}.")
