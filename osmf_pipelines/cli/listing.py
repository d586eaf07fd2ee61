"""What is published in a lake, and what the gate said last; or the first rows of one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES
from osmf_pipelines.verdicts import Verdict

COLUMNS = ("table", "rows", "days", "version", "published (UTC)", "last verdict")
_LONGEST_CELL = 120
_ANY_WIDTH = 100_000


def list_tables(settings: Settings) -> Iterator[tuple[str, ...]]:
    """Yields the values of `COLUMNS` for each table that was ever published or judged."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from osmf_pipelines.resources.lake import LakeResource

    resource = LakeResource(settings)
    lake = resource.lake
    for name, table in TABLES.items():
        verdict = resource.verdicts.read(name)
        if not lake.exists(name):
            if verdict is not None:
                yield name, "", "", "", "never", _tell(verdict)
            continue
        frame = lake.read(name)
        day = F.lit(None) if table.partition_column is None else F.col(table.partition_column)
        row = frame.agg(F.count(F.lit(1)), F.countDistinct(day), F.min(day), F.max(day)).collect()[0]
        days = f"{row[1]} ({row[2]} to {row[3]})" if row[1] else ""
        commit = DeltaTable.forPath(lake.spark, lake.path(name)).history(1).collect()[0]
        published = f"{commit['timestamp']:%Y-%m-%d %H:%M}"
        yield name, f"{row[0]:,}", days, str(commit["version"]), published, "" if verdict is None else _tell(verdict)


def first_rows(
    settings: Settings, name: str, day: date | None, condition: str | None, num_rows: int
) -> tuple[list[str], list[list[str]]]:
    """Returns the columns of a published table and rows of it as texts, in no particular order.

    Args:
        settings: whose lake.
        name: of the table.
        day: of the rows; None for all.
        condition: in Spark's SQL, that rows must meet.
        num_rows: at most.

    Raises:
        ValueError: when there is no such table, it was never published or has no days, or the condition is wrong.
    """
    from pyspark.errors import AnalysisException, ParseException

    from osmf_pipelines.resources.lake import LakeResource

    if name not in TABLES:
        raise ValueError(f"no table {name!r}; there are: {', '.join(TABLES)}.")
    rows = LakeResource(settings).lake.read(name, None if day is None else (day,))
    if condition is not None:
        try:
            rows = rows.where(condition)
        except (AnalysisException, ParseException) as error:
            told = f"--where {condition!r} is no condition on {name} ({', '.join(rows.columns)})"
            raise ValueError(f"{told}: {str(error).splitlines()[0]}") from None
    return rows.columns, [[_cell(value) for value in row] for row in rows.take(num_rows)]


def print_rows(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; row after row, a column a line, where it is wider than the console."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(escape, row))
    if console.measure(table, options=console.options.update(max_width=_ANY_WIDTH)).maximum <= console.width:
        console.print(table)
        return
    for number, row in enumerate(rows, start=1):
        console.rule(f"row {number}", align="left")
        record = Table.grid(padding=(0, 2))
        for name, value in zip(columns, row, strict=True):
            record.add_row(f"[dim]{name}[/]", escape(value))
        console.print(record)


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes | bytearray):
        return f"{len(value):,} bytes"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def _tell(verdict: Verdict) -> str:
    days = (
        ""
        if not verdict.days
        else f" {verdict.days[0]}"
        if len(set(verdict.days)) == 1
        else " " + " to ".join(verdict.days)
    )
    failed = ", ".join(verdict.failed_checks)
    if not verdict.is_published:
        return f"refused{days}: {failed}"
    return f"passed{days}" + (f", warned: {failed}" if failed else "")
