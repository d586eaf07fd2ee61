"""The first rows that break an expectation, as a person may see them: without the columns that hold personal data.

Great Expectations, in `gate`, decides and counts; here the same condition is put to Spark once more, for failures only.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.quality.expectations import Expectation
from osmf_pipelines.tables import Table

MAX_FAILING_ROWS = 5
_MAX_VALUE_CHARS = 200


def find_failing_rows(rows: DataFrame, expectation: Expectation, table: Table) -> tuple[dict[str, str], ...]:
    """Returns at most 5 of the rows that break `expectation`, the first in the order of the table's columns.

    Rows that share a key come side by side, in the order of the key. Nulls break `NotBeNull` and no other expectation.
    Every value is text, `null` where there is none, cut at 200 characters.

    Grain: one dict per row of `rows`, without the table's personal columns; none where all columns are personal, or
        where this module does not know the type of expectation.

    Args:
        rows: the candidate; it has the columns that the expectation is about.
        expectation: one on rows.
        table: the table that the rows are of.
    """
    shown = [name for name in table.column_names if name in rows.columns and name not in table.personal_columns]
    failing = _failing_rows(rows, expectation)
    if failing is None or not shown:
        return ()
    kwargs = expectation.kwargs
    keys = kwargs.get("column_list", [kwargs["column"]] if expectation.type == "ExpectColumnValuesToBeUnique" else [])
    is_sortable = {name: "map<" not in type_ for name, type_ in rows.dtypes}
    order = dict.fromkeys([*keys, *(name for name in shown if is_sortable[name])])
    first = failing.orderBy(*order).limit(MAX_FAILING_ROWS)
    texts = first.select(*(F.coalesce(F.col(name).cast("string"), F.lit("null")).alias(name) for name in shown))
    return tuple({name: _cut(text) for name, text in row.asDict().items()} for row in texts.collect())


def _failing_rows(rows: DataFrame, expectation: Expectation) -> DataFrame | None:
    """The rows that Great Expectations counts as unexpected, or None for a type that is not known here."""
    kwargs = expectation.kwargs
    match expectation.type:
        case "ExpectColumnValuesToNotBeNull":
            return rows.where(F.col(kwargs["column"]).isNull())
        case "ExpectColumnValuesToBeInSet":
            return rows.where(~F.col(kwargs["column"]).isin(kwargs["value_set"]))
        case "ExpectColumnValuesToBeBetween":
            return rows.where(~_is_between(**kwargs))
        case "ExpectColumnPairValuesAToBeGreaterThanB":
            larger, smaller = F.col(kwargs["column_A"]), F.col(kwargs["column_B"])
            return rows.where(~(larger >= smaller if kwargs.get("or_equal") else larger > smaller))
        case "ExpectColumnValuesToBeUnique":
            return _repeated(rows.where(F.col(kwargs["column"]).isNotNull()), [kwargs["column"]])
        case "ExpectCompoundColumnsToBeUnique":
            return _repeated(rows, kwargs["column_list"])
        case _:
            return None


def _is_between(
    column: str,
    min_value: float | None = None,
    max_value: float | None = None,
    strict_min: bool = False,
    strict_max: bool = False,
) -> Column:
    value, is_inside = F.col(column), F.lit(True)
    if min_value is not None:
        is_inside &= value > min_value if strict_min else value >= min_value
    if max_value is not None:
        is_inside &= value < max_value if strict_max else value <= max_value
    return is_inside


def _repeated(rows: DataFrame, keys: list[str]) -> DataFrame:
    """Rows of the first keys that occur more than once; null is a key like any other.

    Only keys are shuffled and sorted, however wide the rows are.
    """
    counts = rows.groupBy(*keys).agg(F.count(F.lit(1)).alias("_num_rows")).where("_num_rows > 1")
    first = counts.orderBy(*keys).limit(MAX_FAILING_ROWS).select(*(F.col(key).alias(f"_{key}") for key in keys))
    is_same_key = [F.col(key).eqNullSafe(F.col(f"_{key}")) for key in keys]
    return rows.join(F.broadcast(first), on=is_same_key, how="left_semi")


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[: _MAX_VALUE_CHARS - 1]}…"
