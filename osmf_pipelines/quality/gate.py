"""Runs a table's suite with Great Expectations and says whether the table may be published.

The only module that imports Great Expectations. It fails closed: an expectation without a result, or one that could
not be evaluated, is a failure.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx
import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.datasource.fluent.interfaces import Batch
from pyspark.sql import DataFrame

from osmf_pipelines.quality.suites import SUITES, Expectation
from osmf_pipelines.tables import TABLES

_MAX_EXAMPLES = 5
Format = Literal["BOOLEAN_ONLY", "SUMMARY"]


@dataclass(frozen=True)
class CheckResult:
    """How one expectation came out.

    Attributes:
        expectation: what was expected.
        passed: whether it held.
        detail: why not: counts and examples (never from a restricted table), or the error that kept it from being
            evaluated.
    """

    expectation: Expectation
    passed: bool
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def is_blocking(self) -> bool:
        """Whether the table must not be published because of it."""
        return not self.passed and self.expectation.severity == "critical"


def check_table(name: str, rows: DataFrame, facts: Sequence[dict[str, Any]]) -> list[CheckResult]:
    """Returns one result for each expectation of the table `name`, in the suite's order.

    Args:
        name: the table.
        rows: the candidate.
        facts: numbers that the asset counted, by the names that the suite uses: one dict per day, or a single one.
    """
    frame = pd.DataFrame(list(facts))
    results = {
        **_validate(name, "rows", rows),
        **_validate(name, "facts", frame),
        **_missing_facts(name, frame),
    }
    return [
        results.get(e.name, CheckResult(e, passed=False, detail={"error": "the expectation gave no result"}))
        for e in SUITES[name]
    ]


def _validate(name: str, subject: str, data: DataFrame | pd.DataFrame) -> dict[str, CheckResult]:
    expectations = [e for e in SUITES[name] if e.subject == subject]
    if not expectations or (isinstance(data, pd.DataFrame) and data.empty):
        return {}
    batch = _batch(data)
    outcomes = _run(batch, expectations, "BOOLEAN_ONLY")
    failed = [e for e in expectations if not outcomes.get(e.name, (False, {}))[0]]
    details = _run(batch, failed, "SUMMARY") if failed else {}
    return {
        e.name: CheckResult(e, passed, _detail(name, *details[e.name]) if e.name in details else {})
        for e in expectations
        for passed in [outcomes.get(e.name, (False, {}))[0]]
    }


def _missing_facts(name: str, frame: pd.DataFrame) -> dict[str, CheckResult]:
    """Great Expectations passes over missing values: a fact that was not counted must fail all the same."""
    missing = {}
    for e in SUITES[name]:
        if e.subject == "facts":
            columns = [e.kwargs[key] for key in ("column", "column_A", "column_B") if key in e.kwargs]
            absent = [column for column in columns if column not in frame or frame[column].isna().any()]
            if absent or frame.empty:
                missing[e.name] = CheckResult(e, passed=False, detail={"error": f"not counted: {', '.join(absent)}"})
    return missing


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


def _run(
    batch: Batch, expectations: list[Expectation], result_format: Format
) -> dict[str, tuple[bool, dict[str, Any]]]:
    suite = gx.ExpectationSuite(name="suite")
    for e in expectations:
        suite.add_expectation(getattr(gxe, e.type)(**e.kwargs, severity=e.severity, meta={"name": e.name}))
    outcomes: dict[str, tuple[bool, dict[str, Any]]] = {}
    for result in batch.validate(suite, result_format=result_format).results:
        config: Any = result.expectation_config
        outcomes[config.meta["name"]] = (bool(result.success), {**result.result, **_error(result.exception_info)})
    return outcomes


def _error(exception_info: dict[str, Any]) -> dict[str, str]:
    """The message of an exception, whichever of the library's two shapes it comes in."""
    infos = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    messages = [str(info["exception_message"]) for info in infos if info.get("raised_exception")]
    return {"error": "; ".join(messages)} if messages else {}


def _detail(name: str, _: bool, result: dict[str, Any]) -> dict[str, Any]:
    keys = ["error", "observed_value", "element_count", "unexpected_count", "unexpected_percent"]
    if not TABLES[name].is_restricted:
        keys.append("partial_unexpected_list")
    detail = {key: result[key] for key in keys if key in result}
    if "partial_unexpected_list" in detail:
        detail["partial_unexpected_list"] = [str(value) for value in detail["partial_unexpected_list"][:_MAX_EXAMPLES]]
    return {k: v for k, v in detail.items() if not (isinstance(v, float) and math.isnan(v))}
