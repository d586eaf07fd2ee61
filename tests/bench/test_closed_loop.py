"""A round of the closed loop without Spark: who is shown what, what the log says of it, what is told afterwards."""

from __future__ import annotations

import io
import re
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from osmf_models.evaluation.ab import sum_arm
from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.events import Shop, open_shop
from osmf_models.simulator.market import Market, segment_shares_of
from osmf_models.simulator.pictures import creative_pixels
from osmf_models.simulator.segments import segment_of_combination
from osmf_pipelines.bench.closed_loop_report import FORMAT, day_rows, plot_loop, print_loop, round_told
from osmf_pipelines.bench.closed_loop_round import (
    CHAMPION,
    CONTROL,
    EXPLORE,
    EXPLORED_SHARE,
    ModelPictures,
    RoundPlan,
    best_logged,
    open_test,
    shares_of,
)
from osmf_pipelines.bench.market_counts import cell_texts
from osmf_pipelines.serving.assign import EVERYONE_ELSE, RULE, Rules, read_rules
from osmf_pipelines.spark.simulated_arms import ServedDay, draw_served_day, write_served_day
from osmf_pipelines.spark.simulated_drop import MAPPING_FILE_NAME
from osmf_pipelines.spark.simulated_files import logged_creative_ids, write_table

DOCS = Path(__file__).resolve().parents[2] / "docs" / "closed_loop.md"
START, PER_DAY, DAY_INDEX = date(2026, 3, 2), 40_000, 3
ROOT = "root:"


@pytest.fixture(scope="module")
def market() -> Market:
    return easy_market(2, num_products_per_scope=2, num_creatives_per_product=4, num_users=2_000)


@pytest.fixture(scope="module")
def shop(market: Market) -> Shop:
    return open_shop(market, 7, START, PER_DAY)


@pytest.fixture(scope="module")
def rules(market: Market) -> Rules:
    """A group for each planted segment, which easy markets cut along the attributes."""
    rows = [
        {"entry": RULE, "scope": one.name, "cell": EVERYONE_ELSE, "group_id": ROOT + one.name} for one in market.scopes
    ]
    for scope in market.scopes:
        for cell in cell_texts(market.population):
            (segment,) = segment_shares_of(market, scope.name, cell)
            rows.append({"entry": RULE, "scope": scope.name, "cell": cell, "group_id": f"{scope.name}:{segment}"})
    return read_rules(rows)


@pytest.fixture(scope="module")
def plan(market: Market, tmp_path_factory: pytest.TempPathFactory) -> RoundPlan:
    """The champion shows the n-th group a copy of the n-th logged picture, others the first; the control the last."""
    folder, pictures = tmp_path_factory.mktemp("drawn"), {}
    for product in market.products:
        pixels = creative_pixels(market, product.product_id)
        for place, segment in enumerate(market.scope(product.scope).segments[:3]):
            path = folder / f"{product.product_id}-{place}.png"
            Image.fromarray(pixels[place]).save(path)
            own = pictures.setdefault(f"{product.scope}:{segment.name}", {})
            own[product.product_id] = (str(path), f"{place}" * 20)
            pictures.setdefault(ROOT + product.scope, {}).setdefault(product.product_id, own[product.product_id])
    models = {CHAMPION: ModelPictures("7", pictures)}
    ids = np.array(logged_creative_ids(market)).reshape(len(market.products), -1)
    best = {product.product_id: str(own[-1]) for product, own in zip(market.products, ids, strict=True)}
    return RoundPlan("loop-1", "2026-03-04", best, models, shares_of(models))


@pytest.fixture(scope="module")
def served(shop: Shop, plan: RoundPlan, rules: Rules) -> ServedDay:
    catalogue, test = open_test(plan, rules, shop)
    return draw_served_day(shop, catalogue, test, DAY_INDEX, PER_DAY)


