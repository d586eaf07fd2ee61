"""The one place that reads and writes Delta tables: write, audit, publish.

A candidate is staged beside the lake, audited by whoever asked for it, and published in one atomic commit that
replaces just the days whose content changed. Readers see the last published version. What a table holds is in
`tables.py`; whether it may be published is decided in `quality/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from itertools import takewhile
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.spark.content_hash import content_hashes, list_days
from osmf_pipelines.spark.delta_log import Commit, commits
from osmf_pipelines.spark.locks import LakeConflictError, TableLocks
from osmf_pipelines.spark.table_schema import check_schema, day_condition, partition_of, schema, without_values
from osmf_pipelines.tables import TABLES, Table

# What a publication goes through, told as each begins; whatever ends the process between two, readers see the version
# before the commit or the one after it.
PHASES = ("claim", "stage", "audit", "commit", "verify", "discard")
OnPhase = Callable[[str, str], None]


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


@dataclass(frozen=True)
class PinnedTables:
    """Published tables at the versions that they had when pinned: what one asset reads, whoever publishes meanwhile."""

    lake: Lake
    versions: dict[str, int]

    def read(self, name: str, days: Iterable[date] | None = None) -> DataFrame:
        """Returns the pinned rows of `name`, of the given days only if any are named."""
        return self.lake.read(name, days, version=self.versions[name])


class Lake:
    """Delta tables under one root.

    Args:
        spark: session with Delta.
        root: folder or URI of the tables.
        locks: local folder for the locks that keep two writer processes apart.
        on_phase: told (phase, table) as each of `PHASES` begins.
    """

    def __init__(self, spark: SparkSession, root: str, locks: Path, on_phase: OnPhase = lambda phase, table: None):
        self.spark = spark
        self.root = root.rstrip("/")
        self.locks = TableLocks(locks)
        self.on_phase = on_phase

    def path(self, name: str) -> str:
        """Where the table `name` lives."""
        return f"{self.root}/{TABLES[name].name}"

    def exists(self, name: str) -> bool:
        """Whether `name` was ever published."""
        return DeltaTable.isDeltaTable(self.spark, self.path(name))

    def read(self, name: str, days: Iterable[date] | None = None, *, version: int | None = None) -> DataFrame:
        """Returns the published rows of `name`, of the given days only if any are named.

        Raises:
            ValueError: when the table has never been published.
        """
        if not self.exists(name):
            raise ValueError(f"table {name} has not been published in {self.root}: materialise the asset {name} first.")
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        frame = reader.load(self.path(name))
        return frame if days is None else frame.where(F.col(partition_of(TABLES[name])).isin(list(days)))

    def pin(self, names: Sequence[str]) -> PinnedTables:
        """Returns `names` at the versions that readers see now.

        Raises:
            ValueError: when one of them has never been published.
        """
        return PinnedTables(self, {name: self.version(name) for name in names})

    def version(self, name: str) -> int:
        """Returns the Delta version that readers see.

        Raises:
            ValueError: when the table has never been published.
        """
        if not self.exists(name):
            raise ValueError(f"table {name} has not been published in {self.root}: materialise the asset {name} first.")
        return self._last_commit(name).version

    def days_reopened_since(self, name: str, version: int) -> tuple[date, ...]:
        """Returns the days of `name` that commits after `version` rewrote because late events touched them.

        Every day where the log, cleaned up since, no longer tells of all these commits.
        """
        later = list(takewhile(lambda commit: commit.version > version, commits(self.spark, self.path(name))))
        if later and later[-1].version > version + 1:
            table = TABLES[name]
            return tuple(sorted(date.fromisoformat(day) for day in list_days(table, self.read(name))))
        told = {day for commit in later for day in commit.metadata.get("reopened_days", ())}
        return tuple(sorted(date.fromisoformat(day) for day in told))

    def input_version(self, name: str, of: str) -> int | None:
        """Returns the version of the table `of` that the last commit of `name` was made from; None without a table.

        -1, older than any, where the log, cleaned up since, no longer tells.
        """
        if not self.exists(name):
            return None
        for commit in commits(self.spark, self.path(name)):
            versions = commit.metadata.get("input_versions", {})
            if of in versions:
                return int(versions[of])
        return -1

    def claim(self, name: str, days: Iterable[date] | None, *, run_id: str) -> AbstractContextManager[None]:
        """Keeps other processes from materialising these days of `name` while the block runs.

        Raises:
            LakeConflictError: when another process is at one of them.
        """
        self.on_phase("claim", name)
        return self.locks.claim(name, ["all"] if days is None else [day.isoformat() for day in days], owner=run_id)

    def writing(self, name: str) -> AbstractContextManager[None]:
        """Keeps other processes from committing to `name` while the block runs; waits for the one that does.

        Raises:
            LakeConflictError: when that takes too long.
        """
        return self.locks.write(name)

    def stage(self, name: str, frame: DataFrame, *, run_id: str, days: tuple[date, ...] | None = None) -> Candidate:
        """Writes `frame` aside as a candidate for `name`.

        Raises:
            ValueError: when the columns or types are not the table's, or days are missing for a partitioned table.
        """
        self.on_phase("stage", name)
        table = TABLES[name]
        if (table.partition_column is None) != (days is None):
            raise ValueError(f"table {name} is partitioned by {table.partition_column}: days given were {days}.")
        rows = frame.select(*table.column_names)
        check_schema(table, rows)
        path = f"{self.root}/_candidates/{name}/{run_id}"
        rows.write.mode("overwrite").parquet(path)
        staged = self.spark.read.schema(schema(table)).parquet(path)
        return Candidate(table, staged, path, days)

    def discard(self, candidate: Candidate) -> None:
        """Removes a candidate's files."""
        self.on_phase("discard", candidate.table.name)
        jvm: Any = self.spark._jvm
        path = jvm.org.apache.hadoop.fs.Path(candidate.path)
        path.getFileSystem(self.spark._jsc.hadoopConfiguration()).delete(path, True)

    def publish(
        self,
        candidate: Candidate,
        *,
        run_id: str,
        input_versions: dict[str, int],
        reopened_days: Iterable[date] = (),
    ) -> Publication:
        """Commits an audited candidate; unchanged content makes no new version.

        Args:
            candidate: audited rows.
            run_id: of the run, kept in the commit's metadata.
            input_versions: of the tables that it was made from, kept there too.
            reopened_days: days of the candidate that are rewritten only because late events touched them.

        Raises:
            LakeConflictError: when another process holds the table too long, or its commit took the place of this one.
            ValueError: when a row breaks a constraint of the table, or the table has other columns than it should.
        """
        name = candidate.table.name
        with self.writing(name):
            self._check_columns(candidate.table)
            changed = self._changed_days(candidate)
            if changed or not self.exists(name):
                reopened = sorted({day.isoformat() for day in reopened_days} & set(changed))
                metadata: dict[str, object] = {
                    "run_id": run_id,
                    "input_versions": input_versions,
                    "reopened_days": reopened,
                }
                self._commit(candidate, changed, metadata)
            return Publication(self.version(name), candidate.frame.count(), tuple(changed))

    def _check_columns(self, table: Table) -> None:
        if self.exists(table.name):
            found, wanted = self.read(table.name).columns, table.column_names
            if found != wanted:
                raise ValueError(
                    f"table {table.name} in {self.root} was written by another version of OSMF (columns that differ: "
                    f"{', '.join(sorted(set(found) ^ set(wanted)))}): set OSMF_LAKE or OSMF_HOME elsewhere."
                )

    def _changed_days(self, candidate: Candidate) -> list[str]:
        """Days of the candidate whose content differs from what is published."""
        table, rows = candidate.table, candidate.frame
        new_days = list_days(table, rows)
        if not self.exists(table.name):
            return sorted(new_days)
        published = self.spark.read.format("delta").load(self.path(table.name))
        if candidate.days is not None:
            published = published.where(F.col(partition_of(table)).isin(list(candidate.days)))
        old_days = list_days(table, published)
        both = sorted(new_days & old_days)
        if both and table.partition_column is not None:
            condition = day_condition(table.partition_column, both)
            rows, published = rows.where(condition), published.where(condition)
        new, old = (content_hashes(table, frame) if both else {} for frame in (rows, published))
        return sorted((new_days ^ old_days) | {day for day in both if new[day] != old[day]})

    def _commit(self, candidate: Candidate, changed: list[str], metadata: dict[str, object]) -> None:
        table, rows = candidate.table, candidate.frame
        before = self.version(table.name) if self.exists(table.name) else -1
        condition = day_condition(table.partition_column, changed) if table.partition_column and before >= 0 else None
        writer = (rows if condition is None else rows.where(condition)).write.format("delta").mode("overwrite")
        writer = writer.option("userMetadata", json.dumps(metadata))
        if table.partition_column is not None:
            writer = writer.partitionBy(table.partition_column)
        if condition is not None:
            writer = writer.option("replaceWhere", condition)
        if before < 0:
            for constraint, sql in table.constraints:
                writer = writer.option(f"delta.constraints.{constraint}", sql)
        self.on_phase("commit", table.name)
        try:
            writer.save(self.path(table.name))
        except PySparkException as error:
            raise without_values(table, error) from None
        self.on_phase("verify", table.name)
        self._verify_commit(table.name, before, metadata)

    def _verify_commit(self, name: str, before: int, metadata: dict[str, object]) -> None:
        """Delta's local log store excludes writers inside one JVM only: look whether the commit is really there."""
        last = self._last_commit(name)
        if last.version != before + 1 or last.metadata != metadata:
            raise LakeConflictError(
                f"table {name}: version {before + 1} is not this run's commit; another process wrote it at the same "
                "time. Run again."
            )

    def _last_commit(self, name: str) -> Commit:
        return next(commits(self.spark, self.path(name)))
