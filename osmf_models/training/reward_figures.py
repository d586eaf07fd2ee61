"""How good a group reward model is on pairs of products that it has not seen, with intervals over products.

The losses and calibration of single pairs belong in `objectives/group_reward.py`.

Shapes: `B` pairs, `P` products, `G` groups, `R` resamples.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from osmf_models.objectives.group_reward import CalibrationBin, bradley_terry_loss, calibration_bins, calibration_error

_NUM_RESAMPLES = 1000
_INTERVAL = (0.025, 0.975)


def reward_figures(
    pairs: pd.DataFrame, margins: Tensor, temperature: float, seed: int = 0
) -> tuple[dict[str, float], list[CalibrationBin]]:
    """Returns the metrics of judged pairs, and the bins of their calibration.

    Args:
        pairs: scope, group_index, product_index, is_contradiction, chosen_better_probability, log_rate_ratio, target.
        margins: score of the chosen minus that of the rejected picture, (B,); 0 counts as half right.
        temperature: of the model.
        seed: of the resamples.

    Returns:
        `num_pairs`; `pair_accuracy` (mean over groups), `worst_group_pair_accuracy` (of the group that came out worst),
        `contradiction_accuracy` (over all contradictions; absent without any) with `_low` and `_high` ends of a 95%
        percentile bootstrap over products within their scope; `loss`; `calibration_error`; `log_rate_slope`, of the
        pairs' log rate ratios over the margins through 0: 1 where margins are log rate ratios.
    """
    is_right = (np.sign(margins.double().numpy()) + 1.0) / 2.0
    by_group = pairs.assign(is_right=is_right).groupby("group_index").is_right.mean()
    accuracies = resampled_accuracies(pairs, is_right, seed)
    bins = calibration_bins(margins / temperature, torch.tensor(pairs.chosen_better_probability.to_numpy()))
    ratios = pairs.log_rate_ratio.to_numpy()
    metrics = {
        "num_pairs": float(len(pairs)),
        "loss": float(bradley_terry_loss(margins, torch.tensor(pairs.target.to_numpy(np.float32)))),
        "calibration_error": calibration_error(bins),
        "log_rate_slope": float(ratios @ margins.double().numpy() / max(float(margins.double().square().sum()), 1e-12)),
    }
    metrics |= with_interval("pair_accuracy", float(by_group.mean()), np.nanmean(accuracies, axis=1))
    worst = int(np.argmin(by_group.to_numpy()))
    metrics |= with_interval("worst_group_pair_accuracy", float(by_group.iloc[worst]), accuracies[:, worst])
    is_contradiction = pairs.is_contradiction.to_numpy(bool)
    metrics["num_contradiction_pairs"] = float(is_contradiction.sum())
    if is_contradiction.any():
        contradictions = pairs[is_contradiction].assign(group_index=0)
        resampled = resampled_accuracies(contradictions, is_right[is_contradiction], seed)[:, 0]
        metrics |= with_interval("contradiction_accuracy", float(is_right[is_contradiction].mean()), resampled)
    return metrics, bins


def with_interval(name: str, value: float, resampled: NDArray[np.float64]) -> dict[str, float]:
    """Returns a figure by its name, and the ends of its 95% interval as `_low` and `_high`."""
    low, high = np.nanquantile(resampled, _INTERVAL)
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}


def resampled_accuracies(pairs: pd.DataFrame, is_right: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Returns the share of right pairs of each group in each resample of products, (R, G); NaN where it has no pair."""
    products, product = np.unique(pairs.product_index, return_inverse=True)
    groups, group = np.unique(pairs.group_index, return_inverse=True)
    counts, rights = (np.zeros((len(products), len(groups))) for _ in range(2))
    np.add.at(counts, (product, group), 1.0)
    np.add.at(rights, (product, group), is_right)
    scope_of = pairs.groupby("product_index").scope.first().loc[products].to_numpy()
    rng = np.random.default_rng(seed)
    weights = np.zeros((_NUM_RESAMPLES, len(products)))
    for scope in np.unique(scope_of):
        rows = np.flatnonzero(scope_of == scope)
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1.0 / len(rows)), _NUM_RESAMPLES)
    totals = weights @ counts
    return np.divide(weights @ rights, totals, out=np.full_like(totals, np.nan), where=totals > 0)
