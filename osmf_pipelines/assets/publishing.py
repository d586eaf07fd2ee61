"""Candidate, gate, publication: how every asset ends.

The gate's results become Dagster's check results. A critical failure raises before anything is published, so the last
published version stays what readers see and nothing downstream runs.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg

from osmf_pipelines.quality.suites import SUITES
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.tables import TABLES

Facts = Sequence[dict[str, Any]]
CountFacts = Callable[[Any], Facts]
Outcome = dg.AssetCheckResult | dg.MaterializeResult


def check_specs(name: str, key: dg.AssetKey | None = None) -> list[dg.AssetCheckSpec]:
    """Returns one Dagster check per expectation of the table's suite; critical ones block."""
    return [
        dg.AssetCheckSpec(
            name=e.name, asset=key or dg.AssetKey(name), description=e.reason, blocking=e.severity == "critical"
        )
        for e in SUITES[name]
    ]


def table_metadata(name: str) -> dict[str, Any]:
    """Returns what is known of a table before it is computed: its columns."""
    columns = [
        dg.TableColumn(column.name, type=column.type, description=column.meaning) for column in TABLES[name].columns
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns)}


def publish(
    context: dg.AssetExecutionContext,
    resource: LakeResource,
    name: str,
    frame: Any,
    *,
    inputs: Sequence[str] = (),
    days: tuple[date, ...] | None = None,
    facts: Facts | CountFacts = (),
    metadata: dict[str, Any] | None = None,
) -> Iterator[Outcome]:
    """Stages `frame`, checks it, publishes it; yields check results, then the materialisation.

    Args:
        context: of the running asset.
        resource: the lake.
        name: the table.
        frame: Spark frame with the table's columns.
        inputs: tables that were read; their versions go into the commit.
        days: partition values that the frame replaces.
        facts: numbers for the suite, one dict per day or a single one; or a function that counts them on the
            staged candidate.
        metadata: more to show in Dagster.

    Raises:
        dagster.Failure: when a critical expectation fails; nothing is published then.
    """
    from osmf_pipelines.quality.gate import check_table

    lake = resource.lake
    key = _key(context, name)
    candidate = lake.stage(name, frame, run_id=context.run_id, days=days)
    try:
        counted = facts(candidate.frame) if callable(facts) else facts
        results = check_table(name, candidate.frame, counted)
        for result in results:
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=result.expectation.name,
                passed=result.passed,
                severity=dg.AssetCheckSeverity.ERROR
                if result.expectation.severity == "critical"
                else dg.AssetCheckSeverity.WARN,
                metadata={"reason": result.expectation.reason, **{k: str(v) for k, v in result.detail.items()}},
            )
        refused = [result for result in results if result.is_blocking]
        if refused:
            raise dg.Failure(_refusal(name, days, refused), allow_retries=False)
        publication = lake.publish(
            candidate, run_id=context.run_id, input_versions={table: lake.version(table) for table in inputs}
        )
    finally:
        lake.discard(candidate)
    yield dg.MaterializeResult(
        asset_key=key,
        metadata={
            "dagster/row_count": publication.num_rows,
            "dagster/uri": lake.path(name),
            "delta_version": publication.version,
            "changed_days": list(publication.changed_days),
            **(metadata or {}),
        },
    )


def _key(context: dg.AssetExecutionContext, name: str) -> dg.AssetKey:
    """The asset's key, with whatever prefix its code location gave it."""
    return next(key for key in context.assets_def.keys if key.path[-1] == name)


def _refusal(name: str, days: tuple[date, ...] | None, refused: list[Any]) -> str:
    what = f"{name} of {days[0]} to {days[-1]}" if days and len(days) > 1 else f"{name} of {days[0]}" if days else name
    reasons = "; ".join(f"{r.expectation.name} ({r.expectation.reason}) {r.detail or ''}".strip() for r in refused)
    return f"{what} is not published, the last published version stays: {reasons}. Mend the data, then run again."
