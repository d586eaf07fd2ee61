"""Claim, candidate, gate, publication: how every asset begins and ends.

The gate's results become Dagster's check results. A critical failure raises before anything is published, so the last
published version stays what readers see and nothing downstream runs. What the verdict was is kept in `HOME/verdicts`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from typing import Any, Literal

import dagster as dg

from osmf_pipelines.assets.metadata import column_lineage, failing_rows_table
from osmf_pipelines.quality.suites import SUITES
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.tables import TABLES
from osmf_pipelines.verdicts import Verdict

Facts = Sequence[dict[str, Any]]
CountFacts = Callable[[Any], Facts]
Outcome = dg.AssetCheckResult | dg.MaterializeResult
Pool = Literal["spark", "gpu"]


def asset_specs(
    names: Sequence[str],
    *,
    deps: Sequence[str | dg.AssetDep],
    group: str,
    kind: str = "spark",
    is_learning: bool = False,
    partitions: dg.PartitionsDefinition[Any] | None = None,
) -> list[dg.AssetSpec]:
    """Returns what Dagster shows of tables that one function computes from the same inputs."""
    return [
        dg.AssetSpec(
            name,
            deps=deps,
            description=TABLES[name].grain,
            group_name=group,
            kinds={kind, "delta"},
            owners=["team:applied-science" if is_learning else "team:data-engineering"],
            metadata=_table_metadata(name),
            tags={"restricted": str(TABLES[name].is_restricted).lower()},
            partitions_def=partitions,
        )
        for name in names
    ]


def check_specs(names: Sequence[str]) -> list[dg.AssetCheckSpec]:
    """Returns one Dagster check per expectation of the tables' suites; critical ones block."""
    return [
        dg.AssetCheckSpec(name=e.name, asset=name, description=e.reason, blocking=e.severity == "critical")
        for name in names
        for e in SUITES[name]
    ]


def _table_metadata(name: str) -> dict[str, Any]:
    """What is known of a table before it is computed: its columns."""
    columns = [
        dg.TableColumn(column.name, type=column.type, description=column.meaning) for column in TABLES[name].columns
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns), "dagster/table_name": name}


@contextmanager
def materialising(
    context: dg.AssetExecutionContext, resource: LakeResource, days: Iterable[date] | None = None
) -> Iterator[None]:
    """Claims every table of the running asset, for `days` or as a whole, against other processes.

    Raises:
        LakeConflictError: when another process is at it.
    """
    claimed = None if days is None else tuple(days)
    with ExitStack() as claims:
        for name in sorted(key.path[-1] for key in context.selected_asset_keys):
            claims.enter_context(resource.lake.claim(name, claimed, run_id=context.run.run_id))
        yield


@contextmanager
def cached(*frames: Any) -> Iterator[None]:
    """Keeps frames that are read more than once in memory or on disk while the block runs."""
    for frame in frames:
        frame.persist()
    try:
        yield
    finally:
        for frame in frames:
            frame.unpersist()


def publish(
    context: dg.AssetExecutionContext,
    resource: LakeResource,
    name: str,
    frame: Any,
    *,
    inputs: dict[str, int],
    days: tuple[date, ...] | None = None,
    reopened_days: tuple[date, ...] = (),
    facts: Facts | CountFacts = (),
    metadata: dict[str, Any] | None = None,
) -> Iterator[Outcome]:
    """Stages `frame`, checks it, publishes it; yields check results, then the materialisation.

    Args:
        context: of the running asset.
        resource: the lake.
        name: the table.
        frame: Spark frame with the table's columns.
        inputs: versions of the tables that were read; they go into the commit.
        days: partition values that the frame replaces.
        reopened_days: more of them, rewritten only because late events touched them.
        facts: numbers for the suite, one dict per day or a single one; or a function that counts them on the
            staged candidate.
        metadata: more to show in Dagster.

    Raises:
        dagster.Failure: when a critical expectation fails; nothing is published then.
    """
    from osmf_pipelines.quality.gate import check_table

    lake, key = resource.lake, _key(context, name)
    everything = days if days is None else (*days, *reopened_days)
    candidate = lake.stage(name, frame, run_id=context.run.run_id, days=everything)
    try:
        lake.on_phase("audit", name)
        counted = facts(candidate.frame) if callable(facts) else facts
        results = check_table(name, candidate.frame, counted)
        yield from (_as_check(key, result) for result in results)
        failed = tuple(result.expectation.name for result in results if not result.passed)
        refused = [result for result in results if result.is_blocking]
        verdict = Verdict.now(name, run_id=context.run.run_id, days=days, failed_checks=failed)
        if refused:
            resource.verdicts.write(verdict.as_refused())
            raise dg.Failure(_refusal(name, days, refused), allow_retries=False)
        publication = lake.publish(
            candidate, run_id=context.run.run_id, input_versions=inputs, reopened_days=reopened_days
        )
        resource.verdicts.write(verdict)
    finally:
        lake.discard(candidate)
    reopened = [day for day in reopened_days if day.isoformat() in publication.changed_days]
    for day in reopened:
        context.log_event(
            dg.AssetMaterialization(key, description="re-opened by late events", partition=day.isoformat())
        )
    yield dg.MaterializeResult(
        asset_key=key,
        metadata={
            "dagster/row_count": publication.num_rows,
            "dagster/uri": lake.path(name),
            "dagster/column_lineage": column_lineage(name, key.path[:-1]),
            "delta_version": publication.version,
            "changed_days": list(publication.changed_days),
            "input_versions": inputs,
            **({"reopened_days": [day.isoformat() for day in reopened]} if reopened else {}),
            **(metadata or {}),
        },
    )


def _as_check(key: dg.AssetKey, result: Any) -> dg.AssetCheckResult:
    expectation = result.expectation
    is_critical = expectation.severity == "critical"
    told = {"reason": expectation.reason, **{name: str(value) for name, value in result.detail.items()}}
    if result.failing_rows:
        told["failing_rows"] = failing_rows_table(result.failing_rows)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=expectation.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR if is_critical else dg.AssetCheckSeverity.WARN,
        metadata=told,
    )


def _key(context: dg.AssetExecutionContext, name: str) -> dg.AssetKey:
    """The asset's key, with whatever prefix its code location gave it."""
    return next(key for key in context.assets_def.keys if key.path[-1] == name)


def _refusal(name: str, days: tuple[date, ...] | None, refused: list[Any]) -> str:
    what = f"{name} of {days[0]} to {days[-1]}" if days and len(days) > 1 else f"{name} of {days[0]}" if days else name
    reasons = "; ".join(f"{r.expectation.name} ({r.expectation.reason}) {r.detail or ''}".strip() for r in refused)
    return f"{what} is not published, the last published version stays: {reasons}. Mend the data, then run again."
