"""`osmf bench`: the benchmarks."""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from osmf_models.recipes import RECIPES
from osmf_pipelines.settings import Settings


class PlantedMarketName(StrEnum):
    """A simulated market, and what is seen of its pictures."""

    EASY = "easy"
    REALISTIC = "realistic"
    BLIND = "realistic, blind"


class LoggingPolicyName(StrEnum):
    """What shows the pictures that policies are valued on."""

    UNIFORM = "uniform"
    EPSILON_GREEDY = "epsilon greedy"


Markets = Annotated[
    list[PlantedMarketName] | None, typer.Option("--market", help="only this one (may be repeated); all of them")
]
bench_app = typer.Typer(
    help="Benchmarks on planted truth, and of the speed of training and its data: JSON each.", no_args_is_help=True
)
_console = Console()


@bench_app.command()
def grouping(
    output: Annotated[Path, typer.Option(help="folder to write grouping.json and grouping.png into")] = Path("bench"),
    market: Markets = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="market to simulate (may be repeated); default 1, 2, 3")
    ] = None,
    clicks: Annotated[
        list[int] | None, typer.Option(help="clicks of a scope (may be repeated); default 1000, 3000, 10000, 30000")
    ] = None,
    agreeing: Annotated[int, typer.Option(help="further scopes that agree, for each kind of users")] = 200,
) -> None:
    """Groups found against planted segments: Rand index, held-out likelihood, stability; four ways to form them."""
    from osmf_pipelines.bench.run_grouping import run_grouping_bench

    run_grouping_bench(
        Settings(),
        output,
        markets=[one.value for one in market or PlantedMarketName],
        seeds=seed or [1, 2, 3],
        clicks=clicks or [1_000, 3_000, 10_000, 30_000],
        num_agreeing=agreeing,
        console=_console,
    )


@bench_app.command("pair-quality")
def pair_quality(
    output: Annotated[Path, typer.Option(help="folder to write pair_quality.json and pair_quality.png into")] = Path(
        "bench"
    ),
    market: Markets = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="market to simulate (may be repeated); default 1, 2, 3")
    ] = None,
    impressions: Annotated[
        list[int] | None,
        typer.Option(help="impressions of a creative in one segment (may be repeated); default 300, 1000, 3000"),
    ] = None,
) -> None:
    """Preference pairs against the truth: calibration, wrong pairs, recall, coverage of intervals, position bias."""
    from osmf_pipelines.bench.run_pair_quality import run_pair_bench

    run_pair_bench(
        Settings(),
        output,
        markets=[one.value for one in market or PlantedMarketName],
        seeds=seed or [1, 2, 3],
        impressions=impressions or [300, 1_000, 3_000],
        console=_console,
    )


@bench_app.command("off-policy")
def off_policy(
    output: Annotated[Path, typer.Option(help="folder to write off_policy.json and off_policy.png into")] = Path(
        "bench"
    ),
    logging_policy: Annotated[
        list[LoggingPolicyName] | None, typer.Option("--logging", help="only this one (may be repeated); both of them")
    ] = None,
    impressions: Annotated[
        list[int] | None, typer.Option(help="of a replication (may be repeated); default 60000")
    ] = None,
    replications: Annotated[int, typer.Option(min=2, help="of each case")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="market to simulate")] = 1,
    open_bandit: Annotated[bool, typer.Option(help="value the Open Bandit logs' policies too")] = True,
) -> None:
    """IPS, SNIPS and DR against exact values: whether 95% intervals hold them; and on the Open Bandit logs."""
    from osmf_pipelines.bench.run_off_policy import run_off_policy_bench

    run_off_policy_bench(
        Settings(),
        output,
        logging_policies=[one.value for one in logging_policy or LoggingPolicyName],
        impressions=impressions or [60_000],
        num_replications=replications,
        seed=seed,
        has_open_bandit=open_bandit,
        console=_console,
    )


@bench_app.command("ab")
def ab(
    output: Annotated[Path, typer.Option(help="folder to write ab.json and ab.png into")] = Path("bench"),
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="arm that a model draws: a training stage's output or a saved pipeline"),
    ] = None,
    products: Annotated[int, typer.Option(min=1, help="held-out products of each category that models draw")] = 4,
    users: Annotated[int, typer.Option(min=1, help="of an experiment, all arms together")] = 20_000,
    impressions: Annotated[int, typer.Option(min=1, help="of an experiment, on average")] = 400_000,
    replications: Annotated[
        int, typer.Option(min=2, help="of the experiment, and of the control against itself")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="market to simulate, where there is no model, and draws")] = 1,
    lift: Annotated[float, typer.Option(help="tell how many users it takes to find this lift")] = 0.05,
) -> None:
    """A simulated A/B test of pictures against exact click rates: intervals, power, the sample-ratio check.

    Without --model the arms are logged pictures: the best for all, and the best in each group. With --model the market,
    the groups and the held-out products are those of OSMF_HOME (as for osmf ablate), and each model is an arm.
    """
    from osmf_pipelines.bench.run_ab import run_ab_bench

    run_ab_bench(
        Settings(),
        output,
        models=model or [],
        num_products=products,
        num_users=users,
        impressions=impressions,
        num_replications=replications,
        seed=seed,
        lift=lift,
        console=_console,
    )


