"""How well a pretrained model knows which of two pictures a group prefers, on products that it has not seen.

A contradiction is two groups of one scope that order the same two pictures oppositely, both surely. Whoever ignores the
group is right about one half of each. The question itself is drawn in `data/choice.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_models.data.choice import choice_pairs
from osmf_models.data.dataset import TrainingExport
from osmf_models.data.pairs import shuffled_groups
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.training.reward_figures import resampled_accuracies, with_interval

LEAST_PROBABILITY = 0.95
_MOST_PAIRS = 512
_NUM_PAIRS_AT_ONCE = 64


def choice_figures(pipeline: GroupAdPipeline, export: TrainingExport, seed: int = 0) -> dict[str, float]:
    """Returns the metrics of choices between pictures of held-out products, each pair asked in both orders.

    Pairs are those of a probability of at least 0.95, at most 512 of them, drawn evenly.

    Returns:
        `held_out/num_choice_pairs`; `held_out/choice_accuracy`, over pairs; `held_out/num_contradictions`;
        `held_out/contradiction_choice_accuracy`, over both sides of contradictions, and
        `held_out/shuffled_contradiction_choice_accuracy`, when each side is given the features of a group of its scope
        drawn afresh; accuracies with `_low` and `_high` ends of a 95% percentile bootstrap over products within their
        scope. Without pairs or contradictions only their number.
    """
    held_out = pd.concat([choice_pairs(export, split) for split in ("validation", "test")], ignore_index=True)
    sure = held_out[held_out.target >= LEAST_PROBABILITY].reset_index(drop=True)
    both_sides = contradictions(sure)
    shuffled = both_sides.assign(group_index=shuffled_groups(both_sides, export, seed))
    metrics = {"num_choice_pairs": float(len(sure)), "num_contradictions": len(both_sides) / 2.0}
    judged = {
        "choice_accuracy": sure,
        "contradiction_choice_accuracy": both_sides,
        "shuffled_contradiction_choice_accuracy": shuffled,
    }
    for name, pairs in judged.items():
        if pairs.empty:
            continue
        asked = pairs.sample(min(len(pairs), _MOST_PAIRS), random_state=seed)
        is_right = right_shares(pipeline, export, asked)
        resampled = resampled_accuracies(asked.assign(group_index=0), is_right, seed)[:, 0]
        metrics |= with_interval(name, float(is_right.mean()), resampled)
    return {f"held_out/{name}": value for name, value in metrics.items()}


def contradictions(pairs: pd.DataFrame) -> pd.DataFrame:
    """Returns both sides of every contradiction among the pairs, a row each, so that a pair may come more than once."""
    flipped = pairs[["scope", "chosen_index", "rejected_index"]].set_axis(
        ["scope", "rejected_index", "chosen_index"], axis=1
    )
    return pairs.merge(flipped, on=["scope", "chosen_index", "rejected_index"])


def right_shares(pipeline: GroupAdPipeline, export: TrainingExport, pairs: pd.DataFrame) -> NDArray[np.float64]:
    """Returns 1 where the model prefers a pair's chosen picture, 0 where the other, 0.5 where neither, (B,)."""
    shares = []
    for start in range(0, len(pairs), _NUM_PAIRS_AT_ONCE):
        rows = pairs.iloc[start : start + _NUM_PAIRS_AT_ONCE]
        cutouts = np.stack([export.cutouts[index] for index in rows.product_index])
        chosen, rejected = (
            np.stack([export.images[index] for index in rows[name]]) for name in ("chosen_index", "rejected_index")
        )
        titles = list(export.products.title.iloc[rows.product_index].fillna(""))
        features = export.raw_group_features[rows.group_index]
        probability = pipeline.choose(cutouts[..., :3], cutouts[..., 3], titles, features, chosen, rejected)
        shares.append((np.sign(probability - 0.5) + 1.0) / 2.0)
    return np.concatenate(shares)
