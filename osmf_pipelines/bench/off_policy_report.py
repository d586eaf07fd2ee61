"""From the replications of `osmf bench off-policy` to its JSON report and its plot.

Keys of the report are documented in docs/off_policy.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from osmf_pipelines.bench.off_policy import OTHER_LOGS

mpl.use("Agg")
from matplotlib import pyplot as plt

FORMAT = "osmf-bench-off-policy/1"
WANTED_SHARE = (0.93, 0.97)
_OF = ["logging_policy", "impressions", "chosen_on", "policy", "compared_with", "estimator"]
_MARKERS = {"on_policy": "o", "ips": "s", "snips": "^", "dr": "D"}


def summarise(
    replications: pd.DataFrame, open_bandit: list[dict[str, Any]] | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Returns the report.

    Args:
        replications: rows of `off_policy.replicate`, with logging_policy and impressions.
        open_bandit: rows of `policy_values` of the Open Bandit logs, or None where they were not looked at.
        settings: what was run.
    """
    found = [
        dict(zip(_OF, (None if key == "" else key for key in keys), strict=True)) | judge(part)
        for keys, part in replications.fillna({"compared_with": ""}).groupby(_OF, sort=False)
    ]
    return {"format": FORMAT, "settings": settings, "coverage": found, "open_bandit": open_bandit}


def judge(part: pd.DataFrame) -> dict[str, Any]:
    """Returns what one estimate is worth over its replications.

    Args:
        part: true_value, value, value_low, value_high, effective_clicks and effective_impressions of each.
    """
    known = part.dropna(subset=["value_low", "value"])
    is_covered = (known.value_low <= known.true_value) & (known.true_value <= known.value_high)
    error = known.value - known.true_value
    figures = {
        "covered_share": is_covered.mean(),
        "true_value_mean": part.true_value.mean(),
        "error_mean": error.mean(),
        "error_spread": error.std(),
        "width_mean": (known.value_high - known.value_low).mean(),
        "effective_clicks_mean": part.effective_clicks.mean(),
        "effective_impressions_mean": part.effective_impressions.mean(),
    }
    return {
        "num_replications": len(part),
        "num_without_interval": len(part) - len(known),
        **{name: float(value) if np.isfinite(value) else None for name, value in figures.items()},
    }


def plot(report: dict[str, Any], path: Path) -> None:
    """Draws the share of intervals that hold the truth, and the Open Bandit logs' differences where there are any."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    rows = [row for row in report["coverage"] if row["chosen_on"] == OTHER_LOGS]
    labels = list(dict.fromkeys(_label(row) for row in rows))
    rows = [row for row in rows if row["covered_share"] is not None]
    axes[0].axvspan(*WANTED_SHARE, color="#dddddd")
    for estimator, marker in _MARKERS.items():
        points = [(row["covered_share"], labels.index(_label(row))) for row in rows if row["estimator"] == estimator]
        if points:
            axes[0].plot(*zip(*points, strict=True), marker=marker, ls="", ms=4, label=estimator.replace("_", " "))
    axes[0].set_yticks(range(len(labels)), labels, fontsize=6)
    axes[0].set_xlabel("share of 95% intervals that hold the exact value")
    axes[0].legend(fontsize=7)
    axes[0].invert_yaxis()
    _plot_open_bandit(axes[1], report["open_bandit"] or [])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _label(row: dict[str, Any]) -> str:
    against = f" − {row['compared_with']}" if row["compared_with"] else ""
    return f"{row['logging_policy']}, {row['impressions']:,}: {row['policy']}{against}".replace("_", " ")


def _plot_open_bandit(axes: Any, rows: list[dict[str, Any]]) -> None:
    drawn = [row for row in rows if row["compared_with"] == "own_logs" and row["value_low"] is not None]
    if not drawn:
        axes.set_axis_off()
        return
    for place, row in enumerate(drawn):
        axes.plot([row["value_low"], row["value_high"]], [place, place], color="#0072B2", lw=1)
        axes.plot(row["value"], place, color="#0072B2", marker=_MARKERS[row["estimator"]], ms=4)
    names = [f"{row['scope'] or 'all campaigns'}, {row['estimator'].upper()}" for row in drawn]
    axes.set_yticks(range(len(drawn)), names, fontsize=7)
    axes.axvline(0, color="black", lw=0.6)
    axes.set_xlabel("clicks an impression, off its own logs − on them")
    axes.set_title("Open Bandit logs: Thompson sampling", fontsize=10)
    axes.invert_yaxis()


def as_rows(values: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns rows of `policy_values` as plain numbers and texts, null where there is nothing."""
    plain = values.drop(columns="as_of_date").astype(object).replace({np.nan: None})
    return [dict(row) for row in plain.to_dict(orient="records")]
