"""From the rows of `osmf bench grouping` to its JSON report and its plot.

Keys of the report are documented in docs/grouping.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from osmf_pipelines.bench.grouping import FORMAT, LEVEL_CLICKS

mpl.use("Agg")
from matplotlib import pyplot as plt

_OF = ["market", "condition"]
_MARKET_COLOURS = {"easy": "#1b6ca8", "realistic": "#c0392b", "realistic, blind": "#6c3483"}
_KIND_STYLES = {"strong": "-", "mild": "--"}
_COLOURS = {"adaptive": "#1b6ca8", "kmeans": "#d98324", "attribute_cross": "#7a7a7a", "one_group": "#b8b8b8"}


@dataclass(frozen=True)
class BenchFrames:
    """What was measured.

    Attributes:
        scopes: rows of `score_case`.
        unseen: rows of `score_unseen`.
        stability: market, condition, seed, scope, users_kept_share, num_groups.
        changes: condition, seed, clicks_wanted (of a week), num_days (NaN where it was not found).
    """

    scopes: pd.DataFrame
    unseen: pd.DataFrame
    stability: pd.DataFrame
    changes: pd.DataFrame


def summarise(frames: BenchFrames, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the report; `settings` are what was run."""
    order = ["market", "condition", "clicks_wanted", "seed", "scope", "method"]
    rows = frames.scopes.sort_values(order, ignore_index=True)
    return {
        "format": FORMAT,
        "settings": settings,
        "recovery": _recovery(rows),
        "agreeing": _agreeing(rows),
        "methods": _methods(rows),
        "unseen": _unseen(frames.unseen),
        "stability": _stability(frames.stability),
        "taste_change": _changes(frames.changes),
        "scopes": rows.astype(object).where(rows.notna(), None).to_dict("records"),
    }


