from datetime import UTC, datetime, timedelta

from osmf_pipelines.spark.attribute import (
    CLICK_OUTCOMES,
    assign_cells,
    days_touched,
    form_exposures,
    judge_clicks,
    set_clicks,
)
from osmf_pipelines.tables import TABLES

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW_HOURS = 24
IMPRESSIONS_DDL = TABLES["bronze_impressions"].ddl
CLICKS_DDL = TABLES["bronze_clicks"].ddl
USERS_DDL = "user_id string, attributes map<string,string>"
PRODUCTS_DDL = "product_id string, scope string"


DAY = timedelta(days=1)
SETTINGS = {"attribution_window_hours": WINDOW_HOURS, "click_lookback_days": 3, "max_impressions_per_user_day": 10}


def _impression(impression_id, user_id="u1", product_id="p1", at=NOON, num_user_impressions=1):
    context = (1, "feed", 0.5, None, None, None)
    return (
        at.date(),
        impression_id,
        user_id,
        product_id,
        f"{product_id}-c1",
        at,
        *context,
        num_user_impressions,
        "f",
        at,
    )


def _click(click_id, impression_id, at, delivered=0):
    return (at.date() + delivered * DAY, click_id, impression_id, at, "f", at)


def _judge(spark, impressions, clicks):
    return judge_clicks(
        spark.createDataFrame(impressions, IMPRESSIONS_DDL), spark.createDataFrame(clicks, CLICKS_DDL), **SETTINGS
    )


def _outcomes(judged):
    return {(row["click_id"], row["source_date"].day): row["outcome"] for row in judged.collect()}


def _exposures(spark, impressions, clicks, users=(("u1", {"age": "18-24"}),), products=(("p1", "shoes"),)):
    return form_exposures(
        spark.createDataFrame(impressions, IMPRESSIONS_DDL),
        _judge(spark, impressions, clicks),
        spark.createDataFrame(list(users), USERS_DDL),
        spark.createDataFrame(list(products), PRODUCTS_DDL),
        max_impressions_per_user_day=10,
        fold_key="key",
    )


def test_every_outcome_by_hand(spark):
    hour = timedelta(hours=1)
    impressions = [
        _impression("a"),
        _impression("twice"),
        _impression("twice", at=NOON + DAY),
        _impression("seen-by-bot", user_id="bot", num_user_impressions=11),
    ]
    clicks = [
        _click("second", "a", NOON + 2 * hour),
        _click("first", "a", NOON + hour),
        _click("first", "a", NOON + hour, delivered=2),
        _click("edge", "twice", NOON + 24 * hour - timedelta(microseconds=1)),
        _click("newer", "twice", NOON + DAY),
        _click("skewed", "a", NOON - hour),
        _click("far", "a", NOON + 24 * hour + timedelta(microseconds=1)),
        _click("automatic", "seen-by-bot", NOON),
        _click("told-twice", "a", NOON + hour),
        _click("told-twice", "twice", NOON + hour, delivered=1),
        _click("lost", "nowhere", NOON),
        _click("final", "a", NOON + hour, delivered=4),
    ]

    judged = _judge(spark, impressions, clicks)

    outcomes = _outcomes(judged)
    assert outcomes == {
        ("second", 1): "repeat",
        ("first", 1): "attributed",
        ("first", 3): "duplicate",
        ("edge", 2): "attributed",
        ("newer", 2): "attributed",
        ("skewed", 1): "before_impression",
        ("far", 2): "outside_window",
        ("automatic", 1): "bot",
        ("told-twice", 1): "conflict",
        ("told-twice", 2): "conflict",
        ("lost", 1): "orphan",
        ("final", 5): "past_lookback",
    }
    assert set(outcomes.values()) == set(CLICK_OUTCOMES)
    days = {row["click_id"]: row["event_date"].day for row in judged.where("outcome = 'attributed'").collect()}
    assert days == {"first": 1, "edge": 1, "newer": 2}


def test_equal_times_go_to_the_smaller_click_id(spark):
    clicks = [_click("k2", "a", NOON), _click("k1", "a", NOON)]
    assert _outcomes(_judge(spark, [_impression("a")], clicks)) == {("k1", 1): "attributed", ("k2", 1): "repeat"}


def test_a_click_touches_the_day_of_its_impression_and_of_its_conflict(spark):
    impressions = [_impression("a"), _impression("b", at=NOON + DAY), _impression("c", at=NOON + 2 * DAY)]
    clicks = [
        _click("k1", "b", NOON + DAY, delivered=1),
        _click("k2", "a", NOON),
        _click("k2", "c", NOON + 2 * DAY),
        _click("k3", "a", NOON, delivered=3),
    ]
    judged = _judge(spark, impressions, clicks)

    def touched_by(day):
        days = days_touched(judged, [NOON.date() + day * DAY], click_lookback_days=3).collect()
        return {row["event_date"].day for row in days}

    assert touched_by(0) == {1, 3}
    assert touched_by(1) == set()
    assert touched_by(2) == {1, 2, 3}
    assert touched_by(3) == {1}


def test_late_clicks_change_nothing_but_the_click(spark):
    impressions = [_impression("a"), _impression("b")]
    before = _exposures(spark, impressions, [_click("k1", "a", NOON + timedelta(hours=2))]).cache()
    late = [_click("k1", "a", NOON + timedelta(hours=2)), _click("k0", "a", NOON + timedelta(hours=1), delivered=1)]

    after = set_clicks(before, _judge(spark, impressions, late))

    assert after.columns == before.columns
    others = [name for name in before.columns if name != "clicked_at"]
    assert after.select(others).exceptAll(before.select(others)).count() == 0
    clicked = {row["impression_id"]: row["clicked_at"] for row in after.collect()}
    assert clicked["b"] is None
    assert clicked["a"].hour == 13


def test_bots_have_no_exposures(spark):
    impressions = [_impression("a"), _impression("b", user_id="bot", num_user_impressions=11)]
    assert [row["impression_id"] for row in _exposures(spark, impressions, []).collect()] == ["a"]


def test_cells_name_every_attribute_in_order_and_unknown_users_know_none(spark):
    users = [
        ("u1", {"city": "north|1", "age": "18-24"}),
        ("u2", {"age": " ", "gear=x": "a=b"}),
        ("u3", None),
    ]
    impressions = [_impression(f"i{user}", user_id=user) for user in ("u1", "u2", "u3", "stranger")]

    exposures = _exposures(spark, impressions, [], users).collect()

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

    rows = _exposures(spark, impressions, []).select("user_id", "user_fold").distinct().collect()

    folds = [row["user_fold"] for row in rows]
    assert len(rows) == 500
    assert set(folds) == {0, 1, 2, 3, 4}
    assert all(60 < folds.count(fold) < 140 for fold in range(5))
