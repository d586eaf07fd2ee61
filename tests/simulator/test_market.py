from __future__ import annotations

import numpy as np
import pytest

from osmf_models.simulator.market import (
    cell_probabilities,
    creatives_of,
    easy_market,
    load_market,
    save_market,
    segment_of,
)
from osmf_models.simulator.truth import everyone


def test_a_saved_market_comes_back_whole(market, tmp_path):
    save_market(market, tmp_path)
    assert load_market(tmp_path) == market


def test_the_same_seed_gives_the_same_market_and_another_seed_another(market):
    again = easy_market(11, num_products_per_scope=6, num_creatives_per_product=4, num_users=5_000)
    assert again == market
    assert creatives_of(again, "bag-003") == creatives_of(market, "bag-003")
    other = easy_market(12, num_products_per_scope=6, num_creatives_per_product=4, num_users=5_000)
    assert creatives_of(other, "bag-003") != creatives_of(market, "bag-003")


def test_cells_are_few_and_their_shares_sum_to_one(market):
    shares = cell_probabilities(market)
    assert len(shares) < 400
    assert sum(shares.values()) == pytest.approx(1.0)
    names = [part.split("=")[0] for part in next(iter(shares)).split("|")]
    assert names == sorted(attribute.name for attribute in market.attributes)


def test_every_segment_holds_at_least_an_eighth_of_the_users(market):
    sizes = {scope.name: everyone(market, scope.name) for scope in market.scopes}
    assert {scope: len(shares) for scope, shares in sizes.items()} == {"shoe": 4, "bag": 3, "lamp": 3, "mug": 1}
    assert min(min(shares.values()) for shares in sizes.values()) >= 0.12


@pytest.mark.parametrize(
    ("age", "gender", "price", "segment"),
    [
        ("18-24", "female", "high", "bargain_youth"),
        ("25-34", "male", "low", "young"),
        ("50+", "female", "high", "women_35_up"),
        ("35-49", "male", "high", "men_35_up"),
    ],
)
def test_the_first_rule_that_fits_decides_the_segment(market, age, gender, price, segment):
    cell = f"age_band={age}|city_tier=tier2|device=ios|gender={gender}|membership=none|price_sensitivity={price}"
    assert segment_of(market, "shoe", cell) == segment


def test_the_segments_of_a_scope_disagree(market):
    for scope in market.scopes:
        tastes = np.array([segment.taste for segment in scope.segments])
        cosines = np.corrcoef(tastes) if len(tastes) > 1 else -np.ones((1, 1))
        assert (cosines[~np.eye(len(tastes), dtype=bool)] < 0.2).all()


def test_wrong_questions_are_refused(market, tmp_path):
    with pytest.raises(ValueError, match="no cell"):
        segment_of(market, "shoe", "age_band=18-24")
    with pytest.raises(ValueError, match="is called 'hat'"):
        market.scope("hat")
    with pytest.raises(ValueError, match="holds no simulated market"):
        load_market(tmp_path)
    with pytest.raises(ValueError, match="two creatives"):
        easy_market(0, num_creatives_per_product=1)
    with pytest.raises(ValueError, match="image_px is 15"):
        easy_market(0, image_px=15)
