"""From judged pictures to figures: per group, per arm, and differences with their intervals.

Every mean is over products inside a group first, then over groups, so that each group counts the same. Pixels do not
belong here.

A table of judgements has one row per (arm, product, group): arm, scope, group_id, product_id, num_pictures,
true_ctr_rate (mean over the pictures), picture_quality, predicted_log_rate (by the group reward model, up to a constant
of the product and group; NaN without one).
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

JUDGEMENT_COLUMNS = (
    "arm",
    "scope",
    "group_id",
    "product_id",
    "num_pictures",
    "true_ctr_rate",
    "picture_quality",
    "predicted_log_rate",
)
_NUM_RESAMPLES = 2000
_INTERVAL = (0.025, 0.975)


def by_group(judgements: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per (arm, group): arm, scope, group_id, num_pictures, true_ctr_rate, picture_quality."""
    return judgements.groupby(["arm", "scope", "group_id"], as_index=False, sort=False).agg(
        num_pictures=("num_pictures", "sum"),
        true_ctr_rate=("true_ctr_rate", "mean"),
        picture_quality=("picture_quality", "mean"),
    )


def summarise(judgements: pd.DataFrame, models: list[str]) -> dict[str, float]:
    """Returns the metrics of a run.

    Args:
        judgements: one row per (arm, product, group); arms `random` and `oracle` must be among them.
        models: names of the models' arms in the order given: each is compared with those before it.

    Returns:
        per arm its mean_ctr, worst_group_ctr, picture_quality and share_of_headroom (0 = logged pictures at random,
        1 = oracle); per model after the first the share of groups that it lifts above the first; per pair of models
        the difference in mean click rate with its 95% interval.
    """
    groups = by_group(judgements)
    means = groups.groupby("arm").true_ctr_rate.mean()
    metrics: dict[str, float] = {}
    for arm, rows in groups.groupby("arm", sort=False):
        headroom = (means[arm] - means["random"]) / (means["oracle"] - means["random"])
        metrics |= {
            f"{arm}/mean_ctr": float(means[arm]),
            f"{arm}/worst_group_ctr": float(rows.true_ctr_rate.min()),
            f"{arm}/picture_quality": float(rows.picture_quality.mean()),
            f"{arm}/share_of_headroom": float(headroom),
        }
    rates = groups.pivot(index="group_id", columns="arm", values="true_ctr_rate")
    for model in models[1:]:
        lifted = (rates[model] > rates[models[0]]).mean()
        metrics[f"{model}/share_of_groups_above_{models[0]}"] = float(lifted)
    for baseline, model in itertools.combinations(models, 2):
        difference, low, high = paired_difference(judgements, model, baseline)
        name = f"{model}_minus_{baseline}"
        metrics |= {f"{name}/mean_ctr": difference, f"{name}/ctr_low": low, f"{name}/ctr_high": high}
    return metrics


def paired_difference(
    judgements: pd.DataFrame, arm: str, baseline: str, seed: int = 0, column: str = "true_ctr_rate"
) -> tuple[float, float, float]:
    """Returns the difference in mean `column` of two arms and its 95% bootstrap interval.

    Products are resampled inside their scope, both arms and all groups of a product together (percentile bootstrap).

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    keys = ["scope", "product_id", "group_id"]
    rates = judgements.set_index([*keys, "arm"])[column].unstack("arm")
    difference = (rates[arm] - rates[baseline]).rename("difference").reset_index()
    rng = np.random.default_rng(seed)
    totals, num_groups = np.zeros(_NUM_RESAMPLES + 1), 0
    for _, rows in difference.groupby("scope"):
        table = rows.pivot(index="product_id", columns="group_id", values="difference").to_numpy()
        draws = rng.integers(0, len(table), (_NUM_RESAMPLES, len(table)))
        totals[0] += table.mean(0).sum()
        totals[1:] += table[draws].mean(1).sum(1)
        num_groups += table.shape[1]
    means = totals / num_groups
    low, high = np.quantile(means[1:], _INTERVAL)
    return float(means[0]), float(low), float(high)
