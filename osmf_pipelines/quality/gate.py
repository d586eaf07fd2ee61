"""The gate: the only place that imports Great Expectations.

Great Expectations evaluates, Dagster decides. Fail closed: an expectation that gave no result, or one that could
not be evaluated, is a failure. Uniqueness alone is looked at before: Great Expectations sorts all rows for it, and
where no two hashes of rows agree, no two rows do.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx
import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.datasource.fluent.interfaces import Batch
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.quality.expectations import Expectation
from osmf_pipelines.quality.failing_rows import MAX_FAILING_ROWS, find_failing_rows
from osmf_pipelines.quality.suites import SUITES
from osmf_pipelines.tables import TABLES, Table

_BOOLEAN_ONLY = {"result_format": "BOOLEAN_ONLY"}
# Counts without examples, which would be half of the Spark jobs and may be personal data.
_COUNTS = {"result_format": "BASIC", "partial_unexpected_count": 0}
_NUMBERS = ("observed_value", "element_count", "unexpected_count", "unexpected_percent")
_COLUMN_KEYS = ("column", "column_A", "column_B")
_DAY_FACTS = ("source_date", "event_date")
_UNIQUE = ("ExpectColumnValuesToBeUnique", "ExpectCompoundColumnsToBeUnique")
_MAX_ERROR_CHARS = 500


@dataclass(frozen=True)
class CheckResult:
    """How one expectation came out.

    Attributes:
        expectation: what was expected.
        passed: whether it held.
        detail: why not: counts of rows; of facts the days and numbers that break it; or as `error` what kept it from
            being evaluated; never a value of a restricted table.
        failing_rows: where an expectation on rows did not hold, the first rows that break it, without personal columns.
    """

    expectation: Expectation
    passed: bool
    detail: dict[str, Any] = field(default_factory=dict)
    failing_rows: tuple[dict[str, str], ...] = ()

    @property
    def is_blocking(self) -> bool:
        """Whether the table must not be published because of it."""
        return not self.passed and self.expectation.severity == "critical"


@dataclass(frozen=True)
class _Outcome:
    """What Great Expectations said of one expectation: whether it held, its numbers, or its error's text."""

    passed: bool = False
    numbers: dict[str, Any] = field(default_factory=dict)
    error: str = ""


_NO_RESULT = _Outcome(error="the expectation gave no result")


def check_table(name: str, rows: DataFrame, facts: Sequence[dict[str, Any]]) -> list[CheckResult]:
    """Returns one result for each expectation of the table `name`, in the suite's order.

    Args:
        name: the table.
        rows: the candidate.
        facts: numbers that the asset counted, by the names that the suite uses: one dict per day, or a single one.
    """
    results = _check(name, "rows", rows) | _check(name, "facts", pd.DataFrame(list(facts)))
    return [results[e.name] for e in SUITES[name]]


def _check(name: str, subject: str, data: DataFrame | pd.DataFrame) -> dict[str, CheckResult]:
    expectations = [e for e in SUITES[name] if e.subject == subject]
    missing = {e.name: problem for e in expectations if (problem := _missing(e, data))}
    outcomes = _evaluate(data, [e for e in expectations if e.name not in missing])
    return {
        e.name: CheckResult(e, passed=False, detail={"error": missing[e.name]})
        if e.name in missing
        else _result(TABLES[name], e, outcomes.get(e.name, _NO_RESULT), data)
        for e in expectations
    }


def _missing(expectation: Expectation, data: DataFrame | pd.DataFrame) -> str:
    """What the expectation is about and `data` lacks: Great Expectations would pass over a fact that is missing."""
    columns = _columns_of(expectation)
    if isinstance(data, pd.DataFrame):
        absent = [column for column in columns if column not in data or data[column].isna().any()]
        return f"not counted: {', '.join(absent)}" if absent or data.empty else ""
    absent = [column for column in columns if column not in data.columns]
    return f"the candidate has no column {', '.join(absent)}" if absent else ""


def _columns_of(expectation: Expectation) -> list[str]:
    kwargs = expectation.kwargs
    return [kwargs[key] for key in _COLUMN_KEYS if key in kwargs] + kwargs.get("column_list", [])


def _result(table: Table, expectation: Expectation, outcome: _Outcome, data: DataFrame | pd.DataFrame) -> CheckResult:
    if outcome.passed:
        return CheckResult(expectation, passed=True)
    detail: dict[str, Any] = dict(outcome.numbers)
    if isinstance(data, pd.DataFrame) and not outcome.error:
        detail = _failing_facts(data, expectation) or detail
    if outcome.error:
        detail["error"] = outcome.error if outcome is _NO_RESULT else _tell_error(outcome.error, table)
    failing_rows: tuple[dict[str, str], ...] = ()
    if not outcome.error and not isinstance(data, pd.DataFrame):
        try:
            failing_rows = find_failing_rows(data, expectation, table)
        except Exception as error:  # the check has failed: that its rows cannot be shown must not hide it
            detail["failing_rows_error"] = _tell_error(str(error), table)
    return CheckResult(expectation, passed=False, detail=detail, failing_rows=failing_rows)


