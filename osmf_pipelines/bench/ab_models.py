"""Arms of a simulated experiment that trained models draw: one picture for each held-out product and group of a home.

The export, its groups and the truth are those of a home, as `osmf ablate` opens it; the pictures are measured as they
would be served. Everyone in no group is shown the picture of the category's root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from osmf_models.config import DataConfig
from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.evaluation.arms import ModelArm, Sampling, model_pictures, read_model_arm
from osmf_models.evaluation.off_policy import Array
from osmf_models.evaluation.simulated_ctr import (
    EvaluationSet,
    FoundGroup,
    evaluation_set,
    found_groups,
    read_group_cells,
)
from osmf_models.simulator.market import Market, load_market
from osmf_models.simulator.truth import click_rates, everyone, measure_pictures
from osmf_pipelines.bench.ab_market import DAY, Arm
from osmf_pipelines.bench.ablation_market import MarketFiles

_MAX_USERS = 200_000


class ModelMarket:
    """A home's market with its groups, and the products held out of its training.

    Args:
        files: of the home.
        num_products: held-out products of each category, at most.

    Raises:
        ValueError: when its market has too many users to be looked at one by one, or no held-out product.
    """

    def __init__(self, files: MarketFiles, num_products: int):
        self.market: Market = load_market(files.truth)
        if self.market.population.num_users > _MAX_USERS:
            raise ValueError(
                f"the market of {files.home} has {self.market.population.num_users:,} users: the benchmark looks at "
                f"each of them, {_MAX_USERS:,} at most. Simulate one with fewer, osmf simulate --users."
            )
        self.export: TrainingExport = load_export(files.export, DataConfig())
        self._group_cells = read_group_cells(files.group_cells)
        groups = found_groups(self.market, self.export, self._group_cells)
        cases = evaluation_set(self.market, self.export, groups, num_products)
        roots = self._roots(cases)
        self.cases: EvaluationSet = replace(cases, groups=(*cases.groups, *roots))
        self._place = {group.group_id: 0 for group in roots}
        for ids in self.group_ids.values():
            self._place |= {group_id: place for place, group_id in enumerate(ids, start=1)}

    @property
    def group_ids(self) -> dict[str, list[str]]:
        """Ids of the groups of each scope, in the order that numbers them from 1."""
        found: dict[str, list[str]] = {}
        for (scope, group_id), _ in self._group_cells.groupby(["scope", "group_id"]):
            found.setdefault(str(scope), []).append(str(group_id))
        return found

    @property
    def cells(self) -> dict[str, list[list[str]]]:
        """Cells of each group, by scope, in the same order."""
        by_group = self._group_cells.groupby("group_id").cell.agg(list)
        return {scope: [by_group[group_id] for group_id in ids] for scope, ids in self.group_ids.items()}

    @property
    def is_sold(self) -> NDArray[np.bool_]:
        """Which products of the market are in the experiment, (P,)."""
        held_out = {
            str(self.export.products.product_id[row]) for rows in self.cases.product_indices.values() for row in rows
        }
        return np.array([product.product_id in held_out for product in self.market.products])

    def draw_arm(self, name: str, folder: Path, shape: tuple[int, int, int], work: Path) -> Arm:
        """Returns what a model's arm earns: exact rates of the pictures that it draws.

        Args:
            name: of the arm.
            folder: output of a training stage, or a saved pipeline.
            shape: (P, G, S).
            work: folder for what a saved pipeline needs to look like such an output.

        Raises:
            ValueError: when the folder holds neither.
        """
        place_of = {product.product_id: place for place, product in enumerate(self.market.products)}
        rates = np.zeros(shape)
        arm = _model_arm(name, folder, work)
        for case in model_pictures(arm, self.export, self.cases, Sampling(num_seeds=1)):
            product_id = str(self.export.products.product_id[case.product_index])
            found = rates_by_segment(self.market, product_id, np.asarray(case.images[0]))
            rates[place_of[product_id], self._place[case.group.group_id], : len(found)] = found
        return Arm(name, rates, name)

    def _roots(self, cases: EvaluationSet) -> list[FoundGroup]:
        """Everyone of each scope, as a group."""
        rows = self.export.groups[
            self.export.groups.is_scope_root & self.export.groups.scope.isin([*cases.product_indices])
        ]
        return [
            FoundGroup(str(group_id), str(scope), "everyone", everyone(self.market, str(scope)))
            for group_id, scope in zip(rows.group_id, rows.scope, strict=True)
        ]


def rates_by_segment(market: Market, product_id: str, image: Array) -> Array:
    """Returns the true click rates at position 1 of a picture in each segment of its scope, (segments,).

    Args:
        market: the truth.
        product_id: product that it shows.
        image: RGB in [0, 1], (H, W, 3); rounded to 8 bits, as it would be served.
    """
    served = np.round(np.clip(np.asarray(image, np.float64), 0.0, 1.0) * 255.0) / 255.0
    measured, scope = measure_pictures(market, product_id, served[None]), market.product(product_id).scope
    day = date.fromisoformat(DAY)
    segments = market.scope(scope).segments
    return np.array([click_rates(market, scope, one.name, product_id, measured, day)[0] for one in segments])


def parse_models(texts: Sequence[str], taken: Sequence[str]) -> dict[str, Path]:
    """Returns the folders of models by name, from texts NAME=DIR.

    Raises:
        ValueError: when a text is none, a name comes twice or is another arm's, or the folder is not there.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder or name in found or name in taken:
            raise ValueError(f"--model {text!r}: write NAME=DIR, each name once, and none of {', '.join(taken)}.")
        if not Path(folder).is_dir():
            raise ValueError(f"--model {text!r}: {folder} is no folder.")
        found[name] = Path(folder)
    return found


def _model_arm(name: str, folder: Path, work: Path) -> ModelArm:
    """The output of a training stage as it is; a saved pipeline as if it were one, one size where its name says so."""
    if not (folder / "model_index.json").is_file():
        return read_model_arm(name, folder)
    link = work / name / "model"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(folder.absolute(), target_is_directory=True)
    return ModelArm(name, link.parent, name.startswith("global"), "")
