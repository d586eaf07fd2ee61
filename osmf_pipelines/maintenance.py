"""The weekly upkeep of the lake's files. What is done to a table is in `spark/maintain.py`."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from osmf_pipelines.assets.metadata import as_table
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

# Longer than any run may take.
CANDIDATE_AGE = timedelta(days=7)


def build_maintenance(settings: Settings) -> tuple[dg.JobDefinition, dg.ScheduleDefinition]:
    """Returns the job that compacts and vacuums every published table, and its schedule, which is off by default."""

    @dg.op(
        pool="spark",
        out=dg.Out(dg.Nothing),
        description="Compacts every published table, removes files and candidates that nobody needs any more.",
    )
    def maintain_tables(context: dg.OpExecutionContext, lake: dg.ResourceParam[LakeResource]) -> None:
        _maintain(context, lake, settings.vacuum_hours)

    @dg.job(name="maintain_lake", description="Small files compacted, old versions and left-over candidates removed.")
    def maintain_lake() -> None:
        maintain_tables()

    schedule = dg.ScheduleDefinition(
        name="weekly_maintenance",
        job=maintain_lake,
        cron_schedule="0 6 * * 0",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Every Sunday: small files compacted, old versions removed.",
    )
    return maintain_lake, schedule


def _maintain(context: dg.OpExecutionContext, resource: LakeResource, vacuum_hours: int) -> None:
    from osmf_pipelines.spark.maintain import drop_candidates, maintain_table

    lake = resource.lake
    published = [name for name in TABLES if lake.exists(name)]
    done = []
    for number, name in enumerate(published, start=1):
        upkeep = maintain_table(lake, name, vacuum_hours=vacuum_hours)
        context.log.info(
            f"{name} ({number} of {len(published)}): {upkeep.num_files_compacted} files compacted, "
            f"{upkeep.num_files_removed} removed ({upkeep.num_bytes_removed} bytes), now version {upkeep.version}"
        )
        done.append(upkeep)
    dropped = drop_candidates(lake, before=datetime.now(UTC) - CANDIDATE_AGE)
    context.log.info(f"{len(dropped)} left-over candidates removed")
    context.add_output_metadata(
        {
            "num_files_compacted": sum(upkeep.num_files_compacted for upkeep in done),
            "num_files_removed": sum(upkeep.num_files_removed for upkeep in done),
            "num_bytes_removed": sum(upkeep.num_bytes_removed for upkeep in done),
            "candidates_removed": dropped,
            "tables": as_table([asdict(upkeep) for upkeep in done]),
        }
    )
