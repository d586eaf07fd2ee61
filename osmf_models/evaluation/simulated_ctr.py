"""True click rates of the groups that the pipeline found, and the set of cases on which every model is judged.

A found group's truth is the impression-weighted mean over its cells' planted segments. How pictures are drawn belongs
in `arms.py`, figures over products in `summary.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_models.data.dataset import TrainingExport
from osmf_models.simulator.market import Market
from osmf_models.simulator.truth import measure_pictures, mixed_click_rates, segment_weights

GROUP_CELL_COLUMNS = ("group_id", "scope", "cell", "num_impressions")
JUDGED_SPLITS = ("test", "validation")


@dataclass(frozen=True)
class FoundGroup:
    """A group as the pipeline found it, and who is really in it.

    Attributes:
        group_id: hash of its rule.
        scope: product category.
        description: in plain language.
        segment_weights: impressions of each planted segment among its cells.
    """

    group_id: str
    scope: str
    description: str
    segment_weights: dict[str, float]


@dataclass(frozen=True)
class EvaluationSet:
    """What every arm is judged on: each product is drawn for each group of its scope.

    Attributes:
        groups: judged groups.
        product_indices: by scope, rows of the export's products, held out of training.
        unjudged_group_ids: groups of scopes that have no held-out product.
        sha256: over the market, groups, products and day; figures compare only where it agrees.
        day: on which pictures are shown.
    """

    groups: tuple[FoundGroup, ...]
    product_indices: dict[str, list[int]]
    unjudged_group_ids: tuple[str, ...]
    sha256: str
    day: date

    def groups_of(self, scope: str) -> list[FoundGroup]:
        """Returns the judged groups of one scope."""
        return [group for group in self.groups if group.scope == scope]


def read_group_cells(path: Path) -> pd.DataFrame:
    """Reads which cells each group has and how many impressions they had.

    Raises:
        ValueError: when the file is missing, empty, or lacks a column.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: it should list the cells of each group.")
    cells = pd.read_parquet(path)
    missing = [name for name in GROUP_CELL_COLUMNS if name not in cells]
    if missing or cells.empty:
        raise ValueError(f"{path} needs rows with the columns {', '.join(GROUP_CELL_COLUMNS)}; missing: {missing}.")
    return cells


def found_groups(market: Market, export: TrainingExport, group_cells: pd.DataFrame) -> tuple[FoundGroup, ...]:
    """Returns the export's groups with their truth, by scope and size, largest first.

    Raises:
        ValueError: when a group of `group_cells` is not in the export, or a cell is not one of the market's.
    """
    descriptions = dict(zip(export.groups.group_id, export.groups.description, strict=True))
    unknown = sorted(set(group_cells.group_id) - set(descriptions))
    if unknown:
        raise ValueError(f"group {unknown[0]!r} has cells and is not in the export: use both of one day.")
    groups = []
    for (scope, group_id), rows in group_cells.groupby(["scope", "group_id"]):
        cells = rows.groupby("cell").num_impressions.sum()
        weights = segment_weights(market, str(scope), {str(cell): float(count) for cell, count in cells.items()})
        groups.append(FoundGroup(str(group_id), str(scope), str(descriptions[group_id]), weights))
    return tuple(sorted(groups, key=lambda group: (group.scope, -sum(group.segment_weights.values()), group.group_id)))


def exported_groups(export: TrainingExport) -> tuple[FoundGroup, ...]:
    """Returns the export's groups by scope and id, of whom nothing but the export is known."""
    rows = export.groups[~export.groups.is_scope_root].sort_values(["scope", "group_id"])
    return tuple(
        FoundGroup(str(group_id), str(scope), str(description), segment_weights={})
        for group_id, scope, description in zip(rows.group_id, rows.scope, rows.description, strict=True)
    )


def evaluation_set(
    market: Market | None, export: TrainingExport, groups: tuple[FoundGroup, ...], num_products_per_scope: int
) -> EvaluationSet:
    """Chooses the products: split test first, then validation, in the order of their ids.

    Args:
        market: the truth; None where there is none, which makes another set.
        export: holds the products.
        groups: to be judged.
        num_products_per_scope: at most.

    Raises:
        ValueError: when no group has a held-out product.
    """
    chosen = {}
    for scope in sorted({group.scope for group in groups}):
        rows = export.products[(export.products.scope == scope) & export.products.split.isin(JUDGED_SPLITS)]
        order = rows.assign(rank=rows.split.map(JUDGED_SPLITS.index)).sort_values(["rank", "product_id"])
        chosen[scope] = [int(index) for index in order.index[:num_products_per_scope]]
    judged = tuple(group for group in groups if chosen[group.scope])
    if not judged:
        raise ValueError("no scope has products of split test or validation: there is nothing to judge models on.")
    content = {
        "market": asdict(market) if market else None,
        "groups": [asdict(group) for group in judged],
        "products": [str(export.products.product_id[index]) for rows in chosen.values() for index in rows],
        "day": export.manifest.as_of_date,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    unjudged = tuple(group.group_id for group in groups if not chosen[group.scope])
    day = date.fromisoformat(export.manifest.as_of_date)
    return EvaluationSet(judged, {scope: rows for scope, rows in chosen.items() if rows}, unjudged, digest, day)


def judge(
    market: Market, group: FoundGroup, product_id: str, images: NDArray[np.floating], day: date
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns true click rates at position 1 in a group, and picture quality, both (B,).

    Args:
        market: the truth.
        group: for whom.
        product_id: product that every picture shows.
        images: RGB in [0, 1], (B, H, W, 3); rounded to 8 bits, as they would be served.
        day: on which they are shown.
    """
    served = np.round(np.clip(np.asarray(images, np.float64), 0.0, 1.0) * 255.0) / 255.0
    measured = measure_pictures(market, product_id, served)
    return mixed_click_rates(market, group.scope, group.segment_weights, product_id, measured, day), measured.quality
