"""Policies, their sums over logs, and what is told of them: by hand, and against numpy."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from osmf_models.evaluation.off_policy import SUM_NAMES, sum_by_user
from osmf_pipelines.spark.off_policy import add_context, scale_of, sum_by_bucket
from osmf_pipelines.spark.place_effects import PlaceEffects
from osmf_pipelines.spark.policies import (
    BEST_FOR_ALL,
    BEST_PER_GROUP,
    GROUP_CONTEXT,
    LOGGING,
    choose_best_creatives,
    list_arm_policies,
    name_arms,
)
from osmf_pipelines.spark.policy_values import rate_without_heldout, value_scope

DAY = date(2026, 3, 2)
# Group g likes b, everyone a; nobody of g was shown product p2.
RATES = [
    ("shoes", "root", True, "p1", "a", 0.05),
    ("shoes", "root", True, "p1", "b", 0.04),
    ("shoes", "root", True, "p2", "d", 0.02),
    ("shoes", "root", True, "p2", "c", 0.02),
    ("shoes", "g", False, "p1", "a", 0.03),
    ("shoes", "g", False, "p1", "b", 0.09),
]
RATES_DDL = (
    "scope string, group_id string, is_scope_root boolean, product_id string, creative_id string, ctr_rate double"
)
EXPOSURES_DDL = """event_date date, scope string, cell string, user_fold int, user_id string, product_id string,
    creative_id string, slot_type string, position int, propensity double, arm string, is_clicked boolean"""


@pytest.fixture(scope="module")
def rates(spark):
    return spark.createDataFrame(RATES, RATES_DDL)


def test_the_best_creative_is_the_groups_own_or_else_that_of_all(rates) -> None:
    rows = choose_best_creatives(rates).collect()
    found = {(row["policy"], row["group_id"], row["product_id"]): row for row in rows}
    shown = {key: row["probabilities"] for key, row in found.items()}
    assert shown[BEST_PER_GROUP, "g", "p1"] == {"b": 1.0}
    assert shown[BEST_FOR_ALL, "g", "p1"] == {"a": 1.0}
    assert shown[BEST_PER_GROUP, "root", "p1"] == {"a": 1.0}
    assert shown[BEST_PER_GROUP, "g", "p2"] == {"c": 1.0}  # two equal rates: the first id
    assert shown[LOGGING, "g", "p1"] is None
    assert found[BEST_PER_GROUP, "g", "p1"]["expected_rate"] == 0.09
    assert found[BEST_FOR_ALL, "g", "p1"]["expected_rate"] == 0.03  # the rate in the group, not that of all
    assert found[BEST_FOR_ALL, "g", "p2"]["expected_rate"] == 0.02
    assert len(rows) == len(found) == 3 * 2 * 2


def exposure(user, creative, propensity, clicked, *, product="p1", cell="young", position=1, arm=None, scope="shoes"):
    return (DAY, scope, cell, 0, user, product, creative, "feed", position, propensity, arm, clicked)


def test_sums_are_of_exposures_with_propensities_whose_product_a_policy_knows(spark, rates) -> None:
    rows = [
        exposure("u1", "b", 0.25, True),  # young are in g
        exposure("u1", "a", 0.5, False, position=2),
        exposure("u2", "a", 0.5, True, cell="old"),  # in no group, hence in the root
        exposure("u2", "a", None, True, cell="old"),
        exposure("u2", "z", 0.5, True, cell="old", product="p9"),
    ]
    exposures = spark.createDataFrame(rows, EXPOSURES_DDL)
    groups = spark.createDataFrame([("shoes", "young", "g")], "scope string, cell string, group_id string")
    roots = spark.createDataFrame([("shoes", "root")], "scope string, root_id string")
    effects = PlaceEffects({("feed", 1): 1.0, ("feed", 2): 0.5}, {DAY: 2.0})
    in_context = add_context(exposures, groups, roots, effects)
    found = sum_by_bucket(in_context, choose_best_creatives(rates), GROUP_CONTEXT, max_weight=3.0).toPandas()
    sums = found[found["scope"] == "shoes"].groupby("policy")[["num_users", *SUM_NAMES]].sum()
    for name in SUM_NAMES:
        sums[name] = sums[name] / scale_of(name)
    assert sums["num_users"].tolist() == [2, 2, 2]
    assert sums["num_impressions"].tolist() == [3, 3, 3]
    per_group, for_all = sums.loc[BEST_PER_GROUP], sums.loc[BEST_FOR_ALL]
    # u1's b has weight 4, clipped to 3; u1's a is not shown to g; u2's a has weight 2.
    assert (per_group["weights"], per_group["weighted_clicks"], per_group["num_clipped"]) == (5.0, 5.0, 1)
    assert per_group["squared_weighted_clicks"] == 9 + 4
    # Twice the rate on this day, half of that at position 2.
    assert per_group["expected_clicks"] == pytest.approx(2 * 0.09 + 2 * 0.09 * 0.5 + 2 * 0.05)
    assert per_group["weighted_expected_clicks"] == pytest.approx(3 * 2 * 0.09 + 2 * 2 * 0.05)
    assert (for_all["weights"], for_all["weighted_clicks"]) == (4.0, 2.0)
    assert sums.loc[LOGGING, "weights"] == 3.0


def test_sums_are_those_of_numpy_and_all_scopes_add_up_to_the_whole(spark) -> None:
    rng = np.random.default_rng(4)
    scopes, creatives = rng.choice(["shoes", "bags"], 300), rng.choice(["a", "b", "c"], 300)
    users, clicked, propensities = rng.integers(0, 40, 300), rng.random(300) < 0.3, rng.choice([0.2, 0.5, 0.8], 300)
    rows = [
        exposure(f"u{user}", str(creative), float(p), bool(click), scope=str(scope), cell="any")
        for user, creative, p, click, scope in zip(users, creatives, propensities, clicked, scopes, strict=True)
    ]
    exposures = spark.createDataFrame(rows, EXPOSURES_DDL).selectExpr("*", "'g' AS group_id", "1.0D AS place_effect")
    policy = [
        (scope, "g", "p1", "mixed", 0.5 * 0.1 + 0.5 * 0.3, {"a": 0.5, "b": 0.5}, {"a": 0.1, "b": 0.3})
        for scope in ("shoes", "bags")
    ]
    ddl = """scope string, group_id string, product_id string, policy string, expected_rate double,
        probabilities map<string,double>, predicted_rates map<string,double>"""
    policies = spark.createDataFrame(policy, ddl)
    found = sum_by_bucket(exposures, policies, GROUP_CONTEXT, max_weight=2.0).toPandas()
    probability, predicted = (
        np.where(creatives == "c", 0.0, 0.5),
        np.select([creatives == "a", creatives == "b"], [0.1, 0.3]),
    )
    sums = sum_by_user(
        users, clicked, probability / propensities, np.full(300, 0.2), predicted, num_users=40, max_weight=2.0
    )
    together = found[found["scope"].isna()]
    for name in SUM_NAMES:
        expected = float(getattr(sums.total, name))
        assert together[name].sum() / scale_of(name) == pytest.approx(expected, rel=1e-5)
        assert found[found["scope"].notna()][name].sum() == together[name].sum()
    assert together["num_users"].sum() == len(set(users))


def test_an_arm_shows_each_creative_as_often_as_its_logs(spark) -> None:
    rows = [exposure(f"u{n}", "a" if n < 3 else "b", 0.5, n == 0, arm="ts") for n in range(4)]
    rows += [exposure("u9", "b", 0.5, False, arm="ts", position=2), exposure("u8", "a", 0.5, True, arm=None)]
    policies = list_arm_policies(spark.createDataFrame(rows, EXPOSURES_DDL)).collect()
    found = {(row["policy"], row["position"]): row for row in policies}
    assert found["arm ts", 1]["probabilities"] == {"a": 0.75, "b": 0.25}
    assert found["arm ts", 2]["probabilities"] == {"b": 1.0}
    # One click among 5 impressions, half a click and one impression added: 0.25; one click more at that rate for each.
    assert found["arm ts", 1]["predicted_rates"] == pytest.approx({"a": (1 + 1) / (3 + 4), "b": 1 / (2 + 4)})
    assert set(found) == {("arm ts", 1), ("arm ts", 2), (LOGGING, 1), (LOGGING, 2)}


def test_arms_of_two_experiments_that_are_called_alike_are_two(spark) -> None:
    rows = [(name, "control") for name in ("spring", "summer", None)] + [("spring", None)]
    found = name_arms(spark.createDataFrame(rows, "experiment_id string, arm string")).collect()
    assert [row["arm"] for row in found] == ["spring/control", "summer/control", "control", None]


def stats_rows(fold, clicks):
    rows = []
    for cell in ("age=old", "age=young"):
        for creative, num_clicks in clicks.items():
            rows.append((DAY, "shoes", cell, fold, "p1", creative, "feed", 1, 1000, num_clicks))
    return rows


def test_the_clicks_of_held_out_users_choose_nothing(spark) -> None:
    """They love b; everyone else clicks a. What they click changes no rate."""
    ddl = """event_date date, scope string, cell string, user_fold int, product_id string, creative_id string,
        slot_type string, position int, num_impressions bigint, num_clicks bigint"""
    groups = spark.createDataFrame(
        [("shoes", "age=old", "g0"), ("shoes", "age=young", "g1")], "scope string, cell string, group_id string"
    )
    splits = spark.createDataFrame([("p1", "train")], "product_id string, split string")
    seen = []
    for heldout in ({"a": 10, "b": 900}, {"a": 900, "b": 10}):
        stats = spark.createDataFrame(stats_rows(0, heldout) + stats_rows(1, {"a": 60, "b": 30}), ddl)
        rates, effects = rate_without_heldout(stats, groups, splits, as_of_date=DAY)
        table = rates.orderBy("group_id", "creative_id").toPandas()
        chosen = {
            tuple(row["probabilities"]) for row in choose_best_creatives(rates).where("policy <> 'logging'").collect()
        }
        assert chosen == {("a",)}
        seen.append((table, effects))
    pd.testing.assert_frame_equal(seen[0][0], seen[1][0])
    assert seen[0][1] == seen[1][1]


def sums_frame(rows):
    """Rows of (users, arm, policy, weight, clicks) in 200 buckets of one user with ten impressions each."""
    frames = []
    for users, arm, policy, weight, clicks in rows:
        frame = pd.DataFrame({"bucket": np.arange(200), "num_users": 1}).assign(
            scope="shoes", users=users, logged_arm=arm, policy=policy
        )
        values = {
            "num_impressions": 10,
            "num_clicks": clicks,
            "weights": 10 * weight,
            "squared_weights": 10 * weight**2,
        }
        values |= {"weighted_clicks": clicks * weight, "squared_weighted_clicks": clicks * weight**2}
        values |= {"expected_clicks": 1.0, "weighted_expected_clicks": 1.0, "num_clipped": float(weight > 50)}
        for name, value in values.items():
            frame[name] = int(value * scale_of(name))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def test_an_arm_is_not_valued_on_the_logs_that_chose_it_nor_where_weights_would_be_clipped() -> None:
    rows = [("all", arm, "logging", 1.0, clicks) for arm, clicks in (("uniform", 1), ("ts", 2))]
    rows += [
        ("all", "uniform", "arm ts", 1.0, 1),
        ("all", "ts", "arm ts", 1.0, 2),
        ("all", "ts", "arm uniform", 60.0, 1),
    ]
    found = value_scope(sums_frame(rows), min_users=50)
    policies = found[found["policy"] != "logging"]
    assert set(zip(policies["logged_arm"], policies["policy"], strict=True)) == {("uniform", "arm ts")}
    own = found[(found["compared_with"] == "own_logs") & (found["estimator"] == "snips")].iloc[0]
    assert own["value"] == pytest.approx(0.1 - 0.2)
    assert own["num_users"] == 200
    assert own["value_low"] <= own["value"] <= own["value_high"]


def test_differences_are_of_the_same_users_and_few_clicks_have_no_interval() -> None:
    rows = [("held_out", None, policy, 2.0, 1) for policy in ("best_for_all", "best_per_group")]
    rows.append(("held_out", None, "logging", 1.0, 1))
    found = value_scope(sums_frame(rows), min_users=50).set_index(["policy", "compared_with", "estimator"])
    same = found.loc["best_per_group", "best_for_all", "snips"]
    assert (same["value"], same["value_low"], same["value_high"]) == (0.0, 0.0, 0.0)
    assert found["logged_arm"].isna().all()
    few = value_scope(sums_frame([("held_out", None, "logging", 1.0, 0)]), min_users=50).iloc[0]
    assert few["value"] == 0.0
    assert np.isnan(float(few["value_low"] if few["value_low"] is not None else np.nan))


def test_logs_of_fewer_users_than_the_floor_value_nothing() -> None:
    assert value_scope(sums_frame([("held_out", None, "logging", 1.0, 1)]), min_users=201).empty
