"""What a Delta table's log says of its commits, newest first: read as files, without a Spark job, no more than asked.

Delta's own `history()` is a Spark job, and reads every commit that the log still holds. Writing belongs in `lake.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

_COMMIT_NAME = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True)
class Commit:
    """One commit.

    Attributes:
        version: that it made.
        metadata: what the writer said of it; empty where it said nothing.
    """

    version: int
    metadata: dict[str, Any]


def commits(spark: SparkSession, table_path: str) -> Iterator[Commit]:
    """Yields the commits of a table, the last one first; each is read when it is asked for.

    Source: Delta's transaction log protocol, "Delta Log Entries" and "Commit Provenance Information".

    Args:
        spark: session.
        table_path: folder or URI of the table.
    """
    jvm: Any = spark._jvm
    log = jvm.org.apache.hadoop.fs.Path(f"{table_path}/_delta_log")
    files = log.getFileSystem(spark._jsc.hadoopConfiguration())
    found = {}
    for status in files.listStatus(log):
        name = _COMMIT_NAME.fullmatch(status.getPath().getName())
        if name:
            found[int(name[1])] = status.getPath()
    for version in sorted(found, reverse=True):
        yield Commit(version, _read_metadata(jvm, files, found[version]))


def _read_metadata(jvm: Any, files: Any, path: Any) -> dict[str, Any]:
    stream = files.open(path)
    try:
        lines = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(stream, "UTF-8"))
        while (line := lines.readLine()) is not None:
            action = json.loads(line)
            if "commitInfo" in action:
                return dict(json.loads(action["commitInfo"].get("userMetadata") or "{}"))
    finally:
        stream.close()
    return {}
