from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.optimize import minimize

from osmf_models.simulator.market import Market
from osmf_models.simulator.oracle import best_single, oracle_ctr
from osmf_models.simulator.pictures import creative_pixels
from osmf_models.simulator.realistic import NAME, realistic_market
from osmf_models.simulator.segments import Scope
from osmf_models.simulator.truth import click_rates, everyone, measure_pictures, mixed_click_rates

KINDS = {
    "shoe": "strong",
    "bag": "strong",
    "watch": "strong",
    "phone": "strong",
    "lamp": "mild",
    "chair": "mild",
    "bottle": "agreeing",
    "mug": "agreeing",
}
FINGERPRINTS = {
    "shoe": "3233bed34da3dab2",
    "bag": "33a43bbd9d480a8b",
    "watch": "017854ebad68026f",
    "phone": "a87c7887db0dcbb2",
    "lamp": "44f594456ae848b6",
    "chair": "d8a75c7cf8ffbda0",
    "bottle": "b586cf10c36f174f",
    "mug": "fca1f2c2942d6930",
    "all else": "7f94eac607633c4f",
}
MIN_MAX_RATIO = {"strong": (1.5, 1.75), "mild": (1.12, 1.3)}
MAX_SINGLE = {"strong": 0.75, "mild": 0.9}


def fingerprints() -> dict[str, str]:
    """Returns what the numbers of each scope hash to, and all others but the products'."""
    market = realistic_market(0, num_products_per_scope=1)
    numbers = {scope.name: asdict(scope) for scope in market.scopes}
    left_out = {"seed", "scopes", "products", "image_px", "num_creatives_per_product"}
    rest = {name: value for name, value in asdict(market).items() if name not in left_out}
    rest["population"] = {name: value for name, value in rest["population"].items() if value != ()}
    rest["population"] |= {"seed": 0, "num_users": 0}
    texts = {name: json.dumps(value, sort_keys=True) for name, value in (numbers | {"all else": rest}).items()}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}


@pytest.fixture(scope="module")
def realistic() -> Market:
    return realistic_market(7, num_products_per_scope=12)


def rates_of_creatives(market: Market, scope: Scope) -> np.ndarray:
    """Click rates of the logged creatives in each segment, (P, S, K)."""
    found = []
    for product in market.products_of(scope.name):
        measured = measure_pictures(market, product.product_id, creative_pixels(market, product.product_id) / 255.0)
        names = [segment.name for segment in scope.segments]
        found.append([click_rates(market, scope.name, name, product.product_id, measured) for name in names])
    return np.array(found)


def test_the_numbers_of_this_version_are_frozen():
    """Whoever changes a number makes another market, which needs another name and these figures anew.

    `python -c "from tests.simulator.test_realistic import fingerprints; print(fingerprints())"`
    """
    assert NAME == "realistic-1"
    assert fingerprints() == FINGERPRINTS


def test_four_scopes_contradict_two_are_mild_and_two_agree(realistic):
    assert {scope.name: scope.kind for scope in realistic.scopes} == KINDS
    for scope in realistic.scopes:
        assert len(scope.segments) == 1 if scope.kind == "agreeing" else 3 <= len(scope.segments) <= 8, scope.name


def test_every_segment_has_somebody_to_tell_it_by(realistic):
    for scope in realistic.scopes:
        assert min(everyone(realistic, scope.name).values()) > 0.02, scope.name


def test_some_segments_are_soft_oblique_or_cross_many_attributes(realistic):
    segments = [segment for scope in realistic.scopes for segment in scope.segments]
    assert sum(scope.softness > 0 for scope in realistic.scopes) >= 3
    assert any(segment.score for segment in segments)
    assert max(len(segment.conditions) for segment in segments) == 5


def test_base_rates_lie_in_their_range_around_their_median():
    market = realistic_market(7, num_products_per_scope=60)
    rates = np.array([product.base_rate for product in market.products])
    assert rates.min() >= 0.01
    assert rates.max() <= 0.05
    assert np.median(rates) == pytest.approx(0.035, rel=0.05)


@pytest.mark.parametrize("scope", KINDS)
def test_creatives_differ_by_a_fifth_to_a_third_for_the_mean_user(realistic, scope):
    shares = np.array(list(everyone(realistic, scope).values()))
    mean_user = np.einsum("s,psk->pk", shares, rates_of_creatives(realistic, realistic.scope(scope)))
    assert 0.2 <= np.log(mean_user).std(1).mean() <= 0.35
    base = np.array([product.base_rate for product in realistic.products_of(scope)])
    assert (mean_user.mean(1) / base).mean() == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("scope", [name for name, kind in KINDS.items() if kind != "agreeing"])
def test_segments_differ_about_one_creative_as_its_kind_says(realistic, scope):
    logs = np.log(rates_of_creatives(realistic, realistic.scope(scope)))
    pairs = itertools.combinations(range(logs.shape[1]), 2)
    ratios = np.exp(np.abs(np.stack([logs[:, one] - logs[:, other] for one, other in pairs])))
    low, high = MIN_MAX_RATIO[KINDS[scope]]
    assert low <= np.median(ratios) <= high


@pytest.mark.parametrize("scope", KINDS)
def test_an_oracle_per_segment_is_well_above_the_average_creative_and_one_size_for_all(realistic, scope):
    shares, over_average, over_single = everyone(realistic, scope), [], []
    for product in realistic.products_of(scope)[:2]:
        product_id = product.product_id
        measured = measure_pictures(realistic, product_id, creative_pixels(realistic, product_id) / 255.0)
        average = mixed_click_rates(realistic, scope, shares, product_id, measured).mean()
        oracle = sum(share * oracle_ctr(realistic, scope, {name: 1.0}, product_id) for name, share in shares.items())
        over_average.append(oracle / average)
        over_single.append(best_single(realistic, product_id).ctr_rate / oracle)
    assert 1.9 <= np.mean(over_average) <= 4.2
    if KINDS[scope] == "agreeing":
        assert min(over_single) >= 0.98
    else:
        assert max(over_single) <= MAX_SINGLE[KINDS[scope]]


def test_every_taste_peaks_inside_the_range_of_scenes(realistic):
    for scope in realistic.scopes:
        for segment in scope.segments:
            taste = segment.taste
            bent = np.array(taste.curvature) > 0
            assert (np.array(taste.linear)[~bent] == 0).all()

            def loss(style, taste=taste, bent=bent):
                return -float(taste.log_lift((style * bent)[None])[0])

            best = minimize(loss, np.zeros(9), method="BFGS")
            assert np.abs(best.x).max() < 1.0, (scope.name, segment.name)
            corners = np.random.default_rng(0).choice([-1.0, 1.0], (512, 9)) * bent
            assert -loss(best.x) > taste.log_lift(corners).max() + 0.05, (scope.name, segment.name)


def test_styles_that_the_default_features_lack_matter_in_every_scope(realistic):
    for scope in realistic.scopes:
        for segment in scope.segments:
            hidden = np.array(segment.taste.linear[5:]) != 0
            assert hidden.sum() >= 2, (scope.name, segment.name)


def test_some_tastes_drift(realistic):
    drifting = [segment.name for scope in realistic.scopes for segment in scope.segments if any(segment.taste.drift)]
    assert len(drifting) >= 4


def test_days_and_users_and_products_differ(realistic):
    assert realistic.population.is_heavy_tailed
    assert realistic.population.factor_spread == 0.4
    assert realistic.season.daily_spread > 0
    assert len(set(realistic.season.weekdays)) > 3
    assert realistic.popularity_exponent > 0