def _recovery(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Adjusted Rand index of the adaptive groups by market, condition, kind of scope and clicks."""
    found = []
    adaptive = rows[(rows.method == "adaptive") & (rows.kind != "agreeing")]
    for keys, part in adaptive.groupby([*_OF, "kind", "clicks_wanted"]):
        index = part.adjusted_rand_index
        found.append(
            {
                **dict(zip(("market", "condition", "kind", "clicks_wanted"), keys, strict=True)),
                "num_scopes": len(part),
                "num_scopes_with_index": int(index.notna().sum()),
                "adjusted_rand_index_mean": _number(index.mean()),
                "adjusted_rand_index_min": _number(index.min()),
                "num_segments_mean": float(part.num_segments.mean()),
                "num_groups_mean": float(part.num_groups.mean()),
            }
        )
    return found


def _agreeing(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """How many scopes without disagreement were divided, by clicks."""
    found = []
    adaptive = rows[(rows.method == "adaptive") & (rows.kind == "agreeing")]
    for keys, part in adaptive.groupby([*_OF, "clicks_wanted"]):
        num_split = int((part.num_groups > 1).sum())
        told = {"num_scopes": len(part), "num_split": num_split, "split_share": num_split / len(part)}
        found.append({**dict(zip((*_OF, "clicks_wanted"), keys, strict=True)), **told})
    return found


def _methods(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The ways to form groups side by side, over the seeds that all of them were run on."""
    found = []
    level = rows[rows.clicks_wanted == LEVEL_CLICKS]
    seeds = set(level[level.method == "kmeans"].seed) or set(level.seed)
    for keys, part in level[level.seed.isin(seeds)].groupby([*_OF, "method"]):
        gains, by_seed = _gain_by_seed(part, "heldout"), part.groupby("seed")
        found.append(
            {
                **dict(zip((*_OF, "method"), keys, strict=True)),
                "num_scopes": len(part),
                "heldout_gain_per_1000_mean": float(np.mean(gains)),
                "heldout_gain_per_1000_by_seed": gains,
                "num_scopes_with_index": int(part.adjusted_rand_index.notna().sum()),
                "adjusted_rand_index_mean": _number(part.adjusted_rand_index.mean()),
                "adjusted_rand_index_by_seed": [_number(mean) for mean in by_seed.adjusted_rand_index.mean()],
                "ctr_share_of_oracle_mean": float(part.ctr_share_of_oracle.mean()),
                "ctr_share_of_oracle_by_seed": by_seed.ctr_share_of_oracle.mean().tolist(),
                "num_groups_mean": float(part.num_groups.mean()),
                "seconds_mean": float(part.seconds.mean()),
            }
        )
    return found


def _unseen(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The ways to form groups, judged on later days of products that they never saw."""
    found = []
    for keys, part in rows.groupby([*_OF, "method"]):
        gains = _gain_by_seed(part, "unseen")
        told = {"unseen_gain_per_1000_mean": float(np.mean(gains)), "unseen_gain_per_1000_by_seed": gains}
        found.append({**dict(zip((*_OF, "method"), keys, strict=True)), "num_scopes": len(part), **told})
    return found


def _gain_by_seed(part: pd.DataFrame, what: str) -> list[float]:
    """Gain of all scopes of a market together, per 1000 effective impressions of what it was judged on."""
    shown = part[f"{what}_impressions"]
    total = (part[f"{what}_gain_per_1000"] * shown).groupby(part.seed).sum()
    return (total / shown.groupby(part.seed).sum()).tolist()


def _stability(stability: pd.DataFrame) -> list[dict[str, Any]]:
    """Users kept in the scopes that are divided; a scope of one group keeps them all, whatever happens."""
    found = []
    for keys, part in stability.groupby(_OF):
        divided = part[part.num_groups > 1]
        told = {
            "num_scopes": len(part),
            "num_scopes_divided": len(divided),
            "users_kept_share_mean": _number(divided.users_kept_share.mean()),
            "users_kept_share_min": _number(divided.users_kept_share.min()),
        }
        found.append({**dict(zip(_OF, keys, strict=True)), **told})
    return found


def _changes(changes: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    for keys, part in changes.groupby(["condition", "clicks_wanted"]):
        days = [None if np.isnan(day) else int(day) for day in part.num_days]
        found.append({"condition": keys[0], "clicks_per_week": int(keys[1]), "days_until_found": days})
    return found


def _number(value: float) -> float | None:
    """A number as JSON has them: what could not be measured is None."""
    return None if np.isnan(value) else float(value)


def plot(report: dict[str, Any], path: Path) -> None:
    """Draws what the report says: recovery by clicks for each kind of users, held-out gain and click rate by method."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    recovery, methods = pd.DataFrame(report["recovery"]), pd.DataFrame(report["methods"])
    for axis, (condition, part) in zip(axes[0], recovery.groupby("condition"), strict=False):
        _plot_recovery(axis, part)
        axis.set_title(f"planted segments found, {condition} users and pictures", fontsize=10)
    gain, rate = "heldout_gain_per_1000_mean", "ctr_share_of_oracle_mean"
    _plot_methods(axes[1, 0], methods, gain, "log-likelihood gained over one group, held-out users")
    _plot_methods(axes[1, 1], methods, rate, "click rate of each group's best picture, of the best per user")
    axes[1, 1].set_ylim(0.0, 1.15)
    axes[1, 1].legend(fontsize=8, loc="upper right", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_recovery(axes: Any, recovery: pd.DataFrame) -> None:
    for (market, kind), part in recovery.groupby(["market", "kind"]):
        style = _KIND_STYLES.get(kind, ":")
        label = f"{market}, {kind}"
        means = part.adjusted_rand_index_mean
        axes.plot(part.clicks_wanted, means, style, color=_MARKET_COLOURS.get(market), marker="o", ms=3, label=label)
    axes.set(xscale="log", xlabel="clicks of the scope", ylabel="adjusted Rand index", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def _plot_methods(axes: Any, methods: pd.DataFrame, column: str, title: str) -> None:
    table = methods.pivot_table(index=["market", "condition"], columns="method", values=column)
    names = [name for name in _COLOURS if name in table]
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        places = np.arange(len(table)) + (number - (len(names) - 1) / 2) * width
        axes.bar(places, table[name], width, color=_COLOURS[name], label=name)
    labels = [f"{market}\n{condition}".replace(", ", ",\n") for market, condition in table.index]
    axes.set_xticks(np.arange(len(table)), labels, fontsize=8)
    axes.axhline(0.0, color="black", lw=0.6)
    axes.set_title(title, fontsize=10)
