"""From simulated experiments to the JSON report of `osmf bench ab`, its plot and its tables.

Keys of the report are documented in docs/ab.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from osmf_models.evaluation.ab_readout import ReadOut, as_json
from osmf_pipelines.bench.ab import AGAIN, judge

mpl.use("Agg")
from matplotlib import pyplot as plt

FORMAT = "osmf-bench-ab/1"
_MAX_GROUPS_DRAWN = 40


def summarise(
    readout: ReadOut,
    replications: pd.DataFrame,
    same: pd.DataFrame,
    alarms: dict[str, float],
    *,
    exact: dict[tuple[str, str | None, str | None], float],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Returns the report.

    Args:
        readout: of the first replication, the experiment that is told of.
        replications: rows of `ab.replicate`.
        same: rows of `ab.replicate_same`.
        alarms: of the sample-ratio check.
        exact: clicks an impression that each arm earns, of everyone and of each group.
        settings: what was run.
    """
    lift = settings["lift"]
    first = replications[replications.replication == 0].astype(object)
    shown = ["arm", "scope", "group_id", "difference", "difference_low", "difference_high", "true_difference"]
    return {
        "format": FORMAT,
        "settings": settings,
        "exact_rates": [
            {"arm": arm, "scope": scope, "group_id": group_id, "true_click_rate": rate}
            for (arm, scope, group_id), rate in exact.items()
        ],
        "experiment": as_json(readout, lift=lift),
        "against_truth": [
            dict(row) for row in first[shown].where(first[shown].notna(), None).to_dict(orient="records")
        ],
        "replications": [
            {"arm": arm, "among": among} | judge(rows)
            for arm, part in (*replications.groupby("arm", sort=False), *same.groupby("arm", sort=False))
            for among, rows in (("everyone", part[part.group_id.isna()]), ("groups", part[part.group_id.notna()]))
        ],
        "sample_ratio": alarms,
    }


def plot(report: dict[str, Any], path: Path) -> None:
    """Draws the experiment's intervals against the exact differences, everyone and in groups."""
    rows = [row for row in report["against_truth"] if row["difference_low"] is not None]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    figure, axes = plt.subplots(1, max(len(arms), 1), figsize=(5.5 * max(len(arms), 1), 5), squeeze=False, sharex=True)
    for axis, arm in zip(axes[0], arms, strict=False):
        own = [row for row in rows if row["arm"] == arm][:_MAX_GROUPS_DRAWN]
        for place, row in enumerate(own):
            low, high, value, true = (
                100 * row[name] for name in ("difference_low", "difference_high", "difference", "true_difference")
            )
            axis.plot([low, high], [place, place], color="#0072B2", lw=1.2)
            axis.plot(value, place, "o", color="#0072B2", ms=4, label="read out" if place == 0 else None)
            axis.plot(true, place, "|", color="#D55E00", ms=12, mew=2, label="exact" if place == 0 else None)
        names = ["everyone" if row["group_id"] is None else f"{row['scope']} {row['group_id'][:12]}" for row in own]
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.axvline(0, color="black", lw=0.6)
        axis.set_title(f"{arm} − {report['experiment']['experiment']['control']}".replace("_", " "), fontsize=9)
        axis.set_xlabel("clicks per 100 impressions, with 95% intervals")
        axis.legend(fontsize=7)
        axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def print_report(report: dict[str, Any], console: Console) -> None:
    """Prints what the read-outs are worth over the replications."""
    settings = report["settings"]
    table = Table(title=f"{settings['num_replications']} experiments of {settings['num_users']:,} users")
    names = (
        "arm",
        "among",
        "exact lift",
        "95% intervals hold it",
        "of the lift",
        "found (p < 0.05)",
        "expected",
        "could find",
    )
    for name in names:
        table.add_column(name, justify="left" if name in ("arm", "among") else "right")
    for row in report["replications"]:
        shares = [row[name] for name in ("covered_share", "lift_covered_share", "significant_share")]
        shares.append(row["expected_significant_share"])
        lifts = [_percent(row["true_lift"], "+.1%"), *(_percent(share, ".1%") for share in shares)]
        name = f"control, {AGAIN} (A/A)" if row["arm"] == AGAIN else row["arm"]
        table.add_row(escape(name), row["among"], *lifts, _percent(row["detectable_lift_mean"], ".1%"))
    console.print(table)
    alarms = report["sample_ratio"]
    console.print(
        f"the sample-ratio check alarms in {alarms['alarm_share']:.1%} of them, and where one arm loses "
        f"{alarms['lost_share']:.0%} of its users in {alarms['alarm_share_when_lost']:.1%}",
        soft_wrap=True,
        highlight=False,
    )


def _percent(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
