"""Plots of `osmf ablate`: click rate against what pictures pay for it, what arms do for groups, and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from osmf_pipelines.bench.ablation_plan import CONTROLS, PRETRAINED, RECIPE

mpl.use("Agg")
from matplotlib import pyplot as plt

_WITHOUT_MODEL = ("random", "best_single", "oracle")
_FRONTIERS = {
    "picture_quality": "picture quality",
    "kernel_distance": "kernel distance from logged pictures (to the left is nearer)",
}
_BARS = {
    "worst_group_ctr": "click rate in the worst group",
    "groups_lifted_share": "share of groups lifted over pretrained",
    "contradiction_accuracy": "contradiction accuracy of the implicit reward",
}


def draw_ablation(report: dict[str, Any], path: Path) -> None:
    """Writes a PNG: click rate against quality and against kernel distance above, three figures of groups below."""
    arms = [arm for arm in report["arms"] if arm["arm"] not in _WITHOUT_MODEL]
    figure = plt.figure(figsize=(15, 10.5), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    for axis, name in zip(halves[0].subplots(1, 2, sharey=True), _FRONTIERS, strict=True):
        _draw_frontier(axis, arms, report, name)
    for axis, (name, title) in zip(halves[1].subplots(1, 3), _BARS.items(), strict=True):
        _draw_bars(axis, arms, name, title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_calibration(report: dict[str, Any], path: Path) -> None:
    """Writes a PNG: how sure the implicit reward is of its order of held-out pairs, against the label."""
    bins: dict[str, dict[float, list[dict[str, Any]]]] = {}
    for row in report["calibration"]:
        bins.setdefault(row["arm"], {}).setdefault(row["claimed_from"], []).append(row)
    figure, axis = plt.subplots(figsize=(6.2, 5.2), layout="constrained")
    axis.plot([0.5, 1.0], [0.5, 1.0], color="black", linewidth=0.8)
    for arm, found in bins.items():
        points = [_pooled(found[start]) for start in sorted(found)]
        axis.plot(*zip(*points, strict=True), marker="o", ms=4, color=_colour(arm), label=_name(arm))
    axis.set_xlabel("probability that the implicit reward gives to its order of a pair")
    axis.set_ylabel("label for that order, mean over held-out pairs")
    axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_frontier(axis: Any, arms: list[dict[str, Any]], report: dict[str, Any], name: str) -> None:
    for arm in (one for one in arms if one[name] is not None):
        colour, place = _colour(arm["arm"]), (arm[name], arm["mean_ctr"])
        axis.plot([arm[f"{name}_low"], arm[f"{name}_high"]], [place[1]] * 2, color=colour, lw=0.8)
        axis.plot([place[0]] * 2, [arm["mean_ctr_low"], arm["mean_ctr_high"]], color=colour, lw=0.8)
        axis.plot(
            *place, marker="*" if arm["arm"] == RECIPE else "o", ms=13 if arm["arm"] == RECIPE else 6, color=colour
        )
        axis.annotate(_name(arm["arm"]), place, (5, 5), textcoords="offset points", fontsize=7)
    for other in report["arms"]:
        if other["arm"] == "oracle" and name == "kernel_distance" and other[name] is not None:
            axis.axvline(other[name], color="#999999", linestyle=":", lw=0.8)
            axis.annotate("oracle", (other[name], 0.01), xycoords=("data", "axes fraction"), fontsize=6)
        if other["arm"] in ("random", "best_single"):
            axis.axhline(other["mean_ctr"], color="#999999", linestyle=":", lw=0.8)
            axis.annotate(
                _name(other["arm"]), (0.01, other["mean_ctr"]), xycoords=("axes fraction", "data"), fontsize=6
            )
    axis.margins(x=0.14, y=0.08)  # room for the names
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axis.set_xlabel(_FRONTIERS[name])
    axis.set_ylabel("mean true click rate")


def _draw_bars(axis: Any, arms: list[dict[str, Any]], name: str, title: str) -> None:
    axis.set_yticks(range(len(arms)), [_name(arm["arm"]) for arm in arms], fontsize=7)
    for place, arm in enumerate(arms):
        if arm[name] is None:
            continue
        axis.barh(place, arm[name], color=_colour(arm["arm"]), alpha=0.6)
        if arm.get(f"{name}_low") is not None:
            axis.plot([arm[f"{name}_low"], arm[f"{name}_high"]], [place, place], color="black", lw=1)
    if name == "contradiction_accuracy":
        axis.axvline(0.5, color="black", linestyle=":", lw=0.8)
    if name == "worst_group_ctr":
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axis.set_title(title, fontsize=9)
    axis.invert_yaxis()


def _pooled(rows: list[dict[str, Any]]) -> tuple[float, float]:
    total = sum(row["num_pairs"] for row in rows)
    claimed, right = (
        sum(row["num_pairs"] * row[name] for row in rows) / total for name in ("mean_claimed", "mean_right")
    )
    return claimed, right


def _colour(arm: str) -> str:
    if arm == RECIPE:
        return "#d62728"
    if arm == PRETRAINED:
        return "#000000"
    return "#7a7a7a" if arm in CONTROLS else "#1b6ca8"


def _name(arm: str) -> str:
    return arm.replace("_", " ")
