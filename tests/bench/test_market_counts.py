"""The sums that benchmarks start from are those of the logs themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from osmf_models.image_features import measure_images
from osmf_models.simulator.events import open_shop
from osmf_models.simulator.market import Market
from osmf_models.simulator.pictures import creative_pixels, cutout
from osmf_models.simulator.realistic import realistic_market
from osmf_models.simulator.serving import UNIFORM, Policy
from osmf_models.simulator.users import UNKNOWN
from osmf_pipelines.bench.market_counts import MarketCounts, cell_of_users, cell_texts, count_market
from osmf_pipelines.spark.attribute import assign_cells
from osmf_pipelines.spark.simulate_logs import Logs, simulate_logs

START = date(2026, 3, 1)
PER_DAY = 40_000
GREEDY = Policy("epsilon_greedy", 0.3, position_bias=0.5)


@pytest.fixture(scope="module")
def market() -> Market:
    return realistic_market(5, num_products_per_scope=2, num_creatives_per_product=3, num_users=1_500)


@pytest.fixture(scope="module")
def counts(market) -> MarketCounts:
    return count_market(open_shop(market, 5, START, PER_DAY), GREEDY, num_days=2)


def frame_of(counts: MarketCounts) -> pd.DataFrame:
    rows = counts.rows
    names = np.array([scope.name for scope in counts.shop.market.scopes])
    columns = {
        "event_date": [counts.shop.day(day) for day in rows.day.tolist()],
        "scope": names[counts.scope_of_creative[rows.creative]],
        "cell": np.array(counts.cells, dtype=object)[rows.cell],
        "product_id": counts.product_ids[rows.creative],
        "creative_id": counts.creative_ids[rows.creative],
        "position": rows.position,
    }
    frame = pd.DataFrame(columns).assign(num_impressions=rows.num_impressions, num_clicks=rows.num_clicks)
    keys = list(columns)
    return frame.groupby(keys, as_index=False).sum().sort_values(keys, ignore_index=True)


@pytest.fixture(scope="module")
def logged(spark, market, tmp_path_factory) -> pd.DataFrame:
    """Impressions as they stand in the log, whether clicked, and the cell of their user by the pipeline's own rule."""
    folder = tmp_path_factory.mktemp("logs") / "market"
    simulate_logs(spark, market, folder, Logs(START, 2, PER_DAY, 5, GREEDY))
    days = sorted((folder / "drop/days").iterdir())
    shown, clicks = (
        pd.concat([pd.read_parquet(day / f"{name}.parquet") for day in days]) for name in ("impressions", "clicks")
    )
    users = pd.read_parquet(folder / "drop/dimensions/users.parquet")
    attributes = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in users.drop(columns="uid").to_dict("records")
    ]
    rows = list(zip(users["uid"].tolist(), attributes, strict=True))
    cells = assign_cells(spark.createDataFrame(rows, "user_id string, attributes map<string,string>")).toPandas()
    products = pd.read_parquet(folder / "drop/dimensions/products.parquet")[["item", "category"]]
    shown["num_clicks"] = shown["imp_id"].isin(clicks["imp_id"]).astype(np.int64)
    return shown.merge(cells, left_on="uid", right_on="user_id", how="left").merge(products, on="item")


def test_counts_are_those_of_the_log(counts, logged):
    # Clicks that come after the last day stand in no log: their impressions are compared alone.
    logged = logged.assign(event_date=logged["ts"].dt.date, num_impressions=1).rename(
        columns={"category": "scope", "item": "product_id", "ad": "creative_id", "pos": "position"}
    )
    keys = ["event_date", "scope", "cell", "product_id", "creative_id", "position"]
    expected = logged.groupby(keys, as_index=False)[["num_impressions", "num_clicks"]].sum()
    expected = expected.sort_values(keys, ignore_index=True)
    found = frame_of(counts)
    pd.testing.assert_frame_equal(
        found[[*keys, "num_impressions"]], expected[[*keys, "num_impressions"]], check_dtype=False
    )
    missing = found["num_clicks"].sum() - expected["num_clicks"].sum()
    assert 0 <= missing < 20
    assert np.abs(found["num_clicks"] - expected["num_clicks"]).sum() == missing


def test_users_of_cells_are_distinct_users_of_the_log(counts, logged):
    expected = logged.groupby(["category", "cell"])["uid"].nunique()
    scopes = [scope.name for scope in counts.shop.market.scopes]
    for place, cell in zip(*np.nonzero(counts.cell_users), strict=True):
        assert counts.cell_users[place, cell] == expected[scopes[place], counts.cells[cell]]
    assert (counts.cell_users > 0).sum() == len(expected)


def test_a_scope_adds_up_and_its_held_out_part_is_a_fifth(counts):
    effects = counts.place_effects
    total = 0
    for place in range(len(counts.shop.market.scopes)):
        frame = counts.of_scope(place, effects)
        assert not frame.duplicated(["cell", "creative_id"]).any()
        assert (frame["heldout_clicks"] <= frame["num_clicks"]).all()
        assert frame["heldout_millis"].sum() / frame["effective_millis"].sum() == pytest.approx(0.2, abs=0.05)
        total += frame["num_impressions"].sum()
    assert total == 2 * PER_DAY


def test_effective_impressions_undo_positions(market):
    steady = replace(market, season=replace(market.season, weekdays=(0.0,) * 7, daily_spread=0.0))
    counts = count_market(open_shop(steady, 5, START, 400_000), UNIFORM, num_days=1)
    effective = counts.effective_impressions(counts.place_effects)
    assert effective.sum() / counts.rows.num_impressions.sum() == pytest.approx((1 + 0.7 + 0.5) / 3, rel=0.04)


def test_days_are_told_apart_and_put_together(counts):
    first, second = counts.of_days(0, 1), counts.of_days(1, 1)
    assert first.rows.num_impressions.sum() == second.rows.num_impressions.sum() == PER_DAY
    both = frame_of(first.followed_by(second))
    pd.testing.assert_frame_equal(both, frame_of(counts))


def test_features_are_those_of_the_scopes_creatives(counts, market):
    features = counts.features_of_scope(1)
    own = [one.product_id for one in market.products_of(market.scopes[1].name)]
    assert {name.rsplit("-", 1)[0] for name in features["creative_id"]} == set(own)
    pictures = creative_pixels(market, own[0]) / 255.0
    mask = np.broadcast_to(cutout(market, own[0])[..., 3], pictures.shape[:3])
    np.testing.assert_array_equal(np.stack(features["feature_values"][:3]), measure_images(pictures, mask))


def test_every_user_is_in_the_cell_of_its_known_values(market):
    users = np.arange(400)
    values, is_missing = market.population.values(users), market.population.is_missing(users)
    texts = cell_texts(market.population)
    for user, cell in enumerate(cell_of_users(market.population, users)):
        named = dict(part.split("=") for part in texts[cell].split("|"))
        assert list(named) == sorted(named)
        for place, attribute in enumerate(market.population.attributes):
            known = UNKNOWN if is_missing[user, place] else attribute.values[values[user, place]]
            assert named[attribute.name] == known
