"""The peer: `duckdb_peer.sql` run on the same files, timed part by part, and its tables held against the lake's.

python -m osmf_pipelines.bench.duckdb_peer REQUEST.json RESULT.json; the keys are the fields of `PeerRequest`.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    import duckdb

_SPARK_SEED = 42  # of its xxhash64

# Tables whose rows must be the lake's, and their columns; where a row came from may differ, and how JSON is written.
_EVENT = "position, slot_type, propensity, experiment_id, arm, model_version"
COMPARED = {
    "bronze_impressions": f"source_date, impression_id, user_id, product_id, creative_id, impressed_at, {_EVENT}, "
    "num_user_impressions",
    "bronze_clicks": "source_date, click_id, impression_id, clicked_at",
    "quarantined_events": "source_date, event_type, reasons",
    "silver_exposures": "event_date, impression_id, user_id, scope, cell, user_fold, product_id, creative_id, "
    f"impressed_at, {_EVENT}, is_clicked, clicked_at",
    "creative_stats": "event_date, scope, cell, user_fold, product_id, creative_id, slot_type, position, "
    "num_impressions, num_clicks, inverse_propensity_millis",
    "cell_users": "event_date, scope, cell, user_id",
}
_SCRIPT = Path(__file__).with_name("duckdb_peer.sql")
_CLEAN = "regexp_replace(trim({}), '[|=]', '_', 'g')"


@dataclass(frozen=True)
class PeerRequest:
    """What the peer is asked for.

    Attributes:
        drop: folder that `osmf simulate` wrote.
        days: to take, ISO.
        output: folder to write its tables into, replaced.
        num_threads: as many as Spark has.
        user_key: of the hash that replaces user ids.
        attribution_window_hours, click_lookback_days, max_impressions_per_user_day: as the lake's settings.
    """

    drop: str
    days: list[str]
    output: str
    num_threads: int
    user_key: str
    attribution_window_hours: int
    click_lookback_days: int
    max_impressions_per_user_day: int


@dataclass(frozen=True)
class Part:
    """A part of the script.

    Attributes:
        name: of the stage.
        sql: statements.
        writes: table to partition column, in the order of writing.
    """

    name: str
    sql: str
    writes: dict[str, str]


def connect(num_threads: int) -> duckdb.DuckDBPyConnection:
    """Returns a connection in UTC.

    Raises:
        ValueError: when DuckDB, or the library that hashes users for it, is not installed.
    """
    try:
        import duckdb
        import xxhash  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name}, which the peer needs, is not installed: pip install 'osmf[bench]'.") from None
    connection = duckdb.connect()
    connection.execute(f"SET threads = {int(num_threads)}; SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    return connection


def read_script() -> list[Part]:
    """Returns the parts of the script, in order."""
    parts = []
    for text in _SCRIPT.read_text().split("-- part: ")[1:]:
        name, _, sql = text.partition("\n")
        told = re.search(r"^-- writes: (.+)$", sql, flags=re.MULTILINE)
        pairs = [one.split(" by ") for one in told[1].split(", ")] if told else []
        parts.append(Part(name.strip(), sql, dict(pairs)))
    return parts


def run_peer(request: PeerRequest) -> dict[str, float]:
    """Writes the peer's tables as Parquet; returns the seconds of each part, `start` first, `users` (folds) apart.

    Raises:
        ValueError: when DuckDB is not installed.
    """
    began = time.perf_counter()
    output = Path(request.output)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    connection = connect(request.num_threads)
    connection.execute(f"SET temp_directory = '{output / '.spilled'}'")
    _set_variables(connection, request)
    seconds = {"start": time.perf_counter() - began}
    for part in read_script():
        if part.name == "silver_exposures":
            began = time.perf_counter()
            _place_people(connection, request)
            seconds["users"] = time.perf_counter() - began
        began = time.perf_counter()
        connection.execute(part.sql)
        for table, column in part.writes.items():
            folder = output / table
            connection.execute(f"COPY (FROM {table}) TO '{folder}' (FORMAT parquet, PARTITION_BY ({column}))")
        for table, column in part.writes.items():
            # What comes after reads what was written, and no temporary table is kept for its sake.
            connection.execute(f"CREATE OR REPLACE VIEW {table} AS FROM {_written(output / table, column)}")
        seconds[part.name] = time.perf_counter() - began
    return seconds


def _set_variables(connection: duckdb.DuckDBPyConnection, request: PeerRequest) -> None:
    drop = Path(request.drop)
    files = {
        "impression_files": [f"{drop}/days/{day}/impressions.parquet/*.parquet" for day in request.days],
        "click_files": [f"{drop}/days/{day}/clicks.parquet/*.parquet" for day in request.days],
        "user_files": [f"{drop}/dimensions/users.parquet/*.parquet"],
        "product_files": [f"{drop}/dimensions/products.parquet"],
        "creative_files": [f"{drop}/dimensions/creatives.parquet"],
    }
    values: Mapping[str, object] = {
        **files,
        "user_key": request.user_key,
        "window_hours": request.attribution_window_hours,
        "window_days": -(-request.attribution_window_hours // 24),
        "lookback_days": request.click_lookback_days,
        "max_impressions_per_user_day": request.max_impressions_per_user_day,
        "unknown_cell": "|".join(f"{name}=unknown" for name in _attributes(drop)) or "unknown",
    }
    for name, value in values.items():
        connection.execute(f"SET VARIABLE {name} = ?", [value])


def _attributes(drop: Path) -> list[str]:
    """Names of the users' attributes, sorted."""
    mapping = tomllib.loads((drop / "mapping.toml").read_text())
    return sorted(mapping["users"]["attributes"])


