"""Whether what is drawn for a group looks as the group's preferences say: the correlation, feature by feature.

Looks are what `image_features.py` measures of whole pictures: the product is the same for all groups, and what is
compared is the difference between groups. What looks are worth belongs in `simulated_ctr.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_models.data.dataset import TrainingExport
from osmf_models.evaluation.arms import DrawnCase
from osmf_models.image_features import FEATURE_NAMES, measure_images

STYLE_COLUMNS = tuple(f"style:{name}" for name in FEATURE_NAMES)
_PREFERENCE = "preference_z:"


def style_of(case: DrawnCase) -> NDArray[np.float64]:
    """Returns the measured features of a case's pictures, their mean, (F,)."""
    images = np.asarray(case.images, np.float64)
    return measure_images(images, np.zeros(images.shape[:3])).mean(0)


def style_correlations(
    judgements: pd.DataFrame, export: TrainingExport, arms: list[str], seed: int = 0
) -> dict[str, float]:
    """Returns how what is drawn for groups follows their preferences.

    Per feature the correlation, over all (product, group) of scopes with two groups and more, of how much more of it a
    group's picture has than the mean over the product's groups, and how much more of it the group prefers than the mean
    over the scope's. An arm that draws the same for all has 0. Features that the groups tell no preference for are left
    out.

    Args:
        judgements: one row per (arm, product, group), with `STYLE_COLUMNS`.
        export: whose groups tell their preferences.
        arms: to tell of.
        seed: of the shuffling.

    Returns:
        per arm `ARM/style_correlation:FEATURE`, `ARM/style_correlation`, their mean, and
        `ARM/style_correlation_shuffled`, the mean when every group's preferences are another's of its scope.
    """
    names = [name for name in FEATURE_NAMES if _PREFERENCE + name in export.manifest.group_feature_names]
    preferences = _preferences(export, names)
    metrics: dict[str, float] = {}
    for arm in arms:
        rows = judgements[judgements.arm == arm]
        rows = rows[rows.groupby("scope").group_id.transform("nunique") > 1]
        if rows.empty or not names:
            continue
        own = {name: _correlation(rows, name, preferences[name]) for name in names}
        others = _another_of_the_scope(rows, seed)
        shuffled = [_correlation(rows.assign(group_id=others), name, preferences[name]) for name in names]
        metrics |= {f"{arm}/style_correlation:{name}": value for name, value in own.items()}
        metrics[f"{arm}/style_correlation"] = float(np.mean(list(own.values())))
        metrics[f"{arm}/style_correlation_shuffled"] = float(np.mean(shuffled))
    return metrics


def _preferences(export: TrainingExport, names: list[str]) -> pd.DataFrame:
    columns = [export.manifest.group_feature_names.index(_PREFERENCE + name) for name in names]
    return pd.DataFrame(export.raw_group_features[:, columns], index=export.groups.group_id, columns=names)


def _correlation(rows: pd.DataFrame, name: str, preference: pd.Series) -> float:
    """0 where one of the two does not vary."""
    drawn = rows[f"style:{name}"]
    drawn = drawn - drawn.groupby(rows.product_id).transform("mean")
    liked = rows.group_id.map(preference)
    liked = liked - liked.groupby(rows.product_id).transform("mean")
    if min(drawn.abs().max(), liked.abs().max()) < 1e-9:
        return 0.0
    return float(np.corrcoef(drawn, liked)[0, 1])


def _another_of_the_scope(rows: pd.DataFrame, seed: int) -> pd.Series:
    """Another group of the same scope for each group, every one once: the groups in a ring drawn by chance."""
    generator = np.random.default_rng(seed)
    another: dict[str, str] = {}
    for _, groups in rows.groupby("scope").group_id.unique().items():
        ring = generator.permutation(sorted(groups))
        another |= dict(zip(ring, np.roll(ring, 1), strict=True))
    return rows.group_id.map(another)
