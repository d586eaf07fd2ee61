"""What a refresh is told about itself where the truth is known: of rates that are true, and of rates that are not."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from osmf_models.simulator.drawn import DrawnCreative
from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import Market, creatives_of
from osmf_models.simulator.pictures import creative_pixels
from osmf_models.simulator.realistic import realistic_market
from osmf_models.simulator.truth import true_ctr
from osmf_pipelines.bench.grouping_score import PlantedScope
from osmf_pipelines.bench.market_counts import cell_texts, product_ids
from osmf_pipelines.bench.refresh_score import score_scope
from osmf_pipelines.spark.preference_cuts import TreeSettings

DAYS = {date(2026, 3, 2): 100, date(2026, 3, 3): 300}
CLICKS = 10_000.0


@pytest.fixture(scope="module")
def market() -> Market:
    return easy_market(1, num_products_per_scope=2, num_creatives_per_product=3)


def test_the_truth_of_logs_is_the_mean_over_their_days_by_impressions() -> None:
    market = realistic_market(1, num_products_per_scope=2, num_creatives_per_product=2)
    planted = PlantedScope.of_scope(market, "lamp", [], DAYS)
    products = [one for one in market.products if one.scope == "lamp"]
    expected = []
    for product in products:
        images = creative_pixels(market, product.product_id) / 255.0
        by_segment = []
        for segment in market.scope("lamp").segments:
            of_day = [true_ctr(market, "lamp", segment.name, product.product_id, images, day=day) for day in DAYS]
            by_segment.append(0.25 * of_day[0] + 0.75 * of_day[1])
        expected.append(np.stack(by_segment, axis=1))
    np.testing.assert_allclose(planted.rates, np.concatenate(expected))
    assert planted.creative_ids.tolist() == [
        one.creative_id for product in products for one in creatives_of(market, product.product_id)
    ]


def tables_of(market: Market, scope: str, group_of_segment: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells put into groups by their segment, and rates that are the truth, known from 10,000 clicks each."""
    texts = list(cell_texts(market.population))
    planted = PlantedScope.of_scope(market, scope, texts, DAYS)
    segments = [int(planted.segment_shares[text].argmax()) for text in texts]
    cells = pd.DataFrame(
        {
            "scope": scope,
            "cell": texts,
            "group_id": [f"g{group_of_segment[segment]}" for segment in segments],
            "num_users": 10,
            "num_impressions": 1_000,
            "num_clicks": 50,
        }
    )
    weights = {name: [segments[row] for row in part.index] for name, part in cells.groupby("group_id")}
    weights["root"] = segments
    alone = PlantedScope.of_scope(market, scope, [], DAYS)
    places = [place for place, one in enumerate(market.products) if one.scope == scope]
    products = product_ids(market).reshape(len(market.products), -1)[places].reshape(-1)
    rows = []
    for group, members in weights.items():
        for creative, product, rates in zip(alone.creative_ids, products, planted.rates, strict=True):
            rate = float(np.mean(rates[members]))
            low, high = rate * 0.98, rate * 1.02
            rows.append((group, group == "root", product, creative, CLICKS, CLICKS / rate, rate, low, high))
    names = ["group_id", "is_scope_root", "product_id", "creative_id", "posterior_shape", "posterior_rate", "ctr_rate"]
    rates = pd.DataFrame(rows, columns=[*names, "ctr_rate_low", "ctr_rate_high"])
    return cells, rates.assign(scope=scope, num_impressions=200_000, num_clicks=10_000)


def told(market: Market, cells: pd.DataFrame, rates: pd.DataFrame) -> dict[tuple[str, float | None], float]:
    found = score_scope(market, DAYS, cells, rates, TreeSettings(), 0.9)
    return {(measure, start): value for _, measure, start, value, _ in found}


def test_planted_groups_with_true_rates_are_right_in_everything(market: Market) -> None:
    found = told(market, *tables_of(market, "bag", [0, 1, 2]))
    assert found["num_groups", None] == found["num_segments", None] == 3
    assert found["adjusted_rand_index", None] == pytest.approx(1.0)
    assert found["ctr_share_of_oracle", None] == pytest.approx(1.0)
    assert found["ctr_share_of_oracle_one_size", None] < 1.0
    assert found["rates_covered_share", None] == 1.0
    assert found["wrong_share", None] == 0.0


def test_one_group_for_three_segments_shows(market: Market) -> None:
    found = told(market, *tables_of(market, "bag", [0, 0, 0]))
    assert found["adjusted_rand_index", None] == pytest.approx(0.0)
    assert found["ctr_share_of_oracle", None] == pytest.approx(found["ctr_share_of_oracle_one_size", None])


def test_an_agreeing_scope_has_no_index_and_one_size_fits_all(market: Market) -> None:
    found = told(market, *tables_of(market, "mug", [0]))
    assert ("adjusted_rand_index", None) not in found
    assert found["ctr_share_of_oracle_one_size", None] == pytest.approx(1.0)


def test_a_product_that_a_group_never_saw_does_not_count_against_it(market: Market) -> None:
    cells, rates = tables_of(market, "bag", [0, 1, 2])
    product = rates["product_id"].iloc[0]
    unseen = rates[(rates["group_id"] != "g1") | (rates["product_id"] != product)]
    assert told(market, cells, unseen)["ctr_share_of_oracle", None] == pytest.approx(1.0)


def test_a_creative_that_is_not_in_the_truth_is_named(market: Market) -> None:
    cells, rates = tables_of(market, "bag", [0, 1, 2])
    strange = rates.assign(creative_id=["own-1", *rates["creative_id"].iloc[1:]])
    with pytest.raises(ValueError, match="creative_id 'own-1' of bag is not in the truth"):
        told(market, cells, strange)


def test_a_picture_that_a_model_drew_is_judged_by_its_pixels(market: Market, tmp_path: Path) -> None:
    cells, rates = tables_of(market, "bag", [0, 1, 2])
    copied = rates["creative_id"].iloc[0]
    product = rates["product_id"].iloc[0]
    number = [one.creative_id for one in creatives_of(market, product)].index(copied)
    Image.fromarray(creative_pixels(market, product)[number]).save(tmp_path / "copy.png")
    drawn = [DrawnCreative("drawn", product, str(tmp_path / "copy.png"))]
    # The logged picture's rates are now told of its copy.
    of_copy = rates.assign(creative_id=rates["creative_id"].replace(copied, "drawn"))
    found = score_scope(market, DAYS, cells, of_copy, TreeSettings(), 0.9, drawn)
    assert {(measure, start): value for _, measure, start, value, _ in found} == told(market, cells, rates)


def test_rates_that_stand_upside_down_are_wrong_and_not_covered(market: Market) -> None:
    cells, rates = tables_of(market, "bag", [0, 1, 2])
    upside_down = rates.assign(
        posterior_rate=CLICKS * rates["ctr_rate"] * 400,
        ctr_rate=1 / (400 * rates["ctr_rate"]),
        ctr_rate_low=0.98 / (400 * rates["ctr_rate"]),
        ctr_rate_high=1.02 / (400 * rates["ctr_rate"]),
    )
    found = told(market, cells, upside_down)
    assert found["wrong_share", None] == 1.0
    assert found["expected_wrong_share", None] < 0.1
    assert found["rates_covered_share", None] < 0.5