def planted_places(market: Market, served: ServedDay, products: np.ndarray) -> np.ndarray:
    """Place of the picture for each impression's user: 0 in a fourth group, and where the shop does not know all."""
    combination = market.population.combination(served.events.user)
    names = [scope.name for scope in market.scopes]
    scope = np.array([names.index(one.scope) for one in market.products])[products]
    by_rule = np.stack([segment_of_combination(one, market.population.attributes) for one in market.scopes])
    is_unknown = market.population.is_missing(served.events.user).any(axis=1)
    return np.where(is_unknown | (by_rule[scope, combination] > 2), 0, by_rule[scope, combination])


def test_each_arm_shows_what_the_plan_says(market, shop, plan, rules, served) -> None:
    catalogue, test = open_test(plan, rules, shop)
    arms = {arm.name: served.arm == place for place, arm in enumerate(test.arms)}
    shown = np.array(catalogue.ids, dtype=object)[served.events.creative]
    products = catalogue.products[served.events.creative]
    own = np.array([one.product_id for one in market.products], dtype=object)[products]
    control = np.array([plan.best_single[product] for product in own], dtype=object)
    assert (shown[arms[CONTROL]] == control[arms[CONTROL]]).all()
    assert np.isnan(served.events.propensity[arms[CONTROL]]).all()
    place = planted_places(market, served, products)
    drawn = np.array(
        [f"{product}-{str(number) * 16}" for product, number in zip(own, place, strict=True)], dtype=object
    )
    is_champion = arms[CHAMPION]
    assert is_champion.sum() > 1_000
    assert (shown[is_champion] == drawn[is_champion]).all()


def test_users_stay_in_their_arm_and_split_as_planned(shop, plan, rules, served) -> None:
    _, test = open_test(plan, rules, shop)
    by_user = pd.DataFrame({"user": served.events.user, "arm": served.arm}).drop_duplicates()
    assert by_user.user.is_unique
    shares = np.bincount(test.arm_of(shop.seed, np.arange(100_000)), minlength=3) / 100_000
    expected = [0.9 * plan.shares[CONTROL], 0.9 * plan.shares[CHAMPION], EXPLORED_SHARE]
    np.testing.assert_allclose(shares, expected, atol=0.005)
    other = RoundPlan("loop-2", plan.as_of, plan.best_single, plan.models, plan.shares)
    again = open_test(other, rules, shop)[1].arm_of(shop.seed, np.arange(1_000))
    assert (again != test.arm_of(shop.seed, np.arange(1_000))).mean() > 0.2


def test_who_explores_sees_every_picture_of_the_product_with_known_propensity(
    market, shop, plan, rules, served
) -> None:
    catalogue, test = open_test(plan, rules, shop)
    explores = served.arm == [arm.name for arm in test.arms].index(None)
    events = pd.DataFrame(
        {
            "product": catalogue.products[served.events.creative[explores]],
            "creative": served.events.creative[explores],
            "propensity": served.events.propensity[explores],
            "group": planted_places(market, served, catalogue.products[served.events.creative])[explores],
        }
    )
    by_creative = events.groupby(["product", "creative"]).propensity.agg(["min", "max", "size"])
    np.testing.assert_array_equal(by_creative["min"], by_creative["max"])
    by_product = by_creative.groupby("product")
    # Four logged pictures, and one for each of at most three groups.
    num_segments = [len(market.scope(one.scope).segments) for one in market.products]
    assert by_product.size().tolist() == [4 + min(3, number) for number in num_segments]
    np.testing.assert_allclose(by_product["min"].sum(), 1.0)
    expected = by_creative["min"] * by_product["size"].transform("sum")
    assert ((by_creative["size"] - expected) ** 2 / expected).sum() < 1.5 * len(by_creative)
    several = events[events["product"] == num_segments.index(max(num_segments))]
    assert (several.groupby("creative").group.nunique() > 1).all()


def test_a_drawn_picture_earns_what_its_pixels_earn(market, shop, plan, rules) -> None:
    catalogue, _ = open_test(plan, rules, shop)
    rates = catalogue.rates(DAY_INDEX)
    place_of = {creative_id: place for place, creative_id in enumerate(catalogue.ids)}
    several = [one for one in market.products if len(market.scope(one.scope).segments) > 1]
    assert several
    for product in several:
        copies = [rates[place_of[f"{product.product_id}-{'1' * 16}"]], rates[place_of[f"{product.product_id}-c01"]]]
        np.testing.assert_allclose(*copies)


