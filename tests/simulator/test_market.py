from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import (
    MARKET_FILE_NAME,
    Market,
    check_market,
    creatives_of,
    load_market,
    save_market,
    segment_shares_of,
    with_products,
    with_scopes,
)
from osmf_models.simulator.products import Product
from osmf_models.simulator.realistic import realistic_market


def in_categories(market: Market, *categories: str) -> tuple[Product, ...]:
    return tuple(
        replace(market.products[place], scope=category, product_id=f"own-{place}")
        for place, category in enumerate(categories)
    )


def test_a_saved_market_comes_back_whole(market, realistic, tmp_path):
    own = with_products(realistic, in_categories(realistic, "hat", "shoe"))
    for saved in (market, realistic, own):
        save_market(saved, tmp_path / "truth")
        assert load_market(tmp_path / "truth") == saved


@pytest.mark.parametrize("make", [easy_market, realistic_market])
def test_the_same_seed_gives_the_same_market_and_another_seed_another(make):
    settings = {"num_products_per_scope": 4, "num_creatives_per_product": 3}
    market, again, other = make(11, **settings), make(11, **settings), make(12, **settings)
    assert again == market
    assert creatives_of(again, "bag-003") == creatives_of(market, "bag-003")
    assert other.products != market.products
    assert creatives_of(other, "bag-003") != creatives_of(market, "bag-003")
    assert other.scopes == market.scopes


def test_a_market_has_as_much_of_everything_as_asked_for():
    market = realistic_market(0, image_px=48, num_products_per_scope=2, num_creatives_per_product=5, num_users=70)
    assert len(market.products) == len({product.product_id for product in market.products}) == 2 * len(market.scopes)
    assert [len(market.products_of(scope.name)) for scope in market.scopes] == [2] * len(market.scopes)
    assert (market.image_px, market.population.num_users, len(creatives_of(market, "mug-001"))) == (48, 70, 5)


def test_logged_styles_are_uniform_and_unrelated(realistic):
    many = replace(realistic, num_creatives_per_product=2_000)
    styles = np.array([creative.style for creative in creatives_of(many, "mug-000")])
    assert styles.shape == (2_000, 9)
    assert np.abs(styles).max() <= 1
    np.testing.assert_allclose(styles.mean(0), 0.0, atol=0.05)
    np.testing.assert_allclose(styles.std(0), 1 / np.sqrt(3), atol=0.02)
    assert np.abs(np.corrcoef(styles.T) - np.eye(9)).max() < 0.08


def test_more_creatives_leave_each_product_its_own(realistic):
    ids = [one.creative_id for product in realistic.products for one in creatives_of(realistic, product.product_id)]
    seeds = {one.scene_seed for product in realistic.products for one in creatives_of(realistic, product.product_id)}
    assert len(set(ids)) == len(ids) == len(seeds)


def test_drift_is_counted_from_the_first_date(market):
    assert market.days_since_start(None) == 0.0
    assert market.days_since_start(date(2026, 1, 1)) == 0.0
    assert market.days_since_start(date(2026, 3, 2)) == 60.0


def test_some_scopes_are_kept_with_their_products_alone(market):
    some = with_scopes(market, ["mug", "shoe"])
    assert [scope.name for scope in some.scopes] == ["shoe", "mug"]
    assert some.products == market.products_of("shoe") + market.products_of("mug")
    assert with_scopes(market, [scope.name for scope in market.scopes]) == market


def test_an_unknown_scope_is_refused_and_the_known_ones_named(market):
    with pytest.raises(ValueError, match="no scope is called 'hat': market easy-2 has shoe, bag, lamp, mug"):
        with_scopes(market, ["shoe", "hat"])


def test_own_products_take_the_segments_of_their_category(market):
    own = with_products(market, in_categories(market, "lamp", "shoe"))
    assert own.scopes == (market.scope("lamp"), market.scope("shoe"))
    assert [product.product_id for product in own.products] == ["own-0", "own-1"]


def test_strange_categories_take_the_segments_of_the_scopes_not_named_in_turn(market):
    own = with_products(market, in_categories(market, "vase", "shoe", "hat", "tie", "cap"))
    taken = {"cap": "bag", "hat": "lamp", "tie": "mug", "vase": "bag"}
    for category, scope in taken.items():
        assert own.scope(category) == replace(market.scope(scope), name=category)
    assert own.scope("shoe") == market.scope("shoe")
    assert [scope.name for scope in own.scopes] == ["cap", "hat", "shoe", "tie", "vase"]


def test_a_strange_category_beside_all_scopes_still_gets_segments(market):
    names = [scope.name for scope in market.scopes]
    assert (
        with_products(market, in_categories(market, *names, "hat")).scope("hat").segments == market.scopes[0].segments
    )


def test_wrong_questions_are_refused(market):
    with pytest.raises(ValueError, match="no cell of this market"):
        segment_shares_of(market, "shoe", "age_band=18-24")
    with pytest.raises(ValueError, match="no scope is called 'hat'"):
        market.scope("hat")
    with pytest.raises(ValueError, match="no segment is called 'men'"):
        market.segment("shoe", "men")
    with pytest.raises(ValueError, match="no product is called 'bag-999'"):
        market.product("bag-999")


@pytest.mark.parametrize("make", [easy_market, realistic_market])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_px": 15}, "image_px is 15"),
        ({"image_px": 33}, "image_px is 33"),
        ({"image_px": 514}, "image_px is 514"),
        ({"num_creatives_per_product": 1}, "1 creatives per product"),
        ({"num_products_per_scope": 0}, "at least one product"),
        ({"num_users": 0}, "num_users is 0"),
    ],
)
def test_impossible_settings_are_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(0, **{"num_products_per_scope": 1} | settings)


@pytest.mark.parametrize("examination", [(), (0.0, 0.5), (1.0, 1.2)])
def test_examination_that_is_no_share_is_refused(market, examination):
    with pytest.raises(ValueError, match="examination is"):
        check_market(replace(market, examination=examination))


def test_a_product_of_no_scope_is_refused(market):
    with pytest.raises(ValueError, match="no scope is called 'hat'"):
        check_market(replace(market, products=in_categories(market, "hat")))


def test_a_folder_without_a_market_or_with_one_of_another_format_is_refused(market, tmp_path):
    with pytest.raises(ValueError, match=rf"holds no simulated market \(no {MARKET_FILE_NAME}\)"):
        load_market(tmp_path)
    save_market(market, tmp_path)
    path = tmp_path / MARKET_FILE_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "osmf-market/1"}))
    with pytest.raises(ValueError, match="not of format 'osmf-market/2': simulate again"):
        load_market(tmp_path)
