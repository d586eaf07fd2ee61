"""`osmf generate`: the champion draws pictures to serve, with a bar while it does. The work is the job `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from rich.console import Console

from osmf_pipelines.settings import Settings


def run_generate(
    settings: Settings, console: Console, day: date | None, group_ids: Sequence[str], product_ids: Sequence[str]
) -> None:
    """Draws for groups and products as of a day, and publishes the map to serve the pictures by.

    Args:
        settings: of the lake.
        console: where progress goes.
        day: whose groups and products; default: the last that has a training export.
        group_ids: default: all.
        product_ids: default: all.

    Raises:
        RunFailedError: when an asset fails.
        ValueError: when there is no training export.
    """
    from osmf_pipelines.cli.runs import JobRunner
    from osmf_pipelines.definitions import build_defs

    day = day or _last_exported(settings)
    runner = JobRunner(console)
    defs = build_defs(settings, on_progress=runner.show_training)
    asked = {"generated_creatives": {"config": {"group_ids": list(group_ids), "product_ids": list(product_ids)}}}
    console.print(f"[bold]Pictures as of {day}[/]")
    runner.run(defs, "generate", day, asset_config=asked)
    console.print(
        f"serving map   {settings.home / 'serving' / f'{day}.jsonl'}", soft_wrap=True, highlight=False, markup=False
    )


def _last_exported(settings: Settings) -> date:
    from osmf_pipelines.resources.lake import LakeResource

    lake = LakeResource(settings).lake
    rows = (
        lake.read("training_export").selectExpr("max(as_of_date) AS day").collect()
        if lake.exists("training_export")
        else []
    )
    if not rows or rows[0]["day"] is None:
        raise ValueError("there is no training export yet: `osmf ingest --pairs` makes one.")
    day: date = rows[0]["day"]
    return day
