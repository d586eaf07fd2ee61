"""What it means that a group goes on, and a change that is found."""

from __future__ import annotations

import pytest

from osmf_pipelines.bench.grouping import Case
from osmf_pipelines.bench.stability import days_until_change_is_found, stability_of, users_kept_share
from osmf_pipelines.spark.preference_cuts import TreeSettings

USERS = {"x": 50, "y": 30, "z": 20}


@pytest.mark.parametrize(
    ("yesterday", "today", "share"),
    [
        ({"a": ["x"], "b": ["y", "z"]}, {"c": ["y", "z"], "d": ["x"]}, 1.0),
        ({"a": ["x"], "b": ["y", "z"]}, {"c": ["x", "z"], "d": ["y"]}, 0.8),  # z went from b to c
        ({"a": ["x", "y", "z"]}, {"c": ["x"], "d": ["y", "z"]}, 0.5),  # only one part can be the old group
        ({"a": ["x"], "b": ["y", "z"]}, {"c": ["x", "y", "z"]}, 0.5),
        ({"a": ["x"], "b": ["y"]}, {"c": ["x"], "d": ["y", "z"]}, 0.8),  # z was in no group
        ({}, {"c": ["x", "y", "z"]}, 0.0),
    ],
)
def test_users_keep_their_group_when_each_continues_the_other(yesterday, today, share):
    assert users_kept_share(yesterday, today, USERS) == pytest.approx(share)


@pytest.mark.slow
def test_the_same_market_keeps_its_groups_and_a_change_is_found():
    case = Case("easy", "even", 5, 10_000)
    assert all(one.users_kept_share >= 0.95 for one in stability_of(case, TreeSettings()))
    days = days_until_change_is_found(case, TreeSettings())
    assert days is not None
    assert 1 < days <= 7