def _place_people(connection: duckdb.DuckDBPyConnection, request: PeerRequest) -> None:
    """Makes `people`: user_id, cell (null for who is not among the users) and user_fold, one row per user seen."""
    seen = connection.execute("SELECT user_id FROM user_ids").fetchdf()
    folds = pd.DataFrame({"user_id": seen["user_id"], "user_fold": user_folds(seen["user_id"], request.user_key, 5)})
    connection.register("folds", folds)
    conditions = [
        f"'{name}=' || coalesce(nullif({_CLEAN.format(f'{name}::VARCHAR')}, ''), 'unknown')"
        for name in _attributes(Path(request.drop))
    ]
    cell = f"concat_ws('|', {', '.join(conditions)})" if conditions else "'unknown'"
    connection.execute(
        f"CREATE TEMP TABLE people AS SELECT user_id, cell, user_fold FROM user_ids JOIN folds USING (user_id) "
        f"LEFT JOIN (SELECT uid, {cell} AS cell FROM read_parquet(getvariable('user_files'))) USING (uid)"
    )
    connection.unregister("folds")


def user_folds(user_ids: Iterable[str], fold_key: str, num_folds: int) -> NDArray[np.int32]:
    """Returns pmod(xxhash64(fold_key, user_id), num_folds) as Spark computes it, which DuckDB has no function for."""
    from xxhash import xxh64_intdigest

    seed = xxh64_intdigest(fold_key.encode(), _SPARK_SEED)
    hashes = np.fromiter((xxh64_intdigest(user_id.encode(), seed) for user_id in user_ids), dtype=np.uint64)
    return (hashes.view(np.int64) % num_folds).astype(np.int32)


def _written(folder: Path, column: str) -> str:
    return f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true, hive_types = {{'{column}': DATE}})"


def count_differences(request: PeerRequest, lake_files: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Returns per compared table how many rows it has and how many differ, as multisets, exactly.

    Args:
        request: that the peer was run with.
        lake_files: Parquet files of the published tables, partition values in their paths.
    """
    connection = connect(request.num_threads)
    partition_columns = {table: column for part in read_script() for table, column in part.writes.items()}
    counts = {}
    for table, columns in COMPARED.items():
        partition = partition_columns[table]
        files = ", ".join(f"'{path}'" for path in lake_files[table])
        peers = _written(Path(request.output) / table, partition)
        lake = f"read_parquet([{files}], hive_partitioning = true, hive_types = {{'{partition}': DATE}})"
        sides = [
            f"SELECT {', '.join(_comparable(columns))}, {sign} AS side FROM {rows}"
            for sign, rows in ((1, lake if files else f"(FROM {peers} LIMIT 0)"), (-1, peers))
        ]
        ((num_rows, num_different),) = connection.execute(
            f"WITH sides AS ({' UNION ALL '.join(sides)}), rows_of AS (SELECT {columns}, count(*) FILTER (side = 1) "
            f"AS num_rows, sum(side) AS surplus FROM sides GROUP BY {columns}) "
            "SELECT coalesce(sum(num_rows), 0), coalesce(sum(abs(surplus)), 0) FROM rows_of"
        ).fetchall()
        counts[table] = {"num_rows": int(num_rows), "num_different": int(num_different)}
    return counts


def _comparable(columns: str) -> Iterator[str]:
    """The columns of both sides in one type each: Spark and DuckDB write points of time differently."""
    for name in columns.split(", "):
        yield f"epoch_us({name}) AS {name}" if name.endswith("_at") else name


def _main(request_path: str, result_path: str) -> None:
    request: dict[str, Any] = json.loads(Path(request_path).read_text())
    lake_files = request.pop("lake_files", None)
    asked = PeerRequest(**request)
    result = run_peer(asked) if lake_files is None else count_differences(asked, lake_files)
    Path(result_path).write_text(json.dumps(result))


if __name__ == "__main__":
    _main(*sys.argv[1:])
