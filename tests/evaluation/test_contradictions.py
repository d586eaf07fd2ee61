"""Contradiction accuracy: who ignores the group is right exactly half the time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from osmf_models.evaluation.contradictions import (
    contradictions,
    evenly_spread,
    resampled_accuracy,
    right_shares,
)
from osmf_models.evaluation.resampling import NUM_RESAMPLES, Estimate

# Groups 0 and 1 choose picture 5 over 6, group 2 the other way round; 7 over 8 is nobody's contradiction, and neither
# are the same numbers in another scope.
PAIRS = pd.DataFrame(
    [("s", 0, 5, 6), ("s", 1, 5, 6), ("s", 2, 6, 5), ("s", 0, 7, 8), ("t", 9, 8, 7)],
    columns=["scope", "group_index", "chosen_index", "rejected_index"],
)


def test_each_couple_of_groups_is_one_contradiction():
    assert contradictions(PAIRS).to_numpy().tolist() == [[0, 2], [1, 2]]
    assert contradictions(PAIRS.iloc[3:]).empty


def test_right_shares_by_hand():
    shares = right_shares(np.array([1.0, 0.3, -1.0, 0.0]), np.array([2.0, -0.3, -0.1, 0.7]))
    assert shares.tolist() == [1.0, 0.5, 0.0, 0.75]


def test_who_ignores_the_group_is_right_for_exactly_one_of_two():
    """Pairs alone would say 2/3 or 1/3 here: two of the three groups choose picture 5."""
    taste = {5: 0.4, 6: -0.2}
    margins = np.array(
        [taste.get(c, 0.0) - taste.get(r, 0.0) for c, r in PAIRS[["chosen_index", "rejected_index"]].values]
    )
    couples = contradictions(PAIRS)
    shares = right_shares(margins[couples["first"]], margins[couples["second"]])
    assert shares.tolist() == [0.5, 0.5]


def test_a_coin_is_right_about_half_the_time_and_a_listener_always():
    rng = np.random.default_rng(0)
    judged = pd.DataFrame({"scope": "s", "product_id": [f"p{n % 20}" for n in range(400)]})
    coin = judged.assign(right_share=right_shares(rng.normal(size=400), rng.normal(size=400)))
    estimate = Estimate.of(resampled_accuracy(coin, "m"))
    assert estimate.low < 0.5 < estimate.high
    assert estimate.high - estimate.low < 0.15
    listener = resampled_accuracy(judged.assign(right_share=1.0), "m")
    np.testing.assert_allclose(listener, 1.0)


def test_accuracy_is_over_contradictions_and_drawn_by_product():
    """Product p brings three right, q one wrong: 3/4; the interval knows two products, not four contradictions."""
    rows = [("s", "p", 1.0)] * 3 + [("s", "q", 0.0)]
    judged = pd.DataFrame(rows, columns=["scope", "product_id", "right_share"])
    resampled = resampled_accuracy(judged, "m")
    assert resampled.shape == (NUM_RESAMPLES + 1,)
    assert resampled[0] == pytest.approx(0.75)
    assert np.unique(resampled).tolist() == [0.0, 0.75, 1.0]
    flipped = judged.assign(shuffled_right_share=1.0 - judged.right_share)
    np.testing.assert_allclose(resampled_accuracy(flipped, "m", "shuffled_right_share"), 1.0 - resampled)


def test_a_part_is_spread_over_the_whole():
    rows = pd.DataFrame({"first": range(101)})
    assert evenly_spread(rows, 5)["first"].tolist() == [0, 25, 50, 75, 100]
    assert len(evenly_spread(rows, 500)) == 101
    assert evenly_spread(rows.head(0), 5).empty
