"""What came of a closed loop: click rates per day and arm, its JSON, its plot and its table.

Keys of the report are documented in docs/closed_loop.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from osmf_models.evaluation.ab import SUM_NAMES, ArmSums
from osmf_models.evaluation.ab_readout import ReadOut
from osmf_pipelines.bench.closed_loop_round import CHALLENGER, CHAMPION, CONTROL, EXPLORE, ONE_SIZE
from osmf_pipelines.spark.experiment_arms import sum_arms, sum_users

mpl.use("Agg")
from matplotlib import pyplot as plt

FORMAT = "osmf-closed-loop/1"
_COLOURS = {CONTROL: "#555555", ONE_SIZE: "#E69F00", CHAMPION: "#0072B2", CHALLENGER: "#D55E00", EXPLORE: "#BBBBBB"}
_LABELS = {
    CONTROL: "best logged picture, one for all",
    ONE_SIZE: "global DPO, one for all",
    CHAMPION: "champion, one for each group",
    CHALLENGER: "challenger, one for each group",
    EXPLORE: "any picture at random",
}


def count_day(exposures: DataFrame, day: date, *, min_users: int) -> dict[str, ArmSums]:
    """Returns the sums of each arm on a day, `explore` for who is in none. Collects sums to the driver.

    Args:
        exposures: `silver_exposures`.
        day: of the loop.
        min_users: privacy floor of an arm.
    """
    own = exposures.where(F.col("event_date") == day).withColumn("arm", F.coalesce("arm", F.lit(EXPLORE)))
    rows = sum_arms(sum_users(own, None), min_users=min_users).where("arm IS NOT NULL").collect()
    return {row["arm"]: ArmSums(*(int(row[name]) for name in SUM_NAMES)) for row in rows}


def day_rows(
    day: date, number: int, sums: Mapping[str, ArmSums], exact: Mapping[str, float], versions: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Returns the report's rows of a day.

    Args:
        day: of the loop.
        number: of its round, from 1.
        sums: by arm, from the lake.
        exact: expected clicks an impression by arm, by the truth.
        versions: of the models, by arm.
    """
    rows = []
    for arm in sorted(sums, key=list(_LABELS).index):
        low, high = sums[arm].rate_interval or (None, None)
        rows.append(
            {
                "day": day.isoformat(),
                "round": number,
                "arm": arm,
                "model_version": versions.get(arm, ""),
                "num_users": sums[arm].num_users,
                "num_impressions": sums[arm].num_impressions,
                "num_clicks": sums[arm].num_clicks,
                "click_rate": sums[arm].click_rate,
                "click_rate_low": low,
                "click_rate_high": high,
                "exact_click_rate": exact[arm],
            }
        )
    return rows


def lifts_of(readout: ReadOut) -> dict[str, dict[str, float | None]]:
    """Returns by arm the lift over the read-out's control with the ends of its interval; nothing of an unsound one."""
    if not readout.is_sound:
        return {}
    return {
        one.arm: {"lift": one.found.lift, "lift_low": one.found.lift_low, "lift_high": one.found.lift_high}
        for one in readout.overall
    }


def plot_loop(report: Mapping[str, Any], path: Path) -> None:
    """Draws the click rate of each arm by day with its interval, and a dash at what it exactly earns.

    Args:
        report: as in docs/closed_loop.md.
        path: PNG to write.
    """
    days = sorted({row["day"] for row in report["days"]})
    figure, axis = plt.subplots(figsize=(9.5, 5.2))
    arms = [arm for arm in _LABELS if any(row["arm"] == arm for row in report["days"])]
    for place, arm in enumerate(arms):
        own = [row for row in report["days"] if row["arm"] == arm]
        shift = 0.1 * (place - (len(arms) - 1) / 2)
        _draw_arm(axis, arm, own, [days.index(row["day"]) + shift for row in own])
    axis.plot([], [], "_", color="black", ms=9, mew=1.2, label="exactly, by the truth")
    _draw_rounds(axis, report["rounds"], days)
    axis.set_xticks(range(len(days)), days, fontsize=8)
    axis.set_xlim(-0.6, len(days) - 0.4)
    axis.set_ylabel("clicks per 100 impressions, 95% intervals by user")
    axis.grid(axis="y", lw=0.3)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=3, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_arm(axis: Any, arm: str, rows: Sequence[Mapping[str, Any]], at: Sequence[float]) -> None:
    """Draws an arm's days at their places; a line joins those of one round."""
    colour = _COLOURS[arm]
    names = ("click_rate", "exact_click_rate", "click_rate_low", "click_rate_high")
    rate, exact, low, high = ([None if row[name] is None else 100 * row[name] for row in rows] for name in names)
    for number in sorted({row["round"] for row in rows}):
        own = [place for place, row in enumerate(rows) if row["round"] == number]
        axis.plot([at[place] for place in own], [rate[place] for place in own], color=colour, lw=1.2)
    for x, *ends in zip(at, low, high, strict=True):
        if None not in ends:
            axis.plot([x, x], ends, color=colour, lw=1.6)
    axis.plot(at, rate, "o", color=colour, ms=4.5, label=_LABELS[arm])
    axis.plot(at, exact, "_", color="black", ms=9, mew=1.2)


def _draw_rounds(axis: Any, rounds: Sequence[Mapping[str, Any]], days: Sequence[str]) -> None:
    for one in rounds:
        first = days.index(one["first_day"])
        if first:
            axis.axvline(first - 0.5, color="black", lw=0.8, ls=":")
        told = f"champion v{one['champion']}"
        if one["challenger"] is not None:
            told += f"\nchallenger v{one['challenger']}: {'promoted' if one['is_promoted'] else 'not promoted'}"
        over = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
        axis.annotate(told, (first - 0.45, 1.0), fontsize=8, **over)


def print_loop(report: Mapping[str, Any], console: Console) -> None:
    """Prints click rates by arm and day, and what was decided after each round."""
    days = sorted({row["day"] for row in report["days"]})
    table = Table("clicks per 100 impressions", *(day[5:] for day in days), title_justify="left")
    table.title = f"Closed loop from {days[0]}: click rate of each arm by day"
    rate_of = {(row["arm"], row["day"]): 100 * row["click_rate"] for row in report["days"]}
    for arm in (arm for arm in _LABELS if any(one == arm for one, _ in rate_of)):
        table.add_row(_LABELS[arm], *(f"{rate_of[arm, day]:.2f}" if (arm, day) in rate_of else "" for day in days))
    console.print(table)
    for one in report["rounds"]:
        console.print(escape(round_told(one)), soft_wrap=True, highlight=False)


def round_told(outcome: Mapping[str, Any]) -> str:
    """Returns a round in a line: what the champion earned over the control, and what became of the challenger."""
    told = f"round {outcome['number']}: champion v{outcome['champion']}"
    found = outcome["lifts"].get(CHAMPION, {})
    if found.get("lift") is not None:
        told += f" {found['lift']:+.1%} over the best logged picture"
    if found.get("lift_low") is not None:
        told += f" ({found['lift_low']:+.1%} to {found['lift_high']:+.1%})"
    if outcome["challenger"] is None:
        return told
    if outcome["is_promoted"]:
        return f"{told}; challenger v{outcome['challenger']} is champion now"
    return f"{told}; challenger v{outcome['challenger']} is not: {'; '.join(outcome['reasons'])}"
