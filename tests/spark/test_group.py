from datetime import date
from typing import get_args

import numpy as np
import pytest
from planted_scope import draw_scope

from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.group import (
    count_suppressed_impressions,
    form_groups,
    list_group_features,
    list_scope_reports,
    list_user_groups,
)
from osmf_pipelines.spark.grouping import GroupingMethod
from osmf_pipelines.spark.place_effects import PlaceEffects
from osmf_pipelines.spark.preference_rules import UNDIVIDED_RULE, group_id
from osmf_pipelines.tables import TABLES

DAY = date(2026, 3, 1)
FEATURE_NAMES = ["brightness", "warmth", "saturation", "texture", "gradient"]
EFFECTS = PlaceEffects({("feed", 1): 1.0, ("feed", 2): 0.5}, {DAY: 1.0})


def _market(spark):
    """Two planted scopes, shoes with 2 segments and lamps with 1, and hats, which 30 users have seen."""
    stats, users, features, splits = [], [], [], []
    for scope, segments, seed in (("shoes", 2, 11), ("lamps", 1, 4)):
        counts, _ = draw_scope(seed, segments=segments, impressions=300_000, num_products=6, heldout_share=0.2)
        design = counts.design
        for cell, creative, *amounts in zip(
            counts.cell_of,
            counts.creative_of,
            *(counts.impressions, counts.clicks, counts.heldout_impressions, counts.heldout_clicks),
            strict=True,
        ):
            product = f"{scope}-p{design.product_of[creative]:02}"
            keys = (DAY, scope, counts.cells[cell])
            ids = (product, f"{product}-c{creative:03}")
            for fold, (shown, clicked) in enumerate((amounts[2:], amounts[:2])):
                stats.append((*keys, fold, *ids, "feed", 1, int(shown), int(clicked), None))
        for cell, text in enumerate(counts.cells):
            users += [(DAY, scope, text, f"{scope}-{cell}-{number}") for number in range(3)]
        for creative, values in enumerate(design.features * design.scale):
            product = f"{scope}-p{design.product_of[creative]:02}"
            ids = (f"{product}-c{creative:03}", product, scope)
            features.append((*ids, FEATURE_NAMES, [float(value) for value in values], 0.2))
        splits += [(f"{scope}-p{n:02}", scope, "test" if n < 2 else "train") for n in range(6)]
    stats.append((DAY, "hats", "age=50+", 1, "hats-p", "hats-c", "feed", 1, 900, 90, None))
    users += [(DAY, "hats", "age=50+", f"hat-{number}") for number in range(30)]
    rows = {"creative_stats": stats, "cell_users": users, "creative_features": features, "product_splits": splits}
    return [spark.createDataFrame(values, TABLES[name].ddl) for name, values in rows.items()]


@pytest.fixture(scope="module")
def formed(spark):
    frame = form_groups(*_market(spark), as_of_date=DAY, place_effects=EFFECTS, min_users=50, min_clicks=200).cache()
    yield frame
    frame.unpersist()


def _types(frame):
    return ", ".join(f"`{name}` {type_}" for name, type_ in frame.dtypes)


def test_user_groups_map_every_cell_of_a_published_scope_once(formed):
    groups = list_user_groups(formed)
    rows = groups.collect()

    assert _types(groups) == TABLES["user_groups"].ddl
    assert {row["scope"] for row in rows} == {"shoes", "lamps"}
    assert len({(row["scope"], row["cell"]) for row in rows}) == len(rows) == 720
    by_age = {(row["cell"].split("|")[0], row["group_id"]) for row in rows if row["scope"] == "shoes"}
    assert len(by_age) == 4, "the planted segments of shoes follow age"
    assert len({row["group_id"] for row in rows if row["scope"] == "shoes"}) == 2
    assert {row["group_id"] for row in rows if row["scope"] == "lamps"} == {group_id("lamps", UNDIVIDED_RULE)}


def test_group_features_add_up_to_the_root_and_look_at_training_products_only(formed):
    features = list_group_features(formed)
    rows = features.collect()

    assert _types(features) == TABLES["group_features"].ddl
    assert {row["scope"]: row["group_id"] for row in rows if row["is_scope_root"]} == {
        scope: group_id(scope, "everyone") for scope in ("shoes", "lamps")
    }
    for scope in ("shoes", "lamps"):
        (root,) = (row for row in rows if row["scope"] == scope and row["is_scope_root"])
        groups = [row for row in rows if row["scope"] == scope and not row["is_scope_root"]]
        assert root["num_users"] == 360 * 3
        for name in ("num_users", "num_impressions", "num_clicks"):
            assert sum(row[name] for row in groups) == root[name]
        assert all(row["attribute_shares"].keys() == root["attribute_shares"].keys() for row in groups)
    exemplars = [name for row in rows for name in row["top_creative_ids"] + row["bottom_creative_ids"]]
    assert len(exemplars) == len(rows) * 6
    assert not any("-p00-" in name or "-p01-" in name for name in exemplars)


def test_groups_differ_in_taste_and_the_description_says_who_they_are(formed):
    rows = [
        row for row in list_group_features(formed).collect() if row["scope"] == "shoes" and not row["is_scope_root"]
    ]

    first, second = (np.array(row["preference"]) for row in rows)
    errors = [np.array(row["preference_se"]) for row in rows]
    assert np.abs(first - second).max() > 5 * np.sqrt(errors[0] ** 2 + errors[1] ** 2).max()
    assert {row["rule"] for row in rows} == {"age in {18-24, 25-34}", "age in {35-49, 50+}"}
    assert {row["description"].split(";")[0] for row in rows} == {
        "mostly age 18-24 or 25-34",
        "mostly age 35-49 or 50+",
    }


def test_scope_reports_say_how_the_groups_came_about(formed):
    rows = {row["scope"]: row for row in list_scope_reports(formed).collect()}

    assert rows["shoes"]["num_groups"] == 2
    assert rows["shoes"]["num_cuts_accepted"] == 1
    assert rows["shoes"]["heldout_gain_per_1000"] > 0
    assert rows["lamps"]["num_groups"] == 1
    assert rows["lamps"]["heldout_gain_per_1000"] == 0


def test_impressions_of_cells_without_a_group_are_suppressed(spark, formed):
    stats, groups = _market(spark)[0], list_user_groups(formed)

    assert count_suppressed_impressions(stats, groups) == 900, "the hats"
    assert count_suppressed_impressions(stats.where("scope <> 'hats'"), groups) == 0
    assert count_suppressed_impressions(stats.where("scope = 'hats'"), groups.limit(0)) == 900


def test_a_way_to_group_that_there_is_not_is_refused(spark):
    with pytest.raises(ValueError, match=r"'tree'.*adaptive, one_group, attribute_cross, kmeans"):
        form_groups(*_market(spark), as_of_date=DAY, place_effects=EFFECTS, grouping="tree")


def test_settings_name_the_ways_to_group():
    assert get_args(Settings.model_fields["grouping"].annotation) == get_args(GroupingMethod)


def test_a_scope_with_held_out_products_only_and_no_features_is_one_group_without_a_taste(spark):
    stats, users, features, splits = _market(spark)
    only_hats = [stats.where("scope = 'hats'"), users.where("scope = 'hats'"), features, splits]

    rows = list_group_features(form_groups(*only_hats, as_of_date=DAY, place_effects=EFFECTS, min_users=30)).collect()

    assert [(row["is_scope_root"], row["num_users"], row["num_clicks"]) for row in rows] == [
        (True, 30, 90),
        (False, 30, 90),
    ]
    assert all(row["preference"] == [] and row["top_creative_ids"] == [] for row in rows)
