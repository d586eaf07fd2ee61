"""The figures of every arm of `osmf ablate`, each as an array of resamples: products, seeds and markets drawn alike.

What a report makes of them belongs in `ablation_report.py`.

Shapes: `R` resamples, `G` groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from osmf_models.evaluation.kernel_distance import KernelTerms
from osmf_models.evaluation.resampling import Array, GroupMeans, RunKey, over_runs, resampled_group_means
from osmf_pipelines.bench.ablation_groups import ToldGroups
from osmf_pipelines.bench.ablation_plan import GLOBAL, PRETRAINED, RECIPE

FIGURES = {
    "mean_ctr": "true click rate at position 1, mean over products inside a group, then over groups",
    "worst_group_ctr": "the same in the group where it is lowest",
    "headroom_share": "0 is the logged pictures at random, 1 the oracle",
    "picture_quality": "the simulator's quality term, in [0, 1]",
    "kernel_distance": "squared kernel distance of drawn from logged pictures of held-out products, without bias",
    "lift_over_pretrained": "mean_ctr minus the pretrained model's, paired",
    "lift_over_recipe": "mean_ctr minus that of the recipe as it is, paired",
    "lift_over_global": "mean_ctr minus that of arm global_dpo, paired",
    "worst_group_over_recipe": "worst_group_ctr minus that of the recipe as it is, paired",
    "quality_over_pretrained": "picture_quality minus the pretrained model's, paired",
    "kernel_distance_over_pretrained": "kernel_distance minus the pretrained model's, paired",
    "agreeing_scopes_lift_over_global": "lift_over_global in categories where all segments like the same",
    "unseen_groups_lift_over_pretrained": "lift_over_pretrained in groups held out of training, their category not",
    "unseen_groups_lift_over_global": "lift_over_global in the same groups",
    "unseen_scope_lift_over_pretrained": "lift_over_pretrained in the groups of the category held out of training",
    "unseen_scope_lift_over_global": "lift_over_global in the same groups",
    "contradiction_accuracy": "share of held-out contradictions' pairs that the implicit reward orders rightly",
}


@dataclass(frozen=True)
class JudgedArm:
    """One trained arm of one run, judged.

    Attributes:
        run: market and seed.
        arm: its name.
        judgements: one row per product and group: arm, scope, group_id, product_id, true_ctr_rate, picture_quality.
        contradictions: one row each (scope, product_id, right_share); None without an implicit reward.
        calibration: bins of the implicit reward; none without one.
        figures: metrics of its judgement.
        training: record of its training.
        kernel: terms of its kernel distance; None where it was not measured.
    """

    run: RunKey
    arm: str
    judgements: pd.DataFrame
    contradictions: pd.DataFrame | None
    calibration: Sequence[dict[str, Any]]
    figures: Mapping[str, float]
    training: Mapping[str, Any]
    kernel: KernelTerms | None = None


@dataclass(frozen=True)
class JudgedMarket:
    """What a market has apart from trainings.

    Attributes:
        judgements: of the arms that are no model.
        kernels: terms of their kernel distances, by arm.
        told: groups to be told of on their own.
        encoder: name and hash of what the distances' features are made by.
    """

    judgements: pd.DataFrame
    kernels: Mapping[str, KernelTerms] = field(default_factory=dict)
    told: ToldGroups = field(default_factory=ToldGroups)
    encoder: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Resampled:
    """Click rates, qualities and kernel distances of every run, products resampled.

    Attributes:
        markets: by name.
        rates, qualities: by run.
        kernels: distances by run and arm, (R + 1,) each; where they were measured.
    """

    markets: Mapping[str, JudgedMarket]
    rates: dict[RunKey, GroupMeans]
    qualities: dict[RunKey, GroupMeans]
    kernels: dict[RunKey, dict[str, Array]]

    @classmethod
    def of(cls, judged: Sequence[JudgedArm], markets: Mapping[str, JudgedMarket]) -> Resampled:
        """Returns the resamples of all arms of all runs.

        Raises:
            ValueError: when an arm was not judged on the products and groups that another was.
        """
        runs = sorted({one.run for one in judged})
        frames = {
            run: pd.concat([*(one.judgements for one in judged if one.run == run), markets[run.market].judgements])
            for run in runs
        }
        rates, qualities = (
            {run: resampled_group_means(frame, run.market, column) for run, frame in frames.items()}
            for column in ("true_ctr_rate", "picture_quality")
        )
        common = {
            name: {arm: terms.resampled(name) for arm, terms in one.kernels.items()} for name, one in markets.items()
        }
        kernels = {run: dict(common[run.market]) for run in runs}
        for one in judged:
            if one.kernel is not None:
                kernels[one.run][one.arm] = one.kernel.resampled(one.run.market)
        return cls(markets, rates, qualities, kernels)

    def figures(self, arm: str) -> dict[str, Array]:
        """Returns the figures that an arm has, over all runs that have them, (R + 1,) each."""
        by_run: dict[str, dict[RunKey, Array]] = {}
        for run in self.rates:
            for name, values in {**self._of_run(arm, run), **self._lifts_of_run(arm, run)}.items():
                by_run.setdefault(name, {})[run] = values
        return {name: over_runs(values) for name, values in by_run.items()}

    def _of_run(self, arm: str, run: RunKey) -> dict[str, Array]:
        means, quality, kernels = self.rates[run].values, self.qualities[run].values, self.kernels[run]
        average = {name: values.mean(1) for name, values in means.items()}
        found = {
            "mean_ctr": average[arm],
            "worst_group_ctr": means[arm].min(1),
            "headroom_share": (average[arm] - average["random"]) / (average["oracle"] - average["random"]),
            "picture_quality": quality[arm].mean(1),
            "worst_group_over_recipe": means[arm].min(1) - means[RECIPE].min(1),
            "quality_over_pretrained": (quality[arm] - quality[PRETRAINED]).mean(1),
        }
        if arm in kernels:
            found["kernel_distance"] = kernels[arm]
            if PRETRAINED in kernels:
                found["kernel_distance_over_pretrained"] = kernels[arm] - kernels[PRETRAINED]
        return found

    def _lifts_of_run(self, arm: str, run: RunKey) -> dict[str, Array]:
        means, told = self.rates[run], self.markets[run.market].told
        everywhere = np.ones(len(means.group_ids), bool)
        parts = {
            "lift_over": everywhere,
            "agreeing_scopes_lift_over": _is_in(means.scopes, told.agreeing_scopes),
            "unseen_groups_lift_over": _is_in(means.group_ids, told.unseen_groups),
            "unseen_scope_lift_over": _is_in(means.group_ids, told.unseen_scope),
        }
        bases = {"pretrained": PRETRAINED, "recipe": RECIPE, "global": GLOBAL}
        return {
            f"{part}_{name}": (means.values[arm] - means.values[base])[:, is_in].mean(1)
            for part, is_in in parts.items()
            for name, base in bases.items()
            if is_in.any() and base in means.values and f"{part}_{name}" in FIGURES
        }


def _is_in(names: Sequence[str], chosen: Iterable[str]) -> np.ndarray:
    return np.isin(np.asarray(names, object), list(chosen))