def _failing_facts(facts: pd.DataFrame, expectation: Expectation) -> dict[str, Any]:
    """The numbers that break an expectation by name, and their days: one, or a list of the first five."""
    kwargs, columns = expectation.kwargs, _columns_of(expectation)
    values = [facts[name] for name in columns]
    match expectation.type:
        case "ExpectColumnValuesToBeBetween":
            low, high = kwargs["min_value"], kwargs["max_value"]
            holds = values[0].between(-math.inf if low is None else low, math.inf if high is None else high)
        case "ExpectColumnPairValuesToBeEqual":
            holds = values[0] == values[1]
        case "ExpectColumnPairValuesAToBeGreaterThanB":
            holds = values[0] >= values[1]
        case _:
            return {}
    days = [name for name in _DAY_FACTS if name in facts]
    broken = facts.loc[~holds, [*days, *columns]].head(MAX_FAILING_ROWS)
    told = {name: [_short(value) for value in broken[name].tolist()] for name in broken.columns} if len(broken) else {}
    return {name: found[0] if len(found) == 1 else found for name, found in told.items()}


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _tell_error(text: str, table: Table) -> str:
    """An error's text; of a restricted table only Spark's name for it, since the text may quote a value."""
    if not table.is_restricted:
        return text[:_MAX_ERROR_CHARS]
    condition = re.match(r"\[([A-Z0-9_.]+)\]", text)
    return f"{condition[1] if condition else 'error'} (its text may quote rows of a restricted table and is left out)"


def _evaluate(data: DataFrame | pd.DataFrame, expectations: list[Expectation]) -> dict[str, _Outcome]:
    """Outcomes by name; whether an expectation holds is cheap, so only of failures more is asked."""
    if not expectations:
        return {}
    certain = {e.name: _Outcome(passed=True) for e in expectations if e.type in _UNIQUE and _is_unique(data, e)}
    expectations = [e for e in expectations if e.name not in certain]
    batch = _batch(data)
    outcomes = certain | _run(batch, expectations, _BOOLEAN_ONLY) if expectations else certain
    failed = [e for e in expectations if e.name in outcomes and not (outcomes[e.name].passed or outcomes[e.name].error)]
    details = _run(batch, failed, _COUNTS) if failed else {}
    return outcomes | {name: replace(detail, passed=False) for name, detail in details.items()}


def _is_unique(data: DataFrame | pd.DataFrame, expectation: Expectation) -> bool:
    """Whether the rows are certainly unique: true only where no two hashes agree.

    False says nothing: rows may repeat, be null in different columns, or be unreadable, and that is Great Expectations'
    to tell.
    """
    columns = _columns_of(expectation)
    if isinstance(data, pd.DataFrame) or not columns:
        return False
    try:
        hashes = data.select(F.xxhash64(*columns).alias("hash"))
        return hashes.groupBy("hash").count().where("count > 1").isEmpty()
    except PySparkException:
        return False


def _batch(data: DataFrame | pd.DataFrame) -> Batch:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    sources = context.data_sources
    asset: Any
    if isinstance(data, pd.DataFrame):
        asset = sources.add_pandas("facts").add_dataframe_asset("facts")
    else:
        asset = sources.add_spark("rows", persist=False).add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": data})


def _run(batch: Batch, expectations: list[Expectation], result_format: dict[str, Any]) -> dict[str, _Outcome]:
    suite = gx.ExpectationSuite(name="suite")
    for e in expectations:
        suite.add_expectation(getattr(gxe, e.type)(**e.kwargs, severity=e.severity, meta={"name": e.name}))
    outcomes = {}
    for result in batch.validate(suite, result_format=result_format).results:
        config: Any = result.expectation_config
        numbers = {key: value for key in _NUMBERS if _is_number(value := result.result.get(key))}
        outcomes[config.meta["name"]] = _Outcome(bool(result.success), numbers, _error(result.exception_info))
    return outcomes


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _error(exception_info: dict[str, Any]) -> str:
    """The message of an exception, whichever of the library's two shapes it comes in; empty where there is none."""
    infos = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    messages = [str(info["exception_message"]) or "an error" for info in infos if info.get("raised_exception")]
    return "; ".join(dict.fromkeys(messages))
