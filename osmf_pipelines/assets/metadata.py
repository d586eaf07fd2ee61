"""What a person sees of data in Dagster: rows as tables, pictures, and where each column comes from.

What is drawn belongs in `plots`, which column comes from which in `osmf_pipelines/column_lineage.py`.
"""

import base64
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import dagster as dg

from osmf_pipelines.column_lineage import column_origins


def as_table(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue[Any]:
    """Returns rows as a table, or the word `none` where there are none.

    Args:
        rows: all with the same columns; texts, finite numbers and truth values stay what they are, the rest becomes
            text.
    """
    if not rows:
        return dg.MetadataValue.text("none")
    records = [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows]
    return dg.MetadataValue.table(records)


def failing_rows_table(rows: Sequence[Mapping[str, str]]) -> dg.TableMetadataValue:
    """Returns the failing rows of a check as a table of texts.

    Args:
        rows: `CheckResult.failing_rows`, at least one.

    Raises:
        ValueError: when there are none: a check without failing rows shows no table.
    """
    if not rows:
        raise ValueError("the check has no failing rows: leave the table out.")
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])


def picture(source: Path | bytes, name: str) -> dg.MarkdownMetadataValue:
    """Returns a PNG as Markdown that carries the picture itself, so that Dagster shows it wherever it runs.

    Args:
        source: the file, or the PNG's bytes; it is stored with the run, so keep it under 100 kB or so.
        name: what a screen reader says of it.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    png = source if isinstance(source, bytes) else source.read_bytes()
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")


def column_lineage(name: str, key_prefix: Sequence[str] = ()) -> dg.TableColumnLineage:
    """Returns which columns of other assets each column of the table `name` comes from.

    Args:
        name: the table.
        key_prefix: of the lake's asset keys.

    Raises:
        ValueError: when there is no such table.
    """
    return dg.TableColumnLineage(
        deps_by_column={
            column: [dg.TableColumnDep(dg.AssetKey([*key_prefix, origin.table]), origin.column) for origin in origins]
            for column, origins in column_origins(name).items()
        }
    )


def _cell(value: Any) -> str | int | float | bool | None:
    is_shown = value is None or isinstance(value, str | int | bool) or (isinstance(value, float) and isfinite(value))
    return value if is_shown else str(value)  # the web page cannot parse a number that is not finite
