"""Which groups are held out of training: as many as asked for, and never a category's only one."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from osmf_pipelines.bench.ablation_groups import AUTO, HoldOut, ToldGroups, told_groups

SIZES = {"bag": 3, "lamp": 1, "shoe": 4}
ROWS = [(f"{scope}-{n}", scope, n == 0) for scope, size in SIZES.items() for n in range(size + 1)]
GROUPS = pd.DataFrame(ROWS, columns=["group_id", "scope", "is_scope_root"])


def told(share: float, scope: str | None) -> ToldGroups:
    return told_groups(HoldOut(share, scope), GROUPS, ("lamp",), "m")


def test_a_share_of_the_groups_rounded_up_and_one_left_in_each_category() -> None:
    found = told(0.25, None)
    assert len(found.unseen_groups) == 2
    assert (found.unseen_scope, found.unseen_root, found.agreeing_scopes) == ((), None, ("lamp",))
    for share in (0.1, 0.25, 0.5, 0.6):
        left = GROUPS[~GROUPS.is_scope_root & ~GROUPS.group_id.isin(told(share, None).unseen_groups)]
        assert set(left.scope) == set(SIZES)
    # More groups held out, the same among them.
    assert set(told(0.1, None).unseen_groups) <= set(found.unseen_groups) <= set(told(0.5, None).unseen_groups)


def test_a_whole_category_with_its_root_and_groups_of_the_others() -> None:
    found = told(0.25, "shoe")
    assert found.unseen_scope == ("shoe-1", "shoe-2", "shoe-3", "shoe-4")
    assert found.unseen_root == "shoe-0"
    assert [group.partition("-")[0] for group in found.unseen_groups] == ["bag"]
    held_out = ["shoe-0", "shoe-1", "shoe-2", "shoe-3", "shoe-4", *found.unseen_groups]
    assert found.assignments == (f"data.held_out_groups={json.dumps(sorted(held_out))}",)


def test_a_category_by_chance_is_one_where_there_is_something_to_get_right() -> None:
    found = told(0.0, AUTO)
    assert found.unseen_scope[0].startswith(("bag", "shoe"))
    assert found == told(0.0, AUTO)
    assert told_groups(HoldOut(), GROUPS, (), "m").assignments == ()


@pytest.mark.parametrize(
    ("share", "scope", "message"),
    [
        (1.0, None, "is no share"),
        (0.1, "hat", "--hold-out-scope hat: there is no such category; .* bag, lamp, shoe"),
        (0.8, None, "m: of 8 groups 7 cannot be held out"),
    ],
)
def test_what_cannot_be_held_out_is_said(share: float, scope: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        told(share, scope)


def test_two_groups_are_left_to_train_on() -> None:
    with pytest.raises(ValueError, match=r"m: of 1 groups 0 cannot be held out with .* two in all"):
        told_groups(HoldOut(0.0, "shoe"), GROUPS[GROUPS.scope != "bag"], (), "m")
