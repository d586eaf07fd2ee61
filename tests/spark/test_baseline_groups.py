from dataclasses import replace
from datetime import date
from itertools import product

import numpy as np
import pytest
from planted_scope import draw_scope
from pyspark.sql import functions as F

from osmf_pipelines.spark.baseline_groups import (
    cell_tastes,
    cross_attributes,
    group_clusters,
    join_small_clusters,
    keep_one_group,
)
from osmf_pipelines.spark.group import (
    count_suppressed_impressions,
    form_groups,
    list_group_features,
    list_scope_reports,
    list_user_groups,
)
from osmf_pipelines.spark.place_effects import PlaceEffects
from osmf_pipelines.spark.preference_cuts import ScopeCounts, TreeSettings
from osmf_pipelines.spark.preference_model import design_creatives
from osmf_pipelines.spark.preference_rules import UNDIVIDED_RULE, group_id, parse_cell
from osmf_pipelines.spark.preference_tree import grow_groups
from osmf_pipelines.tables import TABLES

pytestmark = pytest.mark.slow
METHODS = ["adaptive", "one_group", "attribute_cross", "kmeans"]
DAYS = [date(2026, 3, 1), date(2026, 3, 2)]
EFFECTS = PlaceEffects({("feed", 1): 1.0}, dict.fromkeys(DAYS, 1.0))
CELLS = [f"age={age}|city={city}" for age, city in product("ab", "xyz")]
PLANTED = {cell: index % 2 for index, cell in enumerate(CELLS)}  # every other cell: no attribute tells the tastes apart


def _scope(cells, users, clicks, shown=1000.0):
    """One product with two creatives, warm and cold, shown equally often to each cell."""
    design = design_creatives(np.array([0, 0]), np.array([[1.0], [-1.0]]))
    cell_of, creative_of = (index.ravel() for index in np.indices((len(cells), 2)))
    impressions, nobody = np.full(2 * len(cells), shown), np.zeros(2 * len(cells))
    clicks = np.array(clicks, dtype=float).ravel()
    return ScopeCounts(cells, np.array(users), design, cell_of, creative_of, impressions, clicks, nobody, nobody)


def _matches(rule, cell):
    """Whether a cell fulfils a rule text such as `age in {a, b} & city in {x} or age in {c}`."""
    values = parse_cell(cell)
    boxes = [[condition.rstrip("}").split(" in {") for condition in box.split(" & ")] for box in rule.split(" or ")]
    return any(all(values[name] in allowed.split(", ") for name, allowed in box) for box in boxes)


def test_one_group_has_the_id_of_a_scope_that_the_tree_does_not_cut():
    counts = _scope(["age=a", "age=b"], [60, 60], [[30, 30], [30, 30]])

    assert keep_one_group(counts, TreeSettings()).rules == grow_groups(counts, TreeSettings()).rules


def test_crosses_under_the_floor_of_users_join_the_sibling_with_the_fewest():
    cells = ["age=old|city=n", "age=old|city=s", "age=teen|city=n", "age=young|city=n", "age=young|city=s"]
    counts = _scope(cells, [60, 40, 20, 60, 60], [[50, 50]] * 5)

    found = cross_attributes(counts, TreeSettings(min_users=50, min_clicks=100))

    # 20 teens join the 100 old, not the 120 young; of these 120, the south has 40 users only.
    assert found.rules == ("age in {old, teen}", "age in {young} & city in {n}", "age in {young} & city in {s}")
    assert found.group_of_cell.tolist() == [0, 0, 0, 1, 2]


def test_values_under_the_floor_share_a_cross_of_their_own_where_together_they_are_enough():
    cells = [f"age={age}" for age in "abcd"]

    found = cross_attributes(_scope(cells, [30, 90, 40, 90], [[50, 50]] * 4), TreeSettings(min_users=50, min_clicks=1))

    assert found.rules == ("age in {a, c}", "age in {b}", "age in {d}")


def test_a_cross_has_impressions_for_the_clicks_of_the_floor():
    cells = ["age=a", "age=b", "age=c", "age=d"]
    counts = _scope(cells, [90] * 4, [[100, 100], [0, 0], [0, 0], [0, 0]])  # 50 clicks each at the rate of the scope

    assert len(cross_attributes(counts, TreeSettings(min_clicks=50)).rules) == 4
    assert cross_attributes(counts, TreeSettings(min_clicks=51)).rules == (UNDIVIDED_RULE,)


