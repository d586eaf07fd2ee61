"""`osmf simulate`: a simulated market as a drop folder, or as one picture to look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from osmf_pipelines.settings import Settings

if TYPE_CHECKING:
    from osmf_models.simulator.market import Market
    from osmf_models.simulator.serving import PolicyKind
    from osmf_pipelines.spark.simulate_logs import Logs


@dataclass(frozen=True)
class MarketOptions:
    """Which market.

    Attributes:
        market: named market.
        seed: another seed is another market.
        num_users: users there are.
        image_px: side of every picture.
        num_products_per_scope: drawn products of each category.
        num_creatives_per_product: logged pictures of each product.
        scopes: categories to keep; empty for all.
        own_products: folder with a team's own cut-outs and their table, or None for drawn ones.
    """

    market: Literal["realistic", "easy"] = "realistic"
    seed: int = 7
    num_users: int = 20_000
    image_px: int = 32
    num_products_per_scope: int = 25
    num_creatives_per_product: int = 8
    scopes: tuple[str, ...] = ()
    own_products: Path | None = None


@dataclass(frozen=True)
class LogOptions:
    """Which logs of it, as the user wrote it.

    Attributes:
        num_days: days to write.
        impressions_per_day: right impressions a day.
        first_date: first day of the logs, YYYY-MM-DD.
        policy: how a product's picture is chosen.
        epsilon: share that the greedy policies show at random.
        propensities: of `fixed`, with commas between.
        position_bias: share of impressions at which better pictures stand higher.
        is_messy: with late, doubled, orphaned, malformed and automatic events, as real logs have them.
        missing_days: numbers (from 1) of days that are not delivered.
        half_days: numbers of days of which half is missing.
        drifted_days: numbers of days with a renamed column.
    """

    num_days: int
    impressions_per_day: int
    first_date: str
    policy: PolicyKind
    epsilon: float
    propensities: str
    position_bias: float
    is_messy: bool
    missing_days: tuple[int, ...] = ()
    half_days: tuple[int, ...] = ()
    drifted_days: tuple[int, ...] = ()


def run_simulate(
    settings: Settings,
    market_options: MarketOptions,
    log_options: LogOptions,
    *,
    out: Path | None,
    contact_sheet: Path | None,
    console: Console,
) -> None:
    """Writes what the user asked for: a drop folder, a contact sheet, or both.

    Args:
        settings: of the Spark session.
        market_options: which market.
        log_options: which logs.
        out: folder to write, or None.
        contact_sheet: picture to write, or None.
        console: where progress goes.

    Raises:
        ValueError: when a setting is impossible; nothing is written then.
    """
    from osmf_models.simulator.contact_sheet import draw_contact_sheet

    if out is None and contact_sheet is None:
        raise ValueError("nothing to write: name a folder with --out, a picture with --contact-sheet, or both.")
    if contact_sheet is not None and (contact_sheet.suffix.lower() != ".png" or contact_sheet.is_dir()):
        raise ValueError(f"{contact_sheet} is no name of a picture: let it end in .png.")
    market, logs = make_market(market_options), make_logs(log_options, market_options.seed)
    if out is not None:
        simulate_market(settings, market, out, logs, console)
        drop = out / "drop"
        console.print(f"{drop} holds the logs: OSMF_SOURCE_PATH={drop} lets `dagster dev` read them.", soft_wrap=True)
    if contact_sheet is not None:
        with console.status("Searching for each segment's favourite"):
            draw_contact_sheet(market, contact_sheet)
        text = f"{contact_sheet} shows what each segment likes, and each picture's true click rates."
        console.print(text, soft_wrap=True)


def make_logs(options: LogOptions, seed: int) -> Logs:
    """Returns how the logs are written.

    Raises:
        ValueError: when a setting is impossible.
    """
    from osmf_models.simulator.mess import CLEAN, USUAL
    from osmf_models.simulator.serving import Policy
    from osmf_pipelines.spark.simulate_logs import Logs

    bad_days = {
        name: _day_indices(getattr(options, name), options.num_days)
        for name in ("missing_days", "half_days", "drifted_days")
    }
    return Logs(
        _first_day(options.first_date),
        options.num_days,
        options.impressions_per_day,
        seed,
        Policy(options.policy, options.epsilon, _numbers(options.propensities), options.position_bias),
        replace(USUAL if options.is_messy else CLEAN, **bad_days),  # type: ignore[arg-type]
    )


def make_market(options: MarketOptions) -> Market:
    """Returns the market.

    Raises:
        ValueError: when a setting is impossible, a scope unknown, or a file of the own products wrong.
    """
    from osmf_models.simulator.easy import BASE_RATE as EASY_BASE_RATE
    from osmf_models.simulator.easy import easy_market
    from osmf_models.simulator.market import with_products, with_scopes
    from osmf_models.simulator.own_products import read_own_products
    from osmf_models.simulator.realistic import BASE_RATE, realistic_market

    if options.seed < 0:
        raise ValueError(f"seed is {options.seed}: it must not be negative.")
    make, base_rate = {"realistic": (realistic_market, BASE_RATE), "easy": (easy_market, EASY_BASE_RATE)}[
        options.market
    ]
    market = make(
        options.seed,
        image_px=options.image_px,
        num_products_per_scope=options.num_products_per_scope,
        num_creatives_per_product=options.num_creatives_per_product,
        num_users=options.num_users,
    )
    if options.own_products is not None:
        market = with_products(market, read_own_products(options.own_products, options.seed, base_rate))
    return with_scopes(market, list(options.scopes)) if options.scopes else market


def simulate_market(settings: Settings, market: Market, out: Path, logs: Logs, console: Console) -> None:
    """Writes a simulated market into `out`, with a bar for each part; goes on where it was interrupted.

    Args:
        settings: of the Spark session.
        market: to simulate.
        out: an empty or new folder, or one that holds a part of these logs.
        logs: how many days of what.
        console: where progress goes.

    Raises:
        ValueError: when a setting is impossible, or `out` holds something else.
    """
    from osmf_pipelines.spark.session import get_spark
    from osmf_pipelines.spark.simulate_logs import check_request, simulate_logs

    check_request(market, out, logs)
    columns = (TextColumn("    {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        parts = {}

        def show(name: str, share: float) -> None:
            if name not in parts:
                parts[name] = bars.add_task(name, total=1.0)
            bars.update(parts[name], completed=share)

        simulate_logs(get_spark(settings), market, out, logs, show)


def _first_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no day: write it as YYYY-MM-DD.") from None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{text!r} are no propensities: write numbers with commas between, as 0.5,0.3,0.2.") from None


def _day_indices(numbers: tuple[int, ...], num_days: int) -> tuple[int, ...]:
    for number in numbers:
        if not 1 <= number <= num_days:
            raise ValueError(f"there is no day {number}: days are counted from 1 to {num_days}.")
    return tuple(number - 1 for number in numbers)
