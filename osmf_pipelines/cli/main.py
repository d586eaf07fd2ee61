"""The `osmf` command. Each command reads its arguments and calls one function."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from osmf_pipelines.cli.ablate import ablate
from osmf_pipelines.cli.bench import bench_app
from osmf_pipelines.cli.cluster import cluster
from osmf_pipelines.settings import DEFAULT_USER_KEY, Settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Impression and click logs in, a model that draws the ad picture each group of users prefers out.",
)
app.add_typer(bench_app, name="bench")
app.command()(ablate)
app.command()(cluster)
_console = Console()
_DAY = ["%Y-%m-%d"]
_SECRETS = ("user_key", "alert_url", "mlflow_uri", "spark_conf")
_UNTOLD_IN_ERRORS = (*_SECRETS, "launch_command", "cancel_command")  # commands may hold a password


def main() -> None:
    """Runs the command; wrong input ends it with one line and exit code 2."""
    try:
        app()
    except ValidationError as error:
        for wrong in error.errors():
            variable = f"OSMF_{'_'.join(map(str, wrong['loc'])).upper()}"
            value = "(not shown)" if wrong["loc"][0] in _UNTOLD_IN_ERRORS else wrong["input"]
            told = escape(f"{variable}={value}: {wrong['msg']}")
            _console.print(f"[red]error:[/] {told}", soft_wrap=True, highlight=False)
        raise SystemExit(2) from None
    except (ValueError, RuntimeError, OSError) as error:
        _console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise SystemExit(2) from None


@app.command()
def doctor() -> None:
    """Checks Java, Spark, Delta, disk and libraries, and says what to do about what is missing."""
    from osmf_pipelines.cli.doctor import find_problems

    def report(name: str, problem: str | None) -> None:
        _console.print(f"[red]✗[/] {name}: {problem}" if problem else f"[green]✓[/] {name}", soft_wrap=True)

    problems = find_problems(Settings(), report, is_thorough=True)
    if Settings().user_key == DEFAULT_USER_KEY:
        _console.print("[yellow]![/] OSMF_USER_KEY is not set: set a secret before the first day of real logs")
    if problems:
        raise SystemExit(1)


class MarketName(StrEnum):
    """A simulated market."""

    REALISTIC = "realistic"
    EASY = "easy"


class PolicyName(StrEnum):
    """How pictures are chosen."""

    UNIFORM = "uniform"
    EPSILON_GREEDY = "epsilon_greedy"
    TASTE = "taste"
    FIXED = "fixed"


@app.command()
def simulate(
    out: Annotated[
        Path | None, typer.Option(help="folder to write: OUT/drop for a pipeline, OUT/truth for evaluation")
    ] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="PNG to write: products, what each segment likes, and true click rates")
    ] = None,
    days: Annotated[int, typer.Option(help="days of logs")] = 3,
    impressions: Annotated[int, typer.Option(help="impressions a day")] = 600_000,
    first_date: Annotated[str, typer.Option(help="first day, YYYY-MM-DD")] = "2026-03-02",
    seed: Annotated[int, typer.Option(help="another seed is another market")] = 7,
    market: Annotated[
        MarketName, typer.Option(help="realistic: 8 categories; easy: 4, linear tastes")
    ] = MarketName.REALISTIC,
    scope: Annotated[list[str] | None, typer.Option(help="only this product category (may be repeated)")] = None,
    users: Annotated[int, typer.Option(help="users there are, up to tens of millions")] = 20_000,
    products: Annotated[int, typer.Option(help="drawn products of each category")] = 25,
    creatives: Annotated[int, typer.Option(help="pictures of each product")] = 8,
    image_px: Annotated[int, typer.Option(help="side of each picture")] = 32,
    own_products: Annotated[
        Path | None, typer.Option(help="folder with products.csv (file,category,title,price) and RGBA cut-outs")
    ] = None,
    policy: Annotated[PolicyName, typer.Option(help="how a product's picture is chosen")] = PolicyName.UNIFORM,
    epsilon: Annotated[float, typer.Option(help="share that epsilon_greedy and taste show at random")] = 0.2,
    propensities: Annotated[str, typer.Option(help="for fixed: one per picture, by commas, adding up to 1")] = "",
    position_bias: Annotated[
        float, typer.Option(help="share of impressions at which better pictures stand higher")
    ] = 0.0,
    messy: Annotated[bool, typer.Option(help="late, doubled, orphaned, malformed and automatic events too")] = False,
    missing_day: Annotated[list[int] | None, typer.Option(help="day (from 1) that is not delivered")] = None,
    half_day: Annotated[list[int] | None, typer.Option(help="day of which half is missing")] = None,
    drifted_day: Annotated[list[int] | None, typer.Option(help="day that comes with a renamed column")] = None,
) -> None:
    """Writes a simulated market as a drop folder, its truth beside it; or one picture of it; or both."""
    from osmf_pipelines.cli.simulate import LogOptions, MarketOptions, run_simulate

    of_market = MarketOptions(
        market.value, seed, users, image_px, products, creatives, tuple(scope or ()), own_products
    )
    of_logs = LogOptions(
        days,
        impressions,
        first_date,
        policy.value,
        epsilon,
        propensities,
        position_bias,
        messy,
        tuple(missing_day or ()),
        tuple(half_day or ()),
        tuple(drifted_day or ()),
    )
    run_simulate(Settings(), of_market, of_logs, out=out, contact_sheet=contact_sheet, console=_console)


class Part(StrEnum):
    """A part of the demo that can be run alone."""

    DATA = "data"


@app.command()
def demo(
    only: Annotated[Part | None, typer.Option(help="data: logs to pairs and the training export, no models")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="controls, pictures to serve and a closed loop of six days too")
    ] = False,
) -> None:
    """Runs the whole chain on a simulated market and on the Open Bandit logs, and sums it up."""
    from osmf_pipelines.cli.demo import run_demo, run_full_demo

    if full and only is not None:
        raise ValueError(f"--full is everything, and --only {only.value} a part: give one of the two.")
    if full:
        run_full_demo(Settings(), _console)
    else:
        run_demo(Settings(), _console, has_models=only is None)


@app.command()
def ingest(
    first_day: Annotated[datetime | None, typer.Option(formats=_DAY, help="first day; default all complete")] = None,
    last_day: Annotated[datetime | None, typer.Option(formats=_DAY, help="last day; default the first")] = None,
    pairs: Annotated[bool, typer.Option(help="then form groups and pairs as of the last day")] = False,
    dry_run: Annotated[bool, typer.Option(help="only show what the mapping makes of the first day")] = False,
    rows: Annotated[int, typer.Option(min=1, help="rows of each table that a dry run shows")] = 20,
) -> None:
    """Ingests days of the source that OSMF_SOURCE and OSMF_SOURCE_PATH name; what is there already is left as it is."""
    from osmf_pipelines.cli.ingest import run_ingest, show_mapping

    first, last = (day and day.date() for day in (first_day, last_day))
    if dry_run:
        show_mapping(Settings(), _console, first, rows)
    else:
        run_ingest(Settings(), _console, first, last, has_pairs=pairs)


@app.command()
def tables(
    table: Annotated[str | None, typer.Argument(help="show rows of this one instead of the list")] = None,
    day: Annotated[datetime | None, typer.Option(formats=_DAY, help="of the rows; default all days")] = None,
    where: Annotated[str | None, typer.Option(help="condition, as 'clicks > 9 AND NOT is_scope_root'")] = None,
    rows: Annotated[int, typer.Option(min=1, help="rows shown, at most")] = 20,
) -> None:
    """Lists what is published: rows, days, Delta version and the last verdict on each table; or rows of one TABLE."""
    from osmf_pipelines.cli.listing import COLUMNS, first_rows, list_tables, print_rows

    if table is None and (day or where):
        raise ValueError("--day and --where are about the rows of one table: name it, as `osmf tables group_ctr`.")
    if table is not None:
        print_rows(_console, *first_rows(Settings(), table, day and day.date(), where, rows))
        return
    listing = Table(*COLUMNS)
    for row in list_tables(Settings()):
        listing.add_row(*row)
    _console.print(listing)


@app.command()
def ab(
    experiment: Annotated[str, typer.Option(help="experiment_id, as the logs name it")],
    first_day: Annotated[
        datetime | None, typer.Option("--from", formats=_DAY, help="first day; default the experiment's first")
    ] = None,
    last_day: Annotated[
        datetime | None, typer.Option("--to", formats=_DAY, help="last day; default the experiment's last")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="arm that others are held against; default the one called control")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="ARM=SHARE", help="planned share of users, for every arm; default the same for all"),
    ] = None,
    lift: Annotated[float, typer.Option(help="tell how many users it takes to find this lift")] = 0.05,
    output: Annotated[Path | None, typer.Option(help="JSON file to write, for osmf promote --readout")] = None,
) -> None:
    """Reads out an A/B test from the logs: click rates of arms, lifts by group, whether users split as planned.

    Intervals (95%) are by user, since users are randomised. Where users do not split as planned, or change their arm,
    no lift is told. docs/ab.md describes the keys of the JSON.
    """
    from osmf_pipelines.cli.ab import run_ab

    run_ab(
        Settings(),
        _console,
        experiment,
        first_date=first_day and first_day.date(),
        last_date=last_day and last_day.date(),
        control=control,
        split=split or [],
        lift=lift,
        output=output,
    )


@app.command()
def promote(
    version: Annotated[int | None, typer.Option(help="version of the model; default: the challenger")] = None,
    readout: Annotated[
        Path | None, typer.Option(help="JSON of osmf ab: an A/B test of this version against the champion")
    ] = None,
    decision: Annotated[str, typer.Option(help="why it may be champion, where no truth is known")] = "",
    by: Annotated[str, typer.Option(help="who took the decision")] = "",
) -> None:
    """Makes a registered model the champion, if the gate lets it."""
    from osmf_pipelines.cli.promotion import run_promote

    run_promote(Settings(), _console, version, decision, by, readout)


@app.command()
def rollback() -> None:
    """Makes the champion before the champion again."""
    from osmf_pipelines.cli.promotion import run_rollback

    run_rollback(Settings(), _console)


@app.command()
def generate(
    day: Annotated[datetime | None, typer.Option(formats=_DAY, help="default: the last with a training export")] = None,
    group: Annotated[list[str] | None, typer.Option(help="only for this group (may be repeated)")] = None,
    product: Annotated[list[str] | None, typer.Option(help="only of this product (may be repeated)")] = None,
) -> None:
    """Has the champion draw pictures for groups and products, and publishes the map to serve them by."""
    from osmf_pipelines.cli.generate import run_generate

    run_generate(Settings(), _console, day and day.date(), group or (), product or ())


@app.command()
def settings(
    markdown: Annotated[bool, typer.Option(help="the page docs/settings.md: defaults instead of values")] = False,
) -> None:
    """Prints every setting, its environment variable, its value and what it means."""
    if markdown:
        from osmf_pipelines.settings_table import settings_markdown

        print(settings_markdown(), end="")
        return
    listing = Table("variable", "value", "meaning")
    values = Settings()
    for name, field in Settings.model_fields.items():
        is_hidden = name in _SECRETS and getattr(values, name)
        value = "(secret)" if is_hidden else json.dumps(getattr(values, name), default=str)
        listing.add_row(f"OSMF_{name.upper()}", value, field.description or "")
    _console.print(listing)