def _count(text: str) -> int:
    """Returns a number that may end in K, M or G.

    Raises:
        typer.BadParameter: when it is none.
    """
    unit = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:].upper(), 1)
    try:
        number = Fraction(text[:-1] if unit > 1 else text) * unit
    except (ValueError, ZeroDivisionError):
        number = Fraction(-1)
    if number < 0 or number.denominator != 1:
        raise typer.BadParameter(f"{text!r} is no number: write it like 250000, 250K or 1.5M.")
    return int(number)


@bench_app.command()
def pairs(
    output: Annotated[Path, typer.Option(help="folder to write pairs.json and pairs.png into")] = Path("bench"),
    impressions: Annotated[
        list[str] | None,
        typer.Option(help="of a size, such as 300K or 10M (may be repeated); default 1M where nothing else is asked"),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="of logs that a size is spread over")] = 1,
    refresh_days: Annotated[int, typer.Option(min=0, help="refresh as many days one after the other")] = 0,
    refresh_impressions: Annotated[str, typer.Option(help="of each of these days")] = "1M",
    groups: Annotated[
        str, typer.Option(help="form as many groups and their pairs from made-up sums, such as 600K; 0: none")
    ] = "0",
    cores: Annotated[int, typer.Option(min=1, help="for Spark, and for DuckDB")] = 2,
    driver_memory: Annotated[str, typer.Option(help="heap of the Spark driver, the same for all sizes")] = "2g",
    products: Annotated[int, typer.Option(min=1, help="of each category, eight pictures each")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="market to simulate")] = 1,
    peer: Annotated[bool, typer.Option(help="let DuckDB do the same and compare its tables")] = True,
    keep: Annotated[bool, typer.Option(help="keep logs and lakes below OUTPUT/work")] = False,
) -> None:
    """Times files to preference pairs by stage, beside DuckDB on the same files; day after day with --refresh-days.

    Growth is fitted to four sizes and more. The keys of the JSON are described in docs/scale.md.
    """
    from osmf_pipelines.bench.pairs_place import PairsBench
    from osmf_pipelines.bench.run_pairs import run_pairs_bench

    sizes = impressions or ([] if refresh_days or _count(groups) else ["1M"])
    bench = PairsBench(
        impressions=[_count(text) for text in sizes],
        num_days=days,
        refresh_days=refresh_days,
        refresh_impressions=_count(refresh_impressions),
        num_groups=_count(groups),
        num_cores=cores,
        driver_memory=driver_memory,
        num_products=products,
        seed=seed,
        has_peer=peer,
        keeps_files=keep,
    )
    run_pairs_bench(Settings(), output, bench, _console)


@bench_app.command()
def train(
    recipe: Annotated[str, typer.Option(help=f"a run of osmf_models/recipes.py: {', '.join(RECIPES)}")] = "demo",
    steps: Annotated[int, typer.Option(min=1, help="timed steps of each way, rounded up to blocks of 3")] = 30,
    output: Annotated[Path, typer.Option(help="JSON file to write")] = Path("bench_train.json"),
    ranks: Annotated[
        int | None, typer.Option(min=1, help="processes; default one, then two on a CPU or where there are two GPUs")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="replaces a field of the recipe (may be repeated)"),
    ] = None,
) -> None:
    """Times training with DeepSpeed against a plain PyTorch loop, on random data of the recipe's shape.

    Both train the same model in the same processes, in turns of 3 steps; figures are medians over the turns. No data is
    needed. On a GPU also: model FLOP utilisation, and peak memory by ZeRO stage. The keys of the JSON are described in
    docs/training.md.
    """
    from osmf_pipelines.bench.train import run_train_bench

    run_train_bench(recipe, steps, output, tuple(set_ or ()), ranks, _console)


@bench_app.command()
def loader(
    pictures: Annotated[
        int, typer.Option(min=16, help="of the export that is made, below TMPDIR: some 0.4 MB of disk each at 256 px")
    ] = 2048,
    image_px: Annotated[int, typer.Option(min=16, max=1024, help="side of the pictures")] = 256,
    batch_size: Annotated[int, typer.Option(min=2, help="samples of a batch, over all processes; even")] = 64,
    passes: Annotated[int, typer.Option(min=1, help="timed passes of each way, after one that is not timed")] = 3,
    output: Annotated[Path, typer.Option(help="JSON file to write")] = Path("bench_loader.json"),
) -> None:
    """Times how training reads its export against reading and decoding the same shards raw, by one process and by two.

    The export is synthetic and removed afterwards. A pass of the loader draws as many samples as there are pictures;
    one of the others takes every picture, or every byte, once, from first to last. Passes take turns, with files in the
    page cache; how much came from disk all the same is told. The keys of the JSON are described in docs/training.md.
    """
    from osmf_pipelines.bench.loader import run_loader_bench

    run_loader_bench(pictures, image_px, batch_size, passes, output, _console)
