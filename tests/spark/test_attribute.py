import random
from datetime import UTC, datetime, timedelta

from osmf_pipelines.spark.attribute import assign_cells, attribute_clicks, filter_bots
from osmf_pipelines.tables import TABLES

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW_HOURS = 24
IMPRESSIONS_DDL = TABLES["bronze_impressions"].ddl
CLICKS_DDL = TABLES["bronze_clicks"].ddl
USERS_DDL = "user_id string, attributes map<string,string>"
PRODUCTS_DDL = "product_id string, scope string"


def _impression(impression_id, user_id="u1", product_id="p1", at=NOON):
    context = (1, "feed", 0.5, None, None, None)
    return (at.date(), impression_id, user_id, product_id, f"{product_id}-c1", at, *context, "f", at)


def _click(click_id, impression_id, at):
    return (at.date(), click_id, impression_id, at, "f", at)


def _attribute(spark, impressions, clicks, users=(("u1", {"age": "18-24"}),), products=(("p1", "shoes"),)):
    return attribute_clicks(
        spark.createDataFrame(impressions, IMPRESSIONS_DDL),
        spark.createDataFrame(clicks, CLICKS_DDL),
        spark.createDataFrame(list(users), USERS_DDL),
        spark.createDataFrame(list(products), PRODUCTS_DDL),
        attribution_window_hours=WINDOW_HOURS,
        fold_key="key",
    )


def _oracle(impressions, clicks):
    """Outcome per click and click time per impression, by dictionaries."""
    shown_at = {row[1]: row[5] for row in impressions}
    clicked_at, outcomes = {}, {}
    for row in sorted(clicks, key=lambda row: (row[3], row[1])):
        click_id, impression_id, at = row[1:4]
        if impression_id not in shown_at:
            outcomes[click_id] = "orphan"
        elif not timedelta(0) <= at - shown_at[impression_id] <= timedelta(hours=WINDOW_HOURS):
            outcomes[click_id] = "outside_window"
        elif impression_id in clicked_at:
            outcomes[click_id] = "repeat"
        else:
            outcomes[click_id], clicked_at[impression_id] = "attributed", at
    return outcomes, clicked_at


def test_attribution_agrees_with_dictionaries_on_many_small_random_logs(spark):
    rng = random.Random(7)
    hours = [-1, 0, 0, 1, 2, WINDOW_HOURS, WINDOW_HOURS + 1e-6, 40]
    impressions, clicks = [], []
    for log in range(150):
        ids = [f"{log}-i{number}" for number in range(rng.randint(1, 4))]
        impressions += [_impression(name, at=NOON + timedelta(hours=rng.choice([0, 5, 11.5]))) for name in ids]
        shown_at = {row[1]: row[5] for row in impressions}
        for number in range(rng.randint(0, 8)):
            target = rng.choice([*ids, f"{log}-lost"])
            at = shown_at.get(target, NOON) + timedelta(hours=rng.choice(hours))
            clicks.append(_click(f"{log}-k{number}", target, at))

    found = _attribute(spark, impressions, clicks)
    schema = ", ".join(f"`{name}` {type_}" for name, type_ in found.exposures.dtypes)
    assert schema == TABLES["silver_exposures"].ddl

    outcomes, clicked_at = _oracle(impressions, clicks)
    assert {row["click_id"]: row["outcome"] for row in found.click_ledger.collect()} == outcomes
    assert set(outcomes.values()) == {"attributed", "repeat", "outside_window", "orphan"}
    exposures = found.exposures.selectExpr("impression_id", "is_clicked", "unix_micros(clicked_at) AS micros").collect()
    assert len(exposures) == len(impressions)
    assert {row["impression_id"] for row in exposures if row["is_clicked"]} == set(clicked_at)
    assert {row["impression_id"]: row["micros"] for row in exposures if row["is_clicked"]} == {
        name: (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for name, at in clicked_at.items()
    }


def test_cells_name_every_attribute_in_order_and_unknown_users_know_none(spark):
    users = [
        ("u1", {"city": "north|1", "age": "18-24"}),
        ("u2", {"age": " ", "gear=x": "a=b"}),
        ("u3", None),
    ]
    impressions = [_impression(f"i{user}", user_id=user) for user in ("u1", "u2", "u3", "stranger")]

    exposures = _attribute(spark, impressions, [], users).exposures.collect()

    nobody = "age=unknown|city=unknown|gear_x=unknown"
    assert {row["user_id"]: row["cell"] for row in exposures} == {
        "u1": "age=18-24|city=north_1|gear_x=unknown",
        "u2": "age=unknown|city=unknown|gear_x=a_b",
        "u3": nobody,
        "stranger": nobody,
    }


def test_without_any_attribute_the_cell_is_unknown(spark):
    cells = assign_cells(spark.createDataFrame([("u9", {})], USERS_DDL)).collect()

    assert sorted((str(row["user_id"]), row["cell"]) for row in cells) == [("None", "unknown"), ("u9", "unknown")]


def test_folds_follow_the_user_and_the_key_and_are_about_equal(spark):
    impressions = [_impression(f"i{n}", user_id=f"u{n % 500}") for n in range(1000)]

    rows = _attribute(spark, impressions, []).exposures.select("user_id", "user_fold").distinct().collect()

    folds = [row["user_fold"] for row in rows]
    assert len(rows) == 500
    assert set(folds) == {0, 1, 2, 3, 4}
    assert all(60 < folds.count(fold) < 140 for fold in range(5))


def test_bots_are_judged_by_user_and_day_and_take_their_clicks_along(spark):
    tomorrow = NOON + timedelta(days=1)
    impressions = [
        *(_impression(f"bot{n}", user_id="bot") for n in range(3)),
        _impression("bot-next-day", user_id="bot", at=tomorrow),
        *(_impression(f"u{n}", user_id="u1") for n in range(2)),
    ]
    clicks = [_click("k1", "bot1", NOON), _click("k2", "u1", NOON), _click("k3", "lost", NOON)]

    found = filter_bots(
        spark.createDataFrame(impressions, IMPRESSIONS_DDL),
        spark.createDataFrame(clicks, CLICKS_DDL),
        max_impressions_per_user_day=2,
    )

    assert sorted(row["impression_id"] for row in found.impressions.collect()) == ["bot-next-day", "u0", "u1"]
    assert sorted(row["impression_id"] for row in found.bot_impressions.collect()) == ["bot0", "bot1", "bot2"]
    assert sorted(row["click_id"] for row in found.clicks.collect()) == ["k2", "k3"]
    assert [row["click_id"] for row in found.bot_clicks.collect()] == ["k1"]
