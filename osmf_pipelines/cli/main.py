"""The `osmf` command. Each command reads its arguments and calls one function."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from osmf_pipelines.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Impression and click logs in, a model that draws the ad picture each group of users prefers out.",
)
_console = Console()


def main() -> None:
    """Runs the command; wrong input ends it with one line and exit code 2."""
    try:
        app()
    except ValidationError as error:
        for wrong in error.errors():
            variable = f"OSMF_{'_'.join(map(str, wrong['loc'])).upper()}"
            _console.print(
                f"[red]error:[/] {variable}={wrong['input']}: {wrong['msg']}", soft_wrap=True, highlight=False
            )
        raise SystemExit(2) from None
    except (ValueError, RuntimeError, OSError) as error:
        _console.print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        raise SystemExit(2) from None


@app.command()
def doctor() -> None:
    """Checks Java, Spark, Delta, disk and libraries, and says what to do about what is missing."""
    from osmf_pipelines.cli.doctor import find_problems

    def report(name: str, problem: str | None) -> None:
        _console.print(f"[red]✗[/] {name}: {problem}" if problem else f"[green]✓[/] {name}", soft_wrap=True)

    if find_problems(Settings(), report, is_thorough=True):
        raise SystemExit(1)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="folder to write: OUT/drop for a pipeline, OUT/truth for evaluation")],
    days: Annotated[int, typer.Option(help="days of logs")] = 3,
    impressions: Annotated[int, typer.Option(help="impressions a day")] = 600_000,
    first_date: Annotated[str, typer.Option(help="first day, YYYY-MM-DD")] = "2026-03-02",
    seed: Annotated[int, typer.Option(help="another seed is another market")] = 7,
) -> None:
    """Writes a simulated market as a drop folder, its truth beside it."""
    from osmf_pipelines.cli.demo import simulate_market

    simulate_market(
        Settings(),
        out,
        start_date=date.fromisoformat(first_date),
        num_days=days,
        impressions_per_day=impressions,
        seed=seed,
        console=_console,
    )
    _console.print(f"{out / 'drop'} holds the logs: OSMF_SOURCE_PATH={out / 'drop'} lets `dagster dev` read them.")


@app.command()
def demo() -> None:
    """Runs the whole chain on a simulated market and on the Open Bandit logs, and sums it up."""
    from osmf_pipelines.cli.demo import run_demo

    run_demo(Settings(), _console)


@app.command()
def tables() -> None:
    """Lists what is published: rows, days and Delta version of each table."""
    from osmf_pipelines.cli.listing import list_tables

    listing = Table("table", "rows", "days", "version", "published")
    for row in list_tables(Settings()):
        listing.add_row(*row)
    _console.print(listing)


@app.command()
def settings() -> None:
    """Prints every setting, its environment variable, its value and what it means."""
    listing = Table("variable", "value", "meaning")
    values = Settings()
    for name, field in Settings.model_fields.items():
        value = "(secret)" if name == "user_key" else json.dumps(getattr(values, name), default=str)
        listing.add_row(f"OSMF_{name.upper()}", value, field.description or "")
    _console.print(listing)
