"""Three pictures of an evaluation: what each arm draws for each group, each group's lift, and predicted against true.

Numbers belong in `summary.py`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from osmf_models.evaluation.simulated_ctr import EvaluationSet, FoundGroup

_CELL_INCHES = 0.95
_TITLE_WIDTH = 22
_MARKERS = "os^Dvp*X"


@dataclass(frozen=True)
class ShownPicture:
    """One picture of the grid: (H, W, 3) in [0, 1] and its true click rate in the group that it was drawn for."""

    image: NDArray[np.floating]
    true_ctr_rate: float


@dataclass(frozen=True)
class GridRow:
    """One product of the grid.

    Attributes:
        title: of the product.
        groups: columns of every block.
        pictures: by (arm, group_id); an arm that has none of the product is left out.
    """

    title: str
    groups: list[FoundGroup]
    pictures: dict[tuple[str, str], ShownPicture]


def grid_rows(
    titles: Sequence[str], cases: EvaluationSet, shown: Mapping[tuple[str, int, str], ShownPicture], arms: list[str]
) -> list[GridRow]:
    """Returns one product of each scope: the first of which every arm has pictures, or else the first of all.

    Args:
        titles: of all products, by their row.
        cases: what was judged.
        shown: the first picture of each (arm, product row, group).
        arms: of the grid.
    """
    rows = []
    for scope, indices in cases.product_indices.items():
        groups = cases.groups_of(scope)
        pictures = {
            index: {
                (arm, group.group_id): shown[arm, index, group.group_id]
                for arm in arms
                for group in groups
                if (arm, index, group.group_id) in shown  # a product may have no logged pictures
            }
            for index in indices
        }
        chosen = next((index for index in indices if len(pictures[index]) == len(arms) * len(groups)), indices[0])
        rows.append(GridRow(str(titles[chosen]), groups, pictures[chosen]))
    return rows


def draw_grid(rows: list[GridRow], arms: list[str], path: Path) -> None:
    """Writes a PNG with one block of columns per arm, one row per product, the group above and the rate below.

    A cell without a picture stays white.
    """
    num_columns = max(len(row.groups) for row in rows)
    figure = Figure(figsize=(_CELL_INCHES * num_columns * len(arms) + 0.4, 1.5 * _CELL_INCHES * len(rows) + 0.35))
    FigureCanvasAgg(figure)
    for block, arm in zip(figure.subfigures(1, len(arms), wspace=0.03, squeeze=False)[0], arms, strict=True):
        block.suptitle(arm.replace("_", " "), fontsize=10, y=0.99)
        axes = block.subplots(len(rows), num_columns, squeeze=False)
        block.subplots_adjust(left=0.02, right=0.98, top=0.9, bottom=0.04, wspace=0.08, hspace=0.5)
        for axis in axes.flat:
            axis.axis("off")
        for row, row_axes in zip(rows, axes, strict=True):
            for group, axis in zip(row.groups, row_axes, strict=False):
                if (arm, group.group_id) in row.pictures:
                    _show(axis, row.pictures[arm, group.group_id], short_description(group.description))
    figure.savefig(path, dpi=150, facecolor="white")


def draw_lifts(groups: pd.DataFrame, names: dict[str, str], models: list[str], path: Path) -> None:
    """Writes a PNG of bars: click rate of each model over that of the logged pictures, minus 1, per group.

    Args:
        groups: one row per (arm, group), as `summary.by_group` returns it.
        names: group_id to the text under its bars, in the order shown.
        models: arms shown; the oracle is a tick above each group.
        path: file to write.
    """
    rates = groups.pivot(index="group_id", columns="arm", values="true_ctr_rate").loc[list(names)]
    figure = Figure(figsize=(1.1 * len(names) + 2.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    places, width = np.arange(len(names)), 0.8 / len(models)
    for number, model in enumerate(models):
        lift = rates[model] / rates["random"] - 1
        axis.bar(places + (number - (len(models) - 1) / 2) * width, lift, width, label=model.replace("_", " "))
    oracle = rates["oracle"] / rates["random"] - 1
    axis.plot(places, oracle, linestyle="none", marker="_", markersize=22, color="black", label="oracle")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(places, [short_description(name) for name in names.values()], fontsize=6)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    axis.set_ylabel("true click rate against logged pictures")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def draw_predicted_lifts(groups: pd.DataFrame, arms: list[str], path: Path) -> None:
    """Writes a PNG: each group's lift as the reward model predicts it against the true one; large marks are means.

    Args:
        groups: one row per (arm, group), as `predicted_lift.lifts_by_group` returns it.
        arms: shown.
        path: file to write.
    """
    figure = Figure(figsize=(5.6, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for number, arm in enumerate(arms):
        rows, marker, color = groups[groups.arm == arm], _MARKERS[number % len(_MARKERS)], f"C{number}"
        axis.scatter(rows.true_log_lift, rows.predicted_log_lift, 14, color=color, marker=marker, alpha=0.5)
        true, predicted = rows.true_log_lift.mean(), rows.predicted_log_lift.mean()
        axis.scatter(true, predicted, 90, color=color, marker=marker, edgecolor="black", label=arm.replace("_", " "))
    axis.axline((0, 0), slope=1, color="black", linewidth=0.8)
    axis.set_xlabel("true: log click rate against logged pictures")
    axis.set_ylabel("predicted by the group reward model")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def short_description(text: str) -> str:
    """Returns the beginning of a description, in at most three short lines."""
    return textwrap.fill(textwrap.shorten(text, 3 * _TITLE_WIDTH - 6, placeholder=" …"), _TITLE_WIDTH)


def _show(axis: Axes, picture: ShownPicture, title: str) -> None:
    axis.imshow(np.clip(picture.image, 0, 1), interpolation="lanczos")
    axis.set_title(title, fontsize=4.5, pad=2)
    axis.text(0.5, -0.04, f"{picture.true_ctr_rate:.1%}", transform=axis.transAxes, ha="center", va="top", fontsize=6)