def test_a_group_without_a_picture_sees_that_of_everyone_and_else_the_controls(market, shop, plan, rules) -> None:
    bare, product = market.scopes[0], next(one for one in market.products if one.scope == market.scopes[0].name)
    whole = {ROOT + bare.name: plan.models[CHAMPION].pictures[f"{bare.name}:{bare.segments[0].name}"]}
    models = {CHAMPION: ModelPictures("7", whole)}
    catalogue, test = open_test(
        RoundPlan("loop-1", plan.as_of, plan.best_single, models, shares_of(models)), rules, shop
    )
    shown = {arm.name: arm.pictures for arm in test.arms}
    place = market.products.index(product)
    assert {catalogue.ids[one] for one in shown[CHAMPION][place, :, 0]} == {f"{product.product_id}-{'0' * 16}"}
    other = next(place for place, one in enumerate(market.products) if one.scope != bare.name)
    np.testing.assert_array_equal(shown[CHAMPION][other], shown[CONTROL][other])


def test_the_log_says_what_was_shown(market, shop, plan, rules, served, tmp_path) -> None:
    catalogue, test = open_test(plan, rules, shop)
    there = pa.table({name: ["a"] for name in ("ad", "item", "picture", "mask")})
    write_table(there, tmp_path / "dimensions" / "creatives.parquet")
    write_served_day(shop, catalogue, test, served, tmp_path)
    day = tmp_path / "days" / "2026-03-05"
    rows = pq.read_table(day / "impressions.parquet").to_pandas()
    assert len(rows) == PER_DAY
    assert not (day / "_SUCCESS").exists()
    # Numbers go on where the shop's days before ended.
    assert rows.imp_id.min() == f"i{DAY_INDEX * PER_DAY:012d}"
    explores = rows.arm.isna()
    assert rows.test.isna().equals(explores)
    assert rows.p.notna().equals(explores)
    assert set(rows.drawn_by[rows.arm == CHAMPION]) == {"7"}
    assert rows.drawn_by[rows.arm == CONTROL].isna().all()
    clicks = pq.read_table(day / "clicks.parquet").to_pandas()
    later = pq.read_table(tmp_path / "days" / "2026-03-06" / "clicks.parquet").to_pandas()
    assert set(clicks.imp_id) | set(later.imp_id) == set(rows.imp_id[served.events.is_clicked])
    assert (set(clicks.ts.dt.date), set(later.ts.dt.date)) == ({date(2026, 3, 5)}, {date(2026, 3, 6)})
    written = pq.read_table(tmp_path / "dimensions" / "creatives.parquet").to_pandas()
    assert set(rows.ad) - set(logged_creative_ids(market)) <= set(written.ad)
    assert all(Path(path).is_file() for path in written.picture[1:])
    catalogue.write(tmp_path)
    assert pq.read_table(tmp_path / "dimensions" / "creatives.parquet").num_rows == len(written)


def test_arms_earn_what_the_truth_says(plan, shop, rules, served) -> None:
    _, test = open_test(plan, rules, shop)
    for place, arm in enumerate(test.arms):
        clicked, rate = served.events.is_clicked[served.arm == place], served.exact_rates(test)[arm.name]
        assert abs(clicked.mean() - rate) < 4 * np.sqrt(rate / len(clicked))


def test_more_impressions_than_a_day_has_are_refused(shop, plan, rules) -> None:
    with pytest.raises(ValueError, match=f"{PER_DAY + 1} impressions"):
        draw_served_day(shop, *open_test(plan, rules, shop), DAY_INDEX, PER_DAY + 1)


def test_a_plan_is_read_as_it_was_written(plan: RoundPlan, tmp_path: Path) -> None:
    plan.write(tmp_path / "round-1.json")
    found = RoundPlan.read(tmp_path / "round-1.json")
    assert found.shares == plan.shares
    assert found.best_single == plan.best_single
    pictures = found.models[CHAMPION].pictures
    assert {
        group: {one: tuple(picture) for one, picture in own.items()} for group, own in pictures.items()
    } == plan.models[CHAMPION].pictures


