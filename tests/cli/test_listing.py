"""Rows of one table, as `osmf tables TABLE` shows them."""

from __future__ import annotations

from datetime import date
from io import StringIO

import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from osmf_pipelines.cli.listing import first_rows, print_rows
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)


@pytest.fixture
def ledger(spark: SparkSession, settings: Settings) -> Settings:
    """Settings of a home with one table, of two days."""
    lake = LakeResource(settings).lake
    rows = [(MONDAY, "click", "late", 2), (TUESDAY, "click", "late", 3), (TUESDAY, "impression", "bot", 1234567)]
    frame = spark.createDataFrame(rows, TABLES["attribution_ledger"].ddl)
    candidate = lake.stage("attribution_ledger", frame, run_id="run", days=(MONDAY, TUESDAY))
    lake.publish(candidate, run_id="run", input_versions={})
    return settings


def test_rows_are_those_of_the_day_that_meet_the_condition(ledger: Settings) -> None:
    columns, rows = first_rows(ledger, "attribution_ledger", TUESDAY, "num_events > 9", 20)
    assert columns == list(TABLES["attribution_ledger"].column_names)
    assert rows == [["2026-03-03", "impression", "bot", "1234567"]]
    assert len(first_rows(ledger, "attribution_ledger", None, None, 20)[1]) == 3
    assert len(first_rows(ledger, "attribution_ledger", None, None, 2)[1]) == 2


@pytest.mark.parametrize(
    ("name", "condition", "told"),
    [
        ("ledger", None, "no table 'ledger'; there are: bronze_impressions, "),
        ("attribution_ledger", "nope > 2", r"--where 'nope > 2' is no condition on attribution_ledger \(source_date, "),
        ("attribution_ledger", "SELECT FROM", "--where 'SELECT FROM' is no condition"),
        ("global_dpo_model", None, "materialise the asset global_dpo_model first"),
    ],
)
def test_what_cannot_be_shown_is_told(ledger: Settings, name: str, condition: str | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        first_rows(ledger, name, None, condition, 20)


def test_wide_rows_are_printed_a_column_a_line() -> None:
    columns, rows = ["first", "second"], [["[b]1[/b]", "x" * 30]]
    printed = []
    for width in (30, 80):
        text = StringIO()
        print_rows(Console(file=text, width=width), columns, rows)
        printed.append(text.getvalue().splitlines())
    narrow, wide = printed
    assert narrow[1].startswith("first   [b]1[/b]")
    assert ("first" in wide[1], "second" in wide[1]) == (True, True)
