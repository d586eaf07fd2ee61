"""`osmf ingest`: days of logs into the lake, or a look at what the mapping makes of them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from osmf_pipelines.settings import Settings

if TYPE_CHECKING:
    from osmf_pipelines.sources.preview import TablePreview
    from osmf_pipelines.sources.source import Source


def choose_days(source: Source, settings: Settings, first_day: date | None, last_day: date | None) -> tuple[date, date]:
    """Returns the first and the last day to ingest: those named, or all that are complete.

    Raises:
        ValueError: when a day of the range is not complete or before the lake's first day, or none is complete at all.
    """
    complete = [day for day in source.days() if day >= settings.first_date]
    if not complete:
        raise ValueError(
            f"the source has no complete day from OSMF_FIRST_DATE={settings.first_date} on: deliver a day's files, "
            "then its marker, or set OSMF_FIRST_DATE."
        )
    first, last = first_day or complete[0], last_day or first_day or complete[-1]
    if first > last:
        raise ValueError(f"--first-day {first} is after --last-day {last}.")
    wanted = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    missing = [day for day in wanted if day not in complete]
    if missing:
        raise ValueError(
            f"day {missing[0]} is not complete (complete: {len(complete)} days, {complete[0]} to {complete[-1]}): "
            "name a range without gaps by --first-day and --last-day."
        )
    return first, last


def run_ingest(
    settings: Settings, console: Console, first_day: date | None, last_day: date | None, *, has_pairs: bool
) -> None:
    """Ingests days and, if asked, forms groups and pairs as of the last of them."""
    from osmf_pipelines.cli.runs import JobRunner
    from osmf_pipelines.definitions import build_defs
    from osmf_pipelines.sources import open_source

    first, last = choose_days(open_source(settings), settings, first_day, last_day)
    defs = build_defs(settings)
    console.print(f"[bold]{settings.source}: {first} to {last}[/]")
    runner = JobRunner(console)
    runner.run(defs, "ingest_days", first, last)
    if has_pairs:
        runner.run(defs, "form_pairs", last)


def show_mapping(settings: Settings, console: Console, day: date | None, num_rows: int) -> None:
    """Prints the first rows of each table under our names; nothing is written.

    Raises:
        ValueError: when the source has no mapping, or a table cannot be read as it says.
    """
    from osmf_pipelines.sources import open_source
    from osmf_pipelines.sources.mapped import MappedSource
    from osmf_pipelines.sources.preview import preview_mapping
    from osmf_pipelines.spark.session import get_spark

    source = open_source(settings)
    if not isinstance(source, MappedSource):
        raise ValueError(f"the source {settings.source} has no mapping: a dry run is for `files` and `table`.")
    first, _ = choose_days(source, settings, day, day)
    for preview in preview_mapping(source, get_spark(settings), first, user_key=settings.user_key, num_rows=num_rows):
        console.print(preview_table(preview))


def preview_table(preview: TablePreview) -> Table:
    """Returns the rows as a table to print; all that comes from the logs or the mapping is shown as it is written."""
    listing = Table(title=Text(f"{preview.section} ← {preview.origin}", "table.title"))
    for ours, theirs in zip(preview.columns, preview.their_columns, strict=True):
        listing.add_column(Text.assemble(ours, "\n", (theirs or "not mapped", "dim")))
    is_judged = any(preview.reasons)
    if is_judged:
        listing.add_column("refused for")
    for row, reasons in zip(preview.rows, preview.reasons, strict=True):
        listing.add_row(*map(Text, row), *([Text(", ".join(reasons))] if is_judged else []))
    return listing