def test_refused_pictures_are_in_no_arm() -> None:
    rows = pd.DataFrame(
        {
            "group_id": ["g", "g"],
            "product_id": ["p", "q"],
            "picture_path": ["a.png", "b.png"],
            "picture_sha256": ["1", "2"],
            "refusal": [None, "clipped"],
        }
    )
    assert ModelPictures.of_rows("3", rows).pictures == {"g": {"p": ("a.png", "1")}}


def test_the_control_is_the_shops_own_best_picture(market: Market, shop: Shop) -> None:
    product = market.products[0].product_id
    rates = pd.DataFrame(
        {"creative_id": [f"{product}-c02", f"{product}-c01", f"{product}-drawn"], "ctr_rate": [0.3, 0.1, 0.9]}
    )
    assert best_logged(rates, shop)[product] == f"{product}-c02"


def test_the_shops_mapping_names_the_columns_of_a_test() -> None:
    from osmf_pipelines.spark.simulated_drop import _MAPPING

    assert MAPPING_FILE_NAME == "mapping.toml"
    assert {'experiment_id = "test"', 'arm = "arm"', 'model_version = "drawn_by"'} <= set(_MAPPING.splitlines())


def planted_report() -> dict:
    """Two days of one round, and one of another with a challenger."""
    sums = {arm: sum_arm(np.full(100, 20), np.arange(100) % clicks) for arm, clicks in ((CONTROL, 2), (CHAMPION, 3))}
    few = {EXPLORE: sum_arm(np.full(60, 2), np.zeros(60, np.int64))}
    exact = {CONTROL: 0.025, CHAMPION: 0.05, EXPLORE: 0.02}
    days = [date(2026, 3, 5), date(2026, 3, 6), date(2026, 3, 7)]
    rows = [row for n, day in enumerate(days) for row in day_rows(day, 1 + n // 2, sums | few, exact, {CHAMPION: "1"})]
    common = {"as_of": "", "shares": {}, "reasons": [], "readout": "", "is_promoted": False, "lifts_over_champion": {}}
    lifts = {CHAMPION: {"lift": 0.5, "lift_low": 0.25, "lift_high": 0.75}}
    rounds = [
        {"number": n, "experiment_id": f"loop-{n}", "champion": 1, "challenger": c, "lifts": lifts, **common}
        | {"first_day": str(first), "last_day": str(last)}
        for n, c, first, last in ((1, None, days[0], days[1]), (2, 2, days[2], days[2]))
    ]
    rounds[1]["reasons"] = ["it is [no] better"]
    return {"format": FORMAT, "settings": {}, "days": rows, "rounds": rounds}


def test_a_report_is_drawn_and_printed(tmp_path: Path) -> None:
    report = planted_report()
    assert [row["arm"] for row in report["days"][:3]] == [CONTROL, CHAMPION, EXPLORE]
    control, champion, explore = report["days"][:3]
    assert control["click_rate"] == 50 / 2000
    assert champion["click_rate_low"] < champion["click_rate"] == 99 / 2000 < champion["click_rate_high"]
    assert explore["click_rate_low"] is None
    plot_loop(report, tmp_path / "loop.png")
    assert Image.open(tmp_path / "loop.png").size[0] > 800
    printed = io.StringIO()
    print_loop(report, Console(file=printed, width=200))
    assert "2.50" in printed.getvalue()
    assert "it is [no] better" in printed.getvalue()
    assert round_told(report["rounds"][0]) == (
        "round 1: champion v1 +50.0% over the best logged picture (+25.0% to +75.0%)"
    )


def test_every_key_of_the_report_is_documented() -> None:
    report, text = planted_report(), DOCS.read_text()
    assert FORMAT in text
    keys = {*report, *(key for part in ("days", "rounds") for row in report[part] for key in row)}
    assert keys - set(re.findall(r"`(\w+)`", text)) == set()
