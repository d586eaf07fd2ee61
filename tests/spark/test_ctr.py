from datetime import date

import numpy as np
import pytest
from scipy.stats import gamma

from osmf_pipelines.spark.ctr import group_ctr
from osmf_pipelines.spark.place_effects import PlaceEffects
from osmf_pipelines.spark.preference_rules import group_id
from osmf_pipelines.tables import TABLES

DAY = date(2026, 3, 1)
EFFECTS = PlaceEffects({("feed", 1): 1.0, ("feed", 2): 0.5}, {DAY: 1.0})


@pytest.fixture(scope="module")
def rates(spark):
    def stats(scope, cell, product, creative, position, shown, clicked):
        return (DAY, scope, cell, 1, product, creative, "feed", position, shown, clicked, None)

    rows = [
        stats("shoes", "age=old", "p1", "a", 1, 1000, 60),
        stats("shoes", "age=old", "p1", "a", 2, 1000, 30),
        stats("shoes", "age=old", "p1", "b", 1, 2000, 60),
        stats("shoes", "age=young", "p1", "a", 1, 3000, 60),
        stats("shoes", "age=young", "p1", "b", 1, 3000, 180),
        stats("shoes", "age=young", "p2", "c", 1, 500, 10),
        stats("shoes", "age=nobody", "p1", "a", 1, 9999, 9),
        stats("lamps", "age=old", "p3", "d", 1, 100, 0),
    ]
    groups = [
        (DAY, "shoes", "age=old", "g-old"),
        (DAY, "shoes", "age=young", "g-young"),
        (DAY, "lamps", "age=old", "g-lamps"),
    ]
    frame = group_ctr(
        spark.createDataFrame(rows, TABLES["creative_stats"].ddl),
        spark.createDataFrame(groups, TABLES["user_groups"].ddl),
        spark.createDataFrame([("p1", "shoes", "train")], TABLES["product_splits"].ddl),
        as_of_date=DAY,
        place_effects=EFFECTS,
    )
    assert ", ".join(f"`{name}` {type_}" for name, type_ in frame.dtypes) == TABLES["group_ctr"].ddl
    return {(row["group_id"], row["creative_id"]): row for row in frame.collect()}


def test_there_is_a_row_for_what_each_group_and_each_root_was_shown(rates):
    root, lamps = group_id("shoes", "everyone"), group_id("lamps", "everyone")

    shown = {("g-old", c) for c in "ab"} | {(g, c) for g in ("g-young", root) for c in "abc"}
    assert set(rates) == shown | {("g-lamps", "d"), (lamps, "d")}
    assert {key[0] for key, row in rates.items() if row["is_scope_root"]} == {root, lamps}


def test_counts_are_exact_and_positions_are_corrected(rates):
    old, root = rates["g-old", "a"], rates[group_id("shoes", "everyone"), "a"]

    assert (old["num_impressions"], old["num_clicks"], old["effective_impressions"]) == (2000, 90, 1500.0)
    assert (root["num_impressions"], root["num_clicks"], root["effective_impressions"]) == (5000, 150, 4500.0)


def test_rates_are_near_their_counts_and_intervals_hold_their_mass(rates):
    for row in rates.values():
        shape, rate = row["posterior_shape"], row["posterior_rate"]
        assert row["ctr_rate"] == pytest.approx(shape / rate)
        mass = gamma.cdf([row["ctr_rate_low"], row["ctr_rate_high"]], shape, scale=1 / rate)
        assert np.allclose(mass, [0.025, 0.975])
    old, young = rates["g-old", "a"], rates["g-young", "a"]
    assert 0.04 < old["ctr_rate"] < 0.08
    assert 0.02 < young["ctr_rate"] < old["ctr_rate"]


def test_one_group_has_the_rates_of_its_root_and_no_clicks_give_a_low_rate(rates):
    group, root = rates["g-lamps", "d"], rates[group_id("lamps", "everyone"), "d"]

    assert group["posterior_shape"] == root["posterior_shape"]
    assert group["posterior_rate"] == root["posterior_rate"]
    assert 0 < group["ctr_rate"] < 0.01
