from datetime import date

import pytest

from osmf_pipelines.spark.lineage import list_group_lineage
from osmf_pipelines.tables import TABLES

TODAY, BEFORE = date(2026, 3, 5), date(2026, 3, 3)


def _user_groups(spark, day, groups):
    """Rows of `user_groups` from (scope, cell) to group."""
    rows = [(day, scope, cell, group) for (scope, cell), group in groups.items()]
    return spark.createDataFrame(rows, TABLES["user_groups"].ddl)


def _cell_users(spark, sizes):
    """So many users in each (scope, cell)."""
    rows = [
        (TODAY, scope, cell, f"{scope}-{cell}-{number}")
        for (scope, cell), size in sizes.items()
        for number in range(size)
    ]
    return spark.createDataFrame(rows, TABLES["cell_users"].ddl)


def _lineage(spark, today, previous, sizes, previous_day=BEFORE):
    frame = list_group_lineage(
        _user_groups(spark, TODAY, today),
        None if previous is None else _user_groups(spark, previous_day, previous),
        _cell_users(spark, sizes),
        as_of_date=TODAY,
        previous_as_of_date=None if previous is None else previous_day,
    )
    assert ", ".join(f"`{name}` {type_}" for name, type_ in frame.dtypes) == TABLES["group_lineage"].ddl
    return {row["group_id"]: row for row in frame.collect()}


def test_a_group_continues_the_one_that_most_of_its_users_were_in(spark):
    cells = [("shoes", cell) for cell in "abcd"]
    today = dict(zip(cells, ["g1", "g1", "g1", "g2"], strict=True))
    previous = dict(zip(cells, ["g1", "old", "old", "g2"], strict=True))

    rows = _lineage(spark, today, previous, dict(zip(cells, [40, 30, 30, 50], strict=True)))

    assert {row["scope"] for row in rows.values()} == {"shoes"}
    assert {(row["as_of_date"], row["previous_as_of_date"]) for row in rows.values()} == {(TODAY, BEFORE)}
    assert (rows["g1"]["previous_group_id"], rows["g1"]["users_kept_share"]) == ("old", 0.6)
    assert not rows["g1"]["has_same_rule"]
    assert (rows["g2"]["previous_group_id"], rows["g2"]["users_kept_share"]) == ("g2", 1.0)
    assert rows["g2"]["has_same_rule"]


def test_of_equal_shares_the_smaller_id_is_taken_and_cells_do_not_count(spark):
    cells = [("shoes", cell) for cell in "abcd"]
    previous = dict(zip(cells, ["y", "x", "z", "z"], strict=True))

    rows = _lineage(spark, dict.fromkeys(cells, "g"), previous, dict(zip(cells, [20, 20, 5, 5], strict=True)))

    assert (rows["g"]["previous_group_id"], rows["g"]["users_kept_share"]) == ("x", 0.4)


def test_users_of_cells_that_are_new_count_as_not_kept(spark):
    sizes = {("shoes", "a"): 10, ("shoes", "b"): 30}

    rows = _lineage(spark, dict.fromkeys(sizes, "g"), {("shoes", "a"): "g"}, sizes)

    assert (rows["g"]["previous_group_id"], rows["g"]["users_kept_share"]) == ("g", 0.25)
    assert rows["g"]["has_same_rule"]


def test_a_user_of_two_cells_counts_once_in_the_last(spark):
    today = {("shoes", "a"): "g", ("shoes", "b"): "g"}
    rows = [(BEFORE, "shoes", "a", f"u{n}") for n in range(4)] + [(TODAY, "shoes", "b", f"u{n}") for n in range(3)]
    users = spark.createDataFrame(rows, TABLES["cell_users"].ddl)
    previous = _user_groups(spark, BEFORE, {("shoes", "a"): "x", ("shoes", "b"): "y"})

    (row,) = list_group_lineage(
        _user_groups(spark, TODAY, today), previous, users, as_of_date=TODAY, previous_as_of_date=BEFORE
    ).collect()

    assert (row["previous_group_id"], row["users_kept_share"]) == ("y", 0.75)


def test_scopes_are_apart_and_a_new_scope_continues_nothing(spark):
    today = {("shoes", "a"): "g1", ("lamps", "a"): "g2"}

    rows = _lineage(spark, today, {("shoes", "a"): "g1"}, dict.fromkeys(today, 50))

    assert rows["g1"]["previous_group_id"] == "g1"
    new = rows["g2"]
    assert (new["previous_group_id"], new["users_kept_share"], new["has_same_rule"]) == (None, None, False)
    assert new["previous_as_of_date"] == BEFORE


def test_a_group_whose_old_cells_have_no_user_left_continues_nothing(spark):
    today = {("shoes", "a"): "g", ("shoes", "b"): "g"}

    rows = _lineage(spark, today, {("shoes", "a"): "g"}, {("shoes", "b"): 50})

    assert (rows["g"]["previous_group_id"], rows["g"]["users_kept_share"]) == (None, None)


def test_the_first_day_continues_nothing(spark):
    today = {("shoes", "a"): "g1", ("shoes", "b"): "g2"}

    rows = _lineage(spark, today, None, dict.fromkeys(today, 50))

    assert set(rows) == {"g1", "g2"}
    for row in rows.values():
        names = ("previous_as_of_date", "previous_group_id", "users_kept_share", "has_same_rule")
        assert [row[name] for name in names] == [None, None, None, False]


def test_previous_groups_and_their_day_come_together(spark):
    groups = _user_groups(spark, TODAY, {("shoes", "a"): "g"})

    with pytest.raises(ValueError, match="together"):
        list_group_lineage(
            groups, None, _cell_users(spark, {("shoes", "a"): 1}), as_of_date=TODAY, previous_as_of_date=BEFORE
        )
