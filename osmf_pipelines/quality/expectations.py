"""One expectation, and short ways to write the usual ones. What is expected of which table is in `suites.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Expectation:
    """One expectation.

    Attributes:
        name: name of the check, unique within the table.
        type: class in `great_expectations.expectations`.
        kwargs: its arguments.
        reason: why it must hold, shown to whoever has to mend the data.
        severity: "critical" stops the publication and everything downstream; "warning" is shown.
        subject: "rows" of the candidate, or the "facts" counted beside it.
    """

    name: str
    type: str
    kwargs: dict[str, Any]
    reason: str
    severity: Literal["critical", "warning"] = "critical"
    subject: Literal["rows", "facts"] = field(default="rows")


def is_set(column: str, reason: str) -> Expectation:
    """Expects that a column has a value in every row."""
    return Expectation(f"{column}_is_set", "ExpectColumnValuesToNotBeNull", {"column": column}, reason)


def unique(columns: list[str], reason: str) -> Expectation:
    """Expects that no two rows agree in these columns."""
    if len(columns) == 1:
        return Expectation(f"{columns[0]}_is_unique", "ExpectColumnValuesToBeUnique", {"column": columns[0]}, reason)
    return Expectation("one_row_per_grain", "ExpectCompoundColumnsToBeUnique", {"column_list": columns}, reason)


def between(column: str, low: float | None, high: float | None, reason: str, **more: Any) -> Expectation:
    """Expects that a column's values lie between two ends; None is open."""
    limits = {"column": column, "min_value": low, "max_value": high, **more}
    return Expectation(f"{column}_in_range", "ExpectColumnValuesToBeBetween", limits, reason)


def one_of(column: str, values: tuple[str, ...], reason: str) -> Expectation:
    """Expects that a column holds nothing but these values."""
    return Expectation(
        f"{column}_is_known", "ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)}, reason
    )


def at_least(larger: str, smaller: str, reason: str) -> Expectation:
    """Expects that in each row one column is at least as large as another."""
    pair = {"column_A": larger, "column_B": smaller, "or_equal": True}
    return Expectation(f"{smaller}_at_most_{larger}", "ExpectColumnPairValuesAToBeGreaterThanB", pair, reason)


def balanced(name: str, total: str, parts: str, reason: str) -> Expectation:
    """Expects that two counted numbers are equal."""
    pair = {"column_A": total, "column_B": parts}
    return Expectation(name, "ExpectColumnPairValuesToBeEqual", pair, reason, subject="facts")


def fact(name: str, column: str, low: float | None, high: float | None, reason: str, **more: Any) -> Expectation:
    """Expects that a counted number lies between two ends; None is open."""
    limits = {"column": column, "min_value": low, "max_value": high}
    return Expectation(name, "ExpectColumnValuesToBeBetween", limits, reason, subject="facts", **more)


NOT_EMPTY = Expectation("has_rows", "ExpectTableRowCountToBeBetween", {"min_value": 1}, "an empty table serves nobody")