def test_crosses_do_not_depend_on_who_clicked_what():
    counts, _ = draw_scope(3, segments=2, impressions=300_000)
    shuffled = replace(counts, clicks=np.random.default_rng(0).permutation(counts.clicks))

    crosses, crosses_of_shuffled = (cross_attributes(c, TreeSettings()) for c in (counts, shuffled))

    assert len(crosses.rules) > 2
    assert crosses_of_shuffled.rules == crosses.rules
    assert crosses_of_shuffled.group_of_cell.tolist() == crosses.group_of_cell.tolist()
    assert grow_groups(shuffled, TreeSettings()).rules != grow_groups(counts, TreeSettings()).rules


@pytest.mark.parametrize("min_users", [50, 500, 3000])
def test_crosses_keep_the_floor_and_each_cell_fulfils_the_rule_of_its_group_alone(min_users):
    counts, _ = draw_scope(5, segments=4, impressions=400_000)

    found = cross_attributes(counts, TreeSettings(min_users=min_users))

    assert len(found.rules) > 1
    assert np.bincount(found.group_of_cell, counts.cell_users).min() >= min_users
    for cell, group in zip(counts.cells, found.group_of_cell, strict=True):
        assert [_matches(rule, cell) for rule in found.rules] == [index == group for index in range(len(found.rules))]


def test_a_cells_taste_is_its_clicks_against_its_own_level_shrunk_by_ten_clicks():
    counts = _scope(["age=a", "age=b", "age=c"], [1, 1, 1], [[30, 10], [10, 30], [0, 0]])

    # The scope prefers neither: one step is (warm - cold) / (warm + cold + 10).
    assert cell_tastes(counts).ravel() == pytest.approx([0.4, -0.4, 0.0])


def test_a_cluster_under_a_floor_joins_the_nearest_centroid():
    tastes = np.array([[0.0], [1.0], [10.0], [10.0]])
    clusters = np.array([5, 3, 8, 8])
    users, clicks = np.array([100.0, 10.0, 50.0, 50.0]), np.array([500.0, 500.0, 100.0, 100.0])

    def join(**floors):
        return join_small_clusters(clusters, tastes, users, clicks, TreeSettings(**floors)).tolist()

    assert join(min_users=10, min_clicks=200) == [1, 0, 2, 2]
    assert join(min_users=50, min_clicks=200) == [0, 0, 1, 1]
    assert join(min_users=50, min_clicks=201) == [0, 0, 0, 0]


def test_the_rule_of_a_cluster_depends_on_its_cells_alone():
    counts = _scope(["age=a", "age=b", "age=c"], [60, 60, 60], [[30, 30]] * 3)

    found = group_clusters(counts, np.array([7, 2, 7]))

    assert group_clusters(counts, np.array([0, 1, 0])).rules == found.rules
    assert set(group_clusters(counts, np.array([0, 1, 1])).rules).isdisjoint(found.rules)
    assert found.group_of_cell[0] == found.group_of_cell[2] != found.group_of_cell[1]
    assert group_clusters(counts, np.array([4, 4, 4])).rules == (UNDIVIDED_RULE,)


def _planted_market(spark):
    """6 cells of 40 users, of two opposite tastes; a cell has some 500 clicks."""
    rng = np.random.default_rng(0)
    stats, users, features = [], [], []
    warmth = rng.uniform(-1.5, 1.5, (3, 6))
    for (p, c), value in np.ndenumerate(warmth):
        ids = (f"p{p}", f"p{p}-c{c}")
        features.append((ids[1], ids[0], "shoes", ["warmth", "texture"], [float(value), float(rng.normal())], None))
        for cell in CELLS:
            rate = 0.03 * np.exp(0.7 * value if PLANTED[cell] else -0.7 * value)
            for fold, shown in enumerate((160, 640)):
                clicks = int(rng.binomial(shown, rate))
                stats.append((DAYS[0], "shoes", cell, fold, *ids, "feed", 1, shown, clicks, None))
    users = [(DAYS[0], "shoes", cell, f"{cell}-{number}") for cell in CELLS for number in range(40)]
    splits = [(f"p{p}", "shoes", "train") for p in range(3)]
    return _frames(spark, stats, users, features, splits)


