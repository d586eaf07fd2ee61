from dataclasses import replace

import numpy as np
import pytest
from planted_scope import adjusted_rand_index, draw_scope

from osmf_pipelines.spark.preference_cuts import ScopeCounts, TreeSettings
from osmf_pipelines.spark.preference_model import design_creatives
from osmf_pipelines.spark.preference_rules import UNDIVIDED_RULE
from osmf_pipelines.spark.preference_tree import grow_groups


@pytest.mark.parametrize("segments", [2, 4, 6])
def test_planted_segments_are_found_again(segments):
    counts, planted = draw_scope(11, segments=segments, impressions=400_000, heldout_share=0.2)

    found = grow_groups(counts, TreeSettings())

    assert adjusted_rand_index(found.group_of_cell, planted, counts.cell_users) >= 0.98
    assert len(found.rules) == segments
    assert found.num_cuts_tried > found.num_cuts_accepted >= segments - 1
    assert found.heldout_gain_per_1000 > 0


def test_scopes_that_agree_stay_one_group_though_activity_and_exposure_differ():
    found = [grow_groups(draw_scope(seed, segments=1, impressions=400_000)[0], TreeSettings()) for seed in range(20)]

    assert sum(len(grouping.rules) > 1 for grouping in found) <= 1
    assert all(grouping.rules == (UNDIVIDED_RULE,) for grouping in found if len(grouping.rules) == 1)


@pytest.mark.slow
def test_false_splits_are_rare_over_many_scopes():
    found = [grow_groups(draw_scope(seed, segments=1, impressions=400_000)[0], TreeSettings()) for seed in range(600)]

    assert sum(len(grouping.rules) > 1 for grouping in found) <= 15


def test_the_level_falls_with_the_clicks():
    assert TreeSettings().level(200.0) == TreeSettings().level(1_000.0) == 0.001
    assert TreeSettings().level(50_000.0) == pytest.approx(1 / 50_000)

    # About 10,000 clicks; a level of 1 would cut wherever one of a few hundred corrected p-values is below 1.
    seen = [draw_scope(seed, segments=1, impressions=400_000)[0] for seed in range(20)]
    assert min(counts.clicks.sum() for counts in seen) > 5_000
    found = [grow_groups(counts, TreeSettings(max_p_value=1.0)) for counts in seen]
    assert sum(len(grouping.rules) > 1 for grouping in found) <= 1


def test_the_rows_order_does_not_matter():
    counts, _ = draw_scope(3, segments=4, impressions=200_000)
    order = np.random.default_rng(0).permutation(len(counts.clicks))
    names = ("cell_of", "creative_of", "impressions", "clicks", "heldout_impressions", "heldout_clicks")
    shuffled = replace(counts, **{name: getattr(counts, name)[order] for name in names})

    assert grow_groups(shuffled, TreeSettings()).rules == grow_groups(counts, TreeSettings()).rules


def test_every_group_keeps_the_floors():
    counts, _ = draw_scope(11, segments=6, impressions=400_000)
    fewest = counts.cell_users.sum() // 3

    found = grow_groups(counts, TreeSettings(min_users=int(fewest)))

    users = np.bincount(found.group_of_cell, weights=counts.cell_users)
    assert len(found.rules) > 1
    assert users.min() >= fewest


def test_an_attribute_with_many_values_is_cut_along_an_order_read_from_the_data():
    rng = np.random.default_rng(5)
    cells = sorted(f"city=c{number:02}" for number in range(60))
    planted = np.arange(60) % 2
    design = design_creatives(np.repeat(np.arange(30), 6), rng.normal(size=(180, 3)))
    tastes = np.array([[0.5, -0.5, 0.0], [-0.5, 0.5, 0.3]])
    shown = rng.uniform(20, 60, (60, 180))
    clicks = rng.poisson(shown * 0.05 * np.exp(tastes[planted] @ design.features.T)).astype(float)
    counts = _scope(cells, design, shown, clicks)

    found = grow_groups(counts, TreeSettings(max_values=64))

    assert adjusted_rand_index(found.group_of_cell, planted, counts.cell_users) >= 0.98


def _scope(cells, design, shown, clicks, users_per_cell=100):
    """Counts of every cell and creative, nobody held out."""
    cell_of, creative_of = (index.ravel() for index in np.indices(shown.shape))
    users, nobody = np.full(len(cells), users_per_cell), np.zeros(shown.size)
    return ScopeCounts(cells, users, design, cell_of, creative_of, shown.ravel(), clicks.ravel(), nobody, nobody)


@pytest.mark.parametrize(
    ("cells", "products", "features", "clicks"),
    [
        (["age=old", "age=young"], [0], [[1.0]], [[300], [500]]),
        (["age=old", "age=young"], [0, 0], [[1.0], [2.0]], [[0, 0], [0, 0]]),
        (["age=old"], [0, 0], [[1.0], [2.0]], [[300, 500]]),
        (["unknown"], [0, 0], [[1.0], [2.0]], [[300, 500]]),
        (["age=old", "age=young"], [0, 0], [[2.0], [2.0]], [[300, 900], [900, 300]]),
        (["age=old", "age=young"], [0, 0], [[np.nan], [np.nan]], [[300, 900], [900, 300]]),
        (["age=old", "age=young"], [0, 0], [[], []], [[300, 900], [900, 300]]),
    ],
    ids=["one creative", "no clicks", "one cell", "no attribute", "equal features", "NaN features", "no features"],
)
def test_one_group_comes_out_where_nothing_can_be_told_apart(cells, products, features, clicks):
    design = design_creatives(np.array(products), np.array(features, dtype=float).reshape(len(products), -1))
    clicks = np.array(clicks, dtype=float)

    found = grow_groups(_scope(cells, design, np.full(clicks.shape, 10_000.0), clicks), TreeSettings())

    assert found.rules == (UNDIVIDED_RULE,)
    assert found.group_of_cell.tolist() == [0] * len(cells)
    assert found.heldout_gain_per_1000 == 0


def test_an_empty_scope_is_one_group():
    design = design_creatives(np.array([0, 0]), np.array([[1.0], [2.0]]))
    nothing, none = np.zeros(0), np.zeros(0, dtype=int)
    counts = ScopeCounts(["age=old", "age=young"], np.array([60, 60]), design, none, none, *[nothing] * 4)

    assert grow_groups(counts, TreeSettings()).rules == (UNDIVIDED_RULE,)
