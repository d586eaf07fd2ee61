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

from osmf_models.evaluation.resampling import Array, Estimate, resampled_group_means

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
FIGURE_COLUMNS = (
    "arm",
    "scope",
    "group_id",
    "num_pictures",
    "true_ctr_rate",
    "true_ctr_low",
    "true_ctr_high",
    "picture_quality",
    "product_fidelity",
    "predicted_log_lift",
)
_INTERVAL = (0.025, 0.975)
_MARKET = "evaluation"  # all of a run is on the same resamples of products


def by_group(judgements: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per (arm, group): arm, scope, group_id, num_pictures, true_ctr_rate, picture_quality."""
    return judgements.groupby(["arm", "scope", "group_id"], as_index=False, sort=False).agg(
        num_pictures=("num_pictures", "sum"),
        true_ctr_rate=("true_ctr_rate", "mean"),
        picture_quality=("picture_quality", "mean"),
    )


def group_figures(judgements: pd.DataFrame, lifts: pd.DataFrame | None = None) -> pd.DataFrame:
    """Returns `by_group` with the 95% interval of the true click rate, and more; what is not known is NaN.

    Args:
        judgements: with product_fidelity.
        lifts: predicted_log_lift by arm, scope and group_id.

    Returns:
        one row per (arm, group): beside the columns of `by_group` true_ctr_low and true_ctr_high, product_fidelity,
        predicted_log_lift.
    """
    keys = ["arm", "scope", "group_id"]
    rows = by_group(judgements)
    fidelity = judgements.groupby(keys, as_index=False, sort=False).product_fidelity.mean()
    ends = _rate_intervals(judgements) if judgements.true_ctr_rate.notna().all() else pd.DataFrame(columns=keys)
    rows = rows.merge(fidelity, on=keys, how="left").merge(ends, on=keys, how="left")
    if lifts is not None:
        rows = rows.merge(lifts[[*keys, "predicted_log_lift"]], on=keys, how="left")
    return rows.reindex(columns=[*FIGURE_COLUMNS])


def _rate_intervals(judgements: pd.DataFrame) -> pd.DataFrame:
    means = resampled_group_means(_on_all_arms(judgements), _MARKET, "true_ctr_rate")
    rows = [
        (arm, scope, group_id, *np.quantile(values[1:, place], _INTERVAL))
        for arm, values in means.values.items()
        for place, (scope, group_id) in enumerate(zip(means.scopes, means.group_ids, strict=True))
    ]
    return pd.DataFrame(rows, columns=["arm", "scope", "group_id", "true_ctr_low", "true_ctr_high"])


def _on_all_arms(judgements: pd.DataFrame) -> pd.DataFrame:
    """Products that every arm was judged on: one without logged pictures has none of the arm `random`."""
    num_arms = judgements.groupby(["scope", "product_id", "group_id"]).arm.transform("nunique")
    return judgements[num_arms == judgements.arm.nunique()]


def _ends(name: str, resampled: Array) -> dict[str, float]:
    found = Estimate.of(resampled)
    return {f"{name}_low": found.low, f"{name}_high": found.high}


def summarise(judgements: pd.DataFrame, models: list[str]) -> dict[str, float]:
    """Returns the metrics of a run.

    Args:
        judgements: one row per (arm, product, group); arms `random` and `oracle` must be among them.
        models: names of the models' arms in the order given: each is compared with those before it.

    Returns:
        per arm its mean_ctr, worst_group_ctr, picture_quality and share_of_headroom (0 = logged pictures at random,
        1 = oracle), all but the quality with `_low` and `_high` ends (bootstrap over products); per model after the
        first the share of groups that it lifts above the first; per pair of models the difference in mean click rate
        with its 95% interval.
    """
    groups = by_group(judgements)
    means = groups.groupby("arm").true_ctr_rate.mean()
    resampled = resampled_group_means(_on_all_arms(judgements), _MARKET, "true_ctr_rate").values
    of_all = {arm: values.mean(axis=1) for arm, values in resampled.items()}
    metrics: dict[str, float] = {}
    for arm, rows in groups.groupby("arm", sort=False):
        headroom = (means[arm] - means["random"]) / (means["oracle"] - means["random"])
        metrics |= {
            f"{arm}/mean_ctr": float(means[arm]),
            f"{arm}/worst_group_ctr": float(rows.true_ctr_rate.min()),
            f"{arm}/picture_quality": float(rows.picture_quality.mean()),
            f"{arm}/share_of_headroom": float(headroom),
            **_ends(f"{arm}/mean_ctr", of_all[arm]),
            **_ends(f"{arm}/worst_group_ctr", resampled[arm].min(axis=1)),
            **_ends(
                f"{arm}/share_of_headroom",
                (of_all[arm] - of_all["random"]) / (of_all["oracle"] - of_all["random"]),
            ),
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
    judgements: pd.DataFrame, arm: str, baseline: str, column: str = "true_ctr_rate"
) -> tuple[float, float, float]:
    """Returns the difference in mean `column` of two arms and its 95% interval.

    Products are resampled inside their scope, both arms and all groups of a product together; see `resampling.py`.

    Raises:
        ValueError: when one of the two was not judged on what the other was.
    """
    rates = judgements.set_index(["scope", "product_id", "group_id", "arm"])[column].unstack("arm")
    difference = (rates[arm] - rates[baseline]).rename(column).reset_index().assign(arm=arm)
    resampled = resampled_group_means(difference, _MARKET, column).values[arm]
    estimate = Estimate.of(resampled.mean(axis=1))
    return estimate.value, estimate.low, estimate.high
