"""Arms of a simulated experiment that models draw: measured as an evaluation measures them, in the groups of a home."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from osmf_models.evaluation.arms import Sampling, model_pictures, read_model_arm
from osmf_models.evaluation.simulated_ctr import judge
from osmf_pipelines.bench.ab_market import DAY, crowd_of, exact_rates, logged_arms
from osmf_pipelines.bench.ab_models import ModelMarket, parse_models
from osmf_pipelines.bench.ablation_market import MarketFiles
from osmf_pipelines.bench.policy_market import LOGGING_POLICIES, choose


@pytest.fixture(scope="module")
def home(folders, tmp_path_factory) -> ModelMarket:
    root = tmp_path_factory.mktemp("home")
    files = MarketFiles("easy", root, DAY, folders["export"], "", folders["truth"], folders["cells"])
    return ModelMarket(files, 1)


@pytest.fixture(scope="module")
def market_of_home(home):
    choices, truth = choose(home.market, LOGGING_POLICIES["uniform"], 2, 20_000, home.cells)
    crowd = crowd_of(truth, choices, home.market, is_sold=home.is_sold, group_ids=home.group_ids)
    return crowd, logged_arms(truth, choices)


def test_groups_are_the_homes_and_only_held_out_products_are_sold(home, market_of_home) -> None:
    """The home's groups are the planted segments, so that who is in which is known."""
    crowd, _ = market_of_home
    for scope, spec in enumerate(home.market.scopes):
        for place, group_id in enumerate(crowd.group_ids[scope], start=1):
            segment = [one.name for one in spec.segments].index(group_id.partition(":")[2])
            is_inside = crowd.group_of_user[:, scope] == place
            assert is_inside.any()
            assert (crowd.segment_of_user[is_inside, scope] == segment).all()
    assert crowd.popularity.sum() == pytest.approx(1)
    sold = {home.market.products[place].product_id for place in np.flatnonzero(crowd.popularity)}
    assert sold == {f"{scope.name}-005" for scope in home.market.scopes}  # one of split test each


def test_an_arms_rates_are_those_of_the_pictures_that_the_model_draws(home, market_of_home, folders, tmp_path) -> None:
    crowd, logged = market_of_home
    arm = home.draw_arm("pretrained", folders["pretrained"], logged[0].rates.shape, tmp_path)
    places = [product.product_id for product in home.market.products]
    cases = list(
        model_pictures(read_model_arm("pretrained", folders["pretrained"]), home.export, home.cases, Sampling(1))
    )
    assert len(cases) == len(home.cases.groups) == 11 + len(home.market.scopes)
    for case in cases:
        product_id = str(home.export.products.product_id[case.product_index])
        if ":root" in case.group.group_id:
            continue
        expected, _ = judge(home.market, case.group, product_id, case.images, date.fromisoformat(DAY))
        scope = [one.name for one in home.market.scopes].index(case.group.scope)
        place = 1 + crowd.group_ids[scope].index(case.group.group_id)
        (name,) = case.group.segment_weights
        segment = [one.name for one in home.market.scopes[scope].segments].index(name)
        assert arm.rates[places.index(product_id), place, segment] == pytest.approx(expected[0])
    exact = exact_rates(crowd, arm)
    assert len(exact) == 1 + 11
    assert 0 < exact["pretrained", None, None] < 0.5


def test_a_saved_pipeline_is_an_arm_and_one_size_by_its_name(home, market_of_home, folders, tmp_path) -> None:
    shape = market_of_home[1][0].rates.shape
    rates = home.draw_arm("global_dpo", folders["global_dpo"] / "model", shape, tmp_path).rates
    for place in np.flatnonzero(home.is_sold):
        scope = home.market.products[place].scope
        shown = rates[place, : 1 + len(home.group_ids[scope])]
        assert (shown == shown[0]).all()
    with pytest.raises(ValueError, match="holds no finished run"):
        home.draw_arm("nothing", folders["truth"], shape, tmp_path)


def test_models_are_named_once(tmp_path) -> None:
    assert parse_models([f"a={tmp_path}"], ["b"]) == {"a": tmp_path}
    for wrong in ([str(tmp_path)], [f"b={tmp_path}"], [f"a={tmp_path}"] * 2, [f"={tmp_path}"]):
        with pytest.raises(ValueError, match="write NAME=DIR"):
            parse_models(wrong, ["b"])
    with pytest.raises(ValueError, match="is no folder"):
        parse_models(["a=/nowhere"], [])
