"""Scores of groups, by hand and at their limits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from osmf_pipelines.bench.grouping_score import PlantedScope, adjusted_rand_index, score_groups
from osmf_pipelines.spark.preference_cuts import TreeSettings

# Two segments, one product with two creatives: the first likes a, the second b.
RATES = np.array([[0.04, 0.01], [0.02, 0.03]])
PLANTED = PlantedScope(
    "shoe",
    "strong",
    {"x": np.array([1.0, 0.0]), "y": np.array([0.0, 1.0]), "z": np.array([0.25, 0.75])},
    np.array(["a", "b"], dtype=object),
    np.array([0, 0]),
    RATES,
)
USERS = {"x": 100, "y": 60, "z": 40}


def counts_of(planted: PlantedScope) -> pd.DataFrame:
    """Each user sees each creative 10,000 times, and clicks as often as the truth expects."""
    rows = []
    for cell, num_users in USERS.items():
        shown = 10_000 * num_users
        for creative, rates in zip(planted.creative_ids, planted.rates, strict=True):
            clicks = round(shown * float(rates @ planted.segment_shares[cell]))
            rows.append((cell, creative, shown, clicks, 1000.0 * shown, 200.0 * shown, clicks // 5, num_users))
    names = ["cell", "creative_id", "num_impressions", "num_clicks", "effective_millis", "heldout_millis"]
    frame = pd.DataFrame(rows, columns=[*names, "heldout_clicks", "num_users"])
    return frame.assign(scope="shoe", product_id="p", is_fitted=True)


def formed_of(groups: dict[str, list[str]]) -> pd.DataFrame:
    rows = [("root", True, list(USERS), 0.5), *((name, False, cells, 0.5) for name, cells in groups.items())]
    return pd.DataFrame(rows, columns=["group_id", "is_scope_root", "cells", "heldout_gain_per_1000"])


def test_rand_index_by_hand():
    # Six members: {0,1,2}{3,4,5} against {0,1}{2,3}{4,5}. Pairs together in both: 2; in one: 6; in the other: 3.
    # Expected 6 * 3 / 15 = 1.2, largest 4.5: (2 - 1.2) / (4.5 - 1.2).
    index = adjusted_rand_index(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2]), np.ones(6))
    assert index == pytest.approx(0.8 / 3.3)


def test_a_member_that_weighs_three_is_three_members():
    one, other = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
    weights = np.array([3, 1, 2, 1])
    repeated = adjusted_rand_index(one.repeat(weights), other.repeat(weights), np.ones(weights.sum()))
    assert adjusted_rand_index(one, other, weights.astype(float)) == pytest.approx(repeated)


def test_rand_index_is_one_for_the_same_parts_under_other_names_and_zero_for_one_part():
    segment = np.array([0, 1, 2, 1])
    assert adjusted_rand_index(segment, np.array([2, 0, 1, 0]), np.full(4, 5.0)) == pytest.approx(1.0)
    assert adjusted_rand_index(segment, np.zeros(4, int), np.full(4, 5.0)) == pytest.approx(0.0)
    assert np.isnan(adjusted_rand_index(np.zeros(4, int), segment, np.full(4, 5.0)))


def test_random_parts_have_a_rand_index_of_zero_in_the_mean():
    rng = np.random.default_rng(0)
    found = [adjusted_rand_index(rng.integers(0, 3, 60), rng.integers(0, 4, 60), np.ones(60)) for _ in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 20


def test_the_planted_groups_score_one_and_one_group_zero():
    settings = TreeSettings(min_users=50, min_clicks=200)
    counts = counts_of(PLANTED)
    found = score_groups(PLANTED, counts, formed_of({"g": ["x"], "h": ["y", "z"]}), settings)
    assert found["adjusted_rand_index"] == pytest.approx(1.0)
    assert (found["num_segments"], found["num_groups"], found["num_users"]) == (2, 2, 200)
    assert score_groups(PLANTED, counts, formed_of({"g": ["x", "y", "z"]}), settings)["adjusted_rand_index"] == 0.0


def test_a_segment_under_the_floor_of_users_is_not_looked_for():
    counts = counts_of(PLANTED)
    strict = TreeSettings(min_users=101, min_clicks=200)
    found = score_groups(PLANTED, counts, formed_of({"g": ["x", "y", "z"]}), strict)
    assert found["num_segments"] == 0
    assert np.isnan(found["adjusted_rand_index"])


def test_click_rate_of_each_groups_best_creative_by_hand():
    counts = counts_of(PLANTED)
    # Best per user: x 100 users at 0.04, y 60 at 0.03, z 10 at 0.04 and 30 at 0.03.
    oracle = 100 * 0.04 + 60 * 0.03 + 10 * 0.04 + 30 * 0.03
    # As one group all see a, which brings 110 users of the first segment 0.04 and 90 of the second 0.01.
    settings = TreeSettings()
    one = score_groups(PLANTED, counts, formed_of({"g": ["x", "y", "z"]}), settings)
    assert one["ctr_share_of_oracle"] == pytest.approx((110 * 0.04 + 90 * 0.01) / oracle)
    two = score_groups(PLANTED, counts, formed_of({"g": ["x"], "h": ["y", "z"]}), settings)
    picked = 100 * 0.04 + 60 * 0.03 + 10 * 0.02 + 30 * 0.03
    assert two["ctr_share_of_oracle"] == pytest.approx(picked / oracle)
