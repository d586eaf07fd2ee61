"""Rows of one table, as `osmf tables TABLE` shows them."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from rich.console import Console

from osmf_pipelines.cli.listing import first_rows, print_rows
from osmf_pipelines.settings import Settings
from tests.assets.conftest import LAST_DAY


@pytest.mark.slow
def test_rows_are_those_of_the_day_that_meet_the_condition(formed_settings: Settings) -> None:
    columns, rows = first_rows(formed_settings, "group_ctr", LAST_DAY, "NOT is_scope_root", 3)
    assert len(rows) == 3
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    assert all(record["as_of_date"] == str(LAST_DAY) and record["is_scope_root"] == "False" for record in records)
    assert first_rows(formed_settings, "group_ctr", LAST_DAY - timedelta(days=30), None, 3)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "condition", "told"),
    [
        ("group_ctr", "nope > 2", r"--where 'nope > 2' is no condition on group_ctr \(as_of_date, group_id"),
        ("group_ctr", "SELECT FROM", "--where 'SELECT FROM' is no condition"),
        ("global_dpo_model", None, "materialise the asset global_dpo_model first"),
    ],
)
def test_what_cannot_be_shown_is_told(formed_settings: Settings, name: str, condition: str | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        first_rows(formed_settings, name, None, condition, 3)


def test_wide_rows_are_printed_a_column_a_line() -> None:
    columns, rows = ["first", "second"], [["[b]1[/b]", "x" * 30]]
    narrow, wide = (Console(file=StringIO(), width=width) for width in (30, 80))
    print_rows(narrow, columns, rows)
    print_rows(wide, columns, rows)
    assert narrow.file.getvalue().splitlines()[1].startswith("first   [b]1[/b]")  # type: ignore[attr-defined]
    assert "second" in wide.file.getvalue().splitlines()[1]  # type: ignore[attr-defined]
    assert "first" in wide.file.getvalue().splitlines()[1]  # type: ignore[attr-defined]
