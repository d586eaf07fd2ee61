"""Contradictions: the same two pictures of a product, ordered oppositely by two groups of a scope.

Whoever ignores the group orders the two pictures one way, and so is right for exactly one of the two groups: the share
that is right beats a half only where the group is listened to. How a model's margins come about belongs in
`implicit_reward.py`.

Shapes: `B` pairs, `C` contradictions, `R` resamples.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_models.evaluation.resampling import Array, product_weights

CONTRADICTION_COLUMNS = ("scope", "product_id", "right_share", "shuffled_right_share")


def contradictions(pairs: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per contradiction: `first` and `second`, the places in `pairs` of the two groups' pairs.

    A pair that several groups contradict is in several.

    Args:
        pairs: scope, chosen_index, rejected_index, of groups and not of scope roots; two pairs of one group are never
            each other's contradiction.
    """
    numbered = pairs[["scope", "chosen_index", "rejected_index"]].assign(first=np.arange(len(pairs)))
    flipped = numbered.set_axis(["scope", "rejected_index", "chosen_index", "second"], axis=1)
    both = numbered.merge(flipped, on=["scope", "chosen_index", "rejected_index"])
    return both.loc[both["first"] < both["second"], ["first", "second"]].sort_values(["first", "second"])


def evenly_spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Returns at most `count` of `rows`, at even distances."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return rows.iloc[places]


def right_shares(first_margins: NDArray[np.floating], second_margins: NDArray[np.floating]) -> Array:
    """Returns which share of its two pairs is ordered rightly, for each contradiction, (C,).

    Args:
        first_margins: of the chosen over the rejected picture for the one group, (C,); a margin of 0 counts half.
        second_margins: the same for the other group, at the same draws of noise and time.
    """
    signs = np.sign(np.asarray(first_margins, np.float64)) + np.sign(np.asarray(second_margins, np.float64))
    return np.asarray(0.5 + 0.25 * signs)


def resampled_accuracy(judged: pd.DataFrame, market: str, column: str = "right_share") -> Array:
    """Returns the mean right share over all contradictions, products resampled in their scope, (R + 1,).

    Args:
        judged: one row per contradiction: scope, product_id and `column`; at least one.
        market: that they are of; the same one gets the same draws.
        column: to average.
    """
    sums = judged.groupby(["scope", "product_id"])[column].agg(["sum", "count"])
    scopes = [str(scope) for scope in sums.index.get_level_values("scope")]
    weights = product_weights(scopes, market, is_stretched=False)
    rights, counts = (weights @ sums[name].to_numpy(float) for name in ("sum", "count"))
    return np.asarray(rights / counts)