def _frames(spark, stats, users, features, splits):
    rows = {"creative_stats": stats, "cell_users": users, "creative_features": features, "product_splits": splits}
    return [spark.createDataFrame(values, TABLES[name].ddl) for name, values in rows.items()]


def _form(frames, method, **floors):
    return form_groups(*frames, as_of_date=DAYS[-1], place_effects=EFFECTS, grouping=method, **floors)


def _tell(formed):
    """All that is told of the groups, in an order of its own."""
    return sorted((row.asDict() for row in formed.collect()), key=lambda row: (row["scope"], row["group_id"]))


@pytest.fixture(scope="module")
def planted(spark):
    """What each method tells of the planted market."""
    frames = _planted_market(spark)
    return {method: _tell(_form(frames, method)) for method in METHODS}


def test_kmeans_finds_two_opposite_tastes_again(planted):
    groups = [row["cells"] for row in planted["kmeans"] if not row["is_scope_root"]]

    assert sorted(map(sorted, groups)) == [sorted(c for c in CELLS if PLANTED[c] == taste) for taste in (0, 1)]
    assert planted["kmeans"][0]["heldout_gain_per_1000"] > 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_each_cell_one_group_above_the_floor(planted, method):
    groups = [row for row in planted[method] if not row["is_scope_root"]]

    assert sorted(cell for row in groups for cell in row["cells"]) == CELLS
    assert all(row["num_users"] == 40 * len(row["cells"]) >= 50 for row in groups)
    assert all(row["group_id"] == group_id("shoes", row["rule"]) for row in groups)
    assert (len(groups) == 1) == (method == "one_group")


def test_the_root_is_told_the_same_whatever_the_groups(planted):
    first, *others = [next(row for row in planted[method] if row["is_scope_root"]) for method in METHODS]

    for name in TABLES["group_features"].column_names:
        is_float = name in ("preference", "preference_se")
        assert [row[name] for row in others] == [pytest.approx(first[name]) if is_float else first[name]] * 3


@pytest.mark.parametrize("method", METHODS)
def test_order_of_rows_and_partitions_do_not_matter(spark, planted, method):
    shuffled = [frame.orderBy(F.rand(seed=7)).repartition(5) for frame in _planted_market(spark)]

    assert _tell(_form(shuffled, method)) == planted[method]


def test_kmeans_clusters_under_the_floor_end_as_one_group(spark):
    frames = _planted_market(spark)

    told = _tell(_form(frames, "kmeans", min_users=121))

    assert {row["rule"] for row in told if not row["is_scope_root"]} == {UNDIVIDED_RULE}


def _scopes_at_the_floor(spark, floor):
    """Scopes that one user less than the floor, as many, and one more have seen: all in two cells on two days."""
    stats, users, features, splits = [], [], [], []
    for scope, num_users in (("below", floor - 1), ("at", floor), ("above", floor + 1)):
        splits.append((f"{scope}-p", scope, "train"))
        for creative, warmth in enumerate((1.0, 0.2, -1.0)):
            ids = (f"{scope}-p", f"{scope}-c{creative}")
            features.append((ids[1], ids[0], scope, ["warmth"], [warmth], None))
            for day, city in product(DAYS, ("north", "south")):
                clicks = 40 + creative * (10 if city == "north" else -10)
                keys = (day, scope, f"city={scope}-{city}", 1)
                stats.append((*keys, *ids, "feed", 1, 500, clicks, None))
        for day, city, number in product(DAYS, ("north", "south"), range(num_users)):
            users.append((day, scope, f"city={scope}-{city}", f"{scope}-{number}"))
    return _frames(spark, stats, users, features, splits)


@pytest.mark.parametrize("method", METHODS)
def test_a_scope_one_user_under_the_floor_leaves_no_trace(spark, method):
    frames = _scopes_at_the_floor(spark, floor=20)
    formed = _form(frames, method, min_users=20, min_clicks=50).cache()

    told = [list_user_groups(formed), list_group_features(formed), list_scope_reports(formed)]
    rows = [row for frame in told for row in frame.collect()]
    num_suppressed = count_suppressed_impressions(frames[0], told[0])
    formed.unpersist()

    assert {row["scope"] for row in rows} == {"at", "above"}
    assert "below" not in str(rows)
    assert num_suppressed == 3 * 2 * 2 * 500
    assert min(row["num_users"] for row in rows if "num_users" in row) == 20
