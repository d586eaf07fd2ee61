"""Runs a job of a lake; as a program, in a process that ends itself with SIGKILL, or waits, at a named phase.

python -m tests.lake.jobs HOME DROP DAY kill|wait|none PHASE TABLE [ASSET ...]
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from osmf_pipelines.definitions import build_defs
from osmf_pipelines.jobs import EVENTS
from osmf_pipelines.resources.lake import LakeResource, OnPhase
from osmf_pipelines.settings import Settings

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_job(
    settings: Settings,
    job: str,
    first_day: date,
    last_day: date | None = None,
    *,
    on_phase: OnPhase = lambda phase, table: None,
    instance: dg.DagsterInstance | None = None,
    selection: Sequence[str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Runs `job`, or some of its assets, for a day or a range of days at once; failures are printed too."""
    definitions = build_defs(settings, resource_overrides={"lake": LakeResource(settings, on_phase)})
    days: dict[str, object] = {"partition_key": first_day.isoformat()}
    if last_day is not None and last_day != first_day:
        ends = (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
        days = {"tags": dict(zip(ends, (first_day.isoformat(), last_day.isoformat()), strict=True))}
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance or dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
        run_config=_QUIET,
        asset_selection=None if selection is None else [dg.AssetKey(name) for name in selection],
        **days,
    )
    for event in result.filter_events(lambda event: event.is_step_failure):
        print(event.step_key, event.step_failure_data.error_display_string)
    return result


def run_events(
    settings: Settings,
    day: date,
    on_phase: OnPhase = lambda phase, table: None,
    assets: Sequence[str] = EVENTS,
) -> bool:
    """Ingests a day, or runs some of its assets, in a lake that has its dimensions; returns whether it went well."""
    return run_job(settings, "ingest_days", day, selection=assets, on_phase=on_phase).success


def _interrupt(home: Path, how: str, at_phase: str, at_table: str) -> OnPhase:
    def on_phase(phase: str, table: str) -> None:
        if (phase, table) != (at_phase, at_table):
            return
        (home / "reached").touch()
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while how == "wait" and not (home / "go-on").exists():
            time.sleep(0.1)

    return on_phase


if __name__ == "__main__":
    from tests.lake.conftest import tiny_settings

    home, drop, day, how, at_phase, at_table, *assets = sys.argv[1:]
    interrupt = _interrupt(Path(home), how, at_phase, at_table)
    is_done = run_events(tiny_settings(Path(home), Path(drop)), date.fromisoformat(day), interrupt, assets or EVENTS)
    sys.exit(0 if is_done else 1)
