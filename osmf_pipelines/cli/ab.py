"""`osmf ab`: the read-out of a logged experiment. Counting is in `spark/experiment_arms.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from osmf_models.evaluation.ab import check_lift
from osmf_models.evaluation.ab_readout import Comparison, ReadOut, read_readout, write_readout
from osmf_pipelines.settings import Settings

if TYPE_CHECKING:
    from osmf_pipelines.spark.lake import Lake

DEFAULT_LIFT = 0.05
_MAX_GROUPS_SHOWN = 40


def parse_split(texts: Sequence[str]) -> dict[str, float] | None:
    """Returns the planned share of users of each arm, together 1, from texts `ARM=SHARE`; None for no text.

    Raises:
        ValueError: when a text is none, an arm comes twice, or a share is not positive.
    """
    shares: dict[str, float] = {}
    for text in texts:
        arm, _, share = text.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = 0.0
        if not arm or arm in shares or not 0 < value < float("inf"):
            raise ValueError(f"--split {text!r}: write ARM=SHARE with a positive share, each arm once.")
        shares[arm] = value
    return {arm: share / sum(shares.values()) for arm, share in shares.items()} or None


def run_ab(
    settings: Settings,
    console: Console,
    experiment_id: str,
    *,
    first_date: date | None,
    last_date: date | None,
    control: str | None,
    split: Sequence[str],
    lift: float,
    output: Path | None,
) -> None:
    """Prints the read-out of an experiment, and writes it where `output` names a file.

    Args:
        settings: of the lake.
        console: to print to.
        experiment_id: as the logs name it.
        first_date: first day to count; None for the experiment's first.
        last_date: last day to count; None for its last.
        control: arm that others are held against; None for the one called `control`.
        split: planned shares of users, `ARM=SHARE`; none for equal ones.
        lift: whose sample size is told.
        output: JSON file to write.

    Raises:
        ValueError: when there is no such experiment or it cannot be compared, and, once the file is written, when it
            is not sound.
    """
    shares = parse_split(split)
    check_lift(lift)
    readout = read_out(
        settings,
        experiment_id,
        first_date=first_date,
        last_date=last_date,
        control=control,
        shares=shares,
        lift=lift,
        output=output,
    )
    print_readout(readout, console, lift=lift)
    if output is not None:
        console.print(f"read-out       {output}", soft_wrap=True, highlight=False, markup=False)
    if not readout.is_sound:
        raise ValueError(f"experiment {experiment_id!r} is not sound, no lift is told: {'; '.join(readout.faults)}.")


def read_out(
    settings: Settings,
    experiment_id: str,
    *,
    first_date: date | None = None,
    last_date: date | None = None,
    control: str | None = None,
    shares: Mapping[str, float] | None = None,
    lift: float = DEFAULT_LIFT,
    output: Path | None = None,
) -> ReadOut:
    """Returns the read-out of an experiment, and writes it where `output` names a file; arguments as `run_ab`.

    Raises:
        ValueError: when there is no such experiment or it cannot be compared.
    """
    from osmf_pipelines.resources.lake import LakeResource
    from osmf_pipelines.spark.assign import list_rules
    from osmf_pipelines.spark.experiment_arms import count_experiment, days_of_experiment, exposures_between

    lake = LakeResource(settings).lake
    exposures = lake.read("silver_exposures")
    start, _ = days_of_experiment(exposures, experiment_id)  # whatever part of it is read out
    groups_date = _groups_date(lake, start)
    rules = None
    if groups_date is not None:
        rules = list_rules(*(lake.read(name, (groups_date,)) for name in ("user_groups", "group_features")))
    counts = count_experiment(
        exposures_between(exposures, first_date, last_date),
        rules,
        experiment_id=experiment_id,
        groups_as_of=groups_date,
        control=control,
        planned_shares=shares,
        min_users=settings.min_group_users,
    )
    readout = ReadOut(counts)
    if output is not None:
        write_readout(output, readout, lift=lift)
    return readout


def show_readout(path: Path, console: Console) -> None:
    """Prints the read-out of a file.

    Raises:
        ValueError: when it is none.
    """
    print_readout(read_readout(path), console, lift=DEFAULT_LIFT)


def _groups_date(lake: Lake, first: date) -> date | None:
    """As of which day groups are read; None where none were ever published."""
    from osmf_pipelines.spark.experiment_arms import choose_groups_date

    if not lake.exists("user_groups"):
        return None
    dates = lake.read("user_groups").select("as_of_date").distinct().collect()
    return choose_groups_date([row["as_of_date"] for row in dates], first)


def print_readout(readout: ReadOut, console: Console, *, lift: float) -> None:
    """Prints arms, differences among everyone and in groups, and what the experiment could find."""
    told = readout.experiment
    title = f"Experiment {told.experiment_id}, {told.first_date} to {told.last_date}"
    arms = Table("arm", "drawn by", "users", "planned", "impressions", "clicks", "CTR", "95% interval")
    arms.title, arms.title_justify = escape(title), "left"
    for arm in readout.arms:
        sums = readout.sums_of(arm)
        assert sums is not None
        size = f"{sums.num_users:,}", f"{told.planned_shares[arm]:.1%}", f"{sums.num_impressions:,}"
        rate = f"{sums.num_clicks:,}", f"{sums.click_rate:.3%}", _percent(sums.rate_interval, "")
        arms.add_row(escape(arm), escape(_drawn_by(told.model_versions.get(arm, {}))), *size, *rate)
    console.print(arms)
    line = (
        f"sample ratio p = {readout.sample_ratio_p_value:.3g}; users in two arms: {told.num_crossed_users:,}, left out"
    )
    if told.num_left_out_impressions:
        line += f"; impressions without an arm or a user: {told.num_left_out_impressions:,}"
    console.print(line, soft_wrap=True, highlight=False)
    if not readout.is_sound:
        return
    _print_comparisons(readout.overall, f"Against {told.control}, everyone", console)
    if readout.by_group:
        as_of = f"groups as of {told.groups_as_of}, p corrected for {len(readout.by_group)} comparisons"
        _print_comparisons(readout.by_group, f"Against {told.control}, {as_of}", console)
    needed = readout.users_for_lift(lift)
    who = "too few clicks to tell" if needed is None else f"{needed:,} users like these in each arm"
    console.print(f"to find a lift of {lift:+.1%} in 80% of such tests: {who}", soft_wrap=True, highlight=False)


def _print_comparisons(comparisons: Sequence[Comparison], title: str, console: Console) -> None:
    table = Table(
        "arm", "group", "difference, points", "95% interval", "lift", "95% interval", "p (Holm)", "could find"
    )
    table.title, table.title_justify = escape(title), "left"
    for one in comparisons[:_MAX_GROUPS_SHOWN]:
        found = one.found
        group = "" if one.group_id is None else f"{one.scope} {one.group_id}"
        difference = f"{found.difference:+.3%}", _percent(_ends(found.difference_low, found.difference_high))
        told_lift = "" if found.lift is None else f"{found.lift:+.1%}"
        lift = told_lift, _percent(_ends(found.lift_low, found.lift_high), digits=1)
        p_value = "too few clicks" if one.holm_p_value is None else f"{one.holm_p_value:.2g}"
        could_find = "" if found.detectable_lift is None else f"{found.detectable_lift:.1%}"
        table.add_row(escape(one.arm), escape(group), *difference, *lift, p_value, could_find)
    console.print(table)
    if len(comparisons) > _MAX_GROUPS_SHOWN:
        console.print(f"{len(comparisons) - _MAX_GROUPS_SHOWN:,} more in the file that --output names", highlight=False)


def _drawn_by(versions: dict[str, int]) -> str:
    return ", ".join(version or "no model" for version in sorted(versions, key=lambda one: -versions[one]))


def _ends(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)


def _percent(ends: tuple[float, float] | None, sign: str = "+", digits: int = 3) -> str:
    return "" if ends is None else f"{ends[0]:{sign}.{digits}%} to {ends[1]:{sign}.{digits}%}"
