from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from osmf_models.simulator.events import segments_of_users
from osmf_models.simulator.market import segment_shares_of
from osmf_models.simulator.scene_features import STYLE_NAMES
from osmf_models.simulator.segments import Scope, Segment, Taste, segment_of_combination, segment_shares_of_cell
from osmf_models.simulator.truth import everyone
from osmf_models.simulator.users import UNKNOWN, Attribute

NONE = (0.0,) * len(STYLE_NAMES)
FLAT = Taste(0.0, NONE, NONE)
AGE = Attribute("age", ("young", "middle", "old"), None, ((0.5, 0.3, 0.2),))
PRICE = Attribute("price", ("low", "high"), "age", ((0.1, 0.9), (0.5, 0.5), (0.75, 0.25)))
ATTRIBUTES = (AGE, PRICE)
BY_RULE = Scope(
    "hat",
    "strong",
    (
        Segment("thrifty_young", (("age", ("young",)), ("price", ("high",))), FLAT),
        Segment("not_old", (("age", ("young", "middle")),), FLAT),
        Segment("others", (), FLAT),
    ),
)
EVERYONE = np.arange(50_000)


def along(**slopes: float) -> tuple[float, ...]:
    return tuple(slopes.get(name, 0.0) for name in STYLE_NAMES)


def test_the_first_rule_that_fits_decides():
    young_low, young_high, middle_low, middle_high, old_low, old_high = segment_of_combination(BY_RULE, ATTRIBUTES)
    assert (young_low, young_high) == (1, 0)
    assert (middle_low, middle_high) == (1, 1)
    assert (old_low, old_high) == (2, 2)


def test_a_score_adds_points_of_attributes_and_joins_conditions():
    score = (("age", (0.0, 0.4, 0.8)), ("price", (0.0, 0.5)))
    segments = (Segment("scored", (), FLAT, score, 0.8), Segment("others", (), FLAT))
    oblique = Scope("hat", "strong", segments)
    assert segment_of_combination(oblique, ATTRIBUTES).tolist() == [1, 1, 1, 0, 0, 0]
    both = replace(segments[0], conditions=(("price", ("high",)),))
    assert segment_of_combination(replace(oblique, segments=(both, segments[1])), ATTRIBUTES).tolist() == [
        1,
        1,
        1,
        0,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("age", "gender", "price", "segment"),
    [
        ("18-24", "female", "high", "bargain_youth"),
        ("25-34", "male", "low", "young"),
        ("50+", "female", "high", "women_35_up"),
        ("35-49", "male", "high", "men_35_up"),
    ],
)
def test_who_belongs_to_which_segment_of_the_easy_market(market, age, gender, price, segment):
    cell = f"age_band={age}|city_tier=tier2|device=ios|gender={gender}|membership=none|price_sensitivity={price}"
    assert segment_shares_of(market, "shoe", cell) == {segment: pytest.approx(1.0)}


def test_an_unknown_value_stands_for_all_that_it_may_be():
    assert segment_shares_of_cell(BY_RULE, ATTRIBUTES, "age=young|price=unknown") == pytest.approx((0.9, 0.1, 0.0))
    assert segment_shares_of_cell(BY_RULE, ATTRIBUTES, "age=unknown|price=high") == pytest.approx(
        (0.45 / 0.65, 0.15 / 0.65, 0.05 / 0.65)
    )
    assert segment_shares_of_cell(BY_RULE, ATTRIBUTES, "age=unknown|price=unknown") == pytest.approx((0.45, 0.35, 0.2))
    soft = replace(BY_RULE, softness=0.3)
    assert segment_shares_of_cell(soft, ATTRIBUTES, "age=old|price=low") == pytest.approx((0.1, 0.1, 0.8))


@pytest.mark.parametrize("scope", ["watch", "phone", "chair"])
def test_the_shares_of_a_cell_are_those_of_users_with_any_value_where_it_names_none(realistic, scope):
    attributes, wanted = realistic.population.attributes, {"gender": "male", "city_tier": "tier1", "device": "ios"}
    known = [one.name in wanted for one in attributes]
    values = realistic.population.values(np.arange(400_000))
    asked = [one.values.index(wanted[one.name]) for one in attributes if one.name in wanted]
    users = np.flatnonzero((values[:, known] == asked).all(1))
    places = np.full(len(users), [one.name for one in realistic.scopes].index(scope))
    counts = np.bincount(segments_of_users(realistic, users, places), minlength=len(realistic.scope(scope).segments))
    cell = "|".join(f"{one.name}={wanted.get(one.name, UNKNOWN)}" for one in attributes)
    shares = segment_shares_of_cell(realistic.scope(scope), attributes, cell)
    assert chisquare(counts, len(users) * np.array(shares)).pvalue > 0.001


def test_users_fall_into_segments_in_the_shares_told(realistic):
    for place, scope in enumerate(realistic.scopes):
        if len(scope.segments) == 1:
            continue
        found = segments_of_users(realistic, EVERYONE, np.full(len(EVERYONE), place))
        counts = np.bincount(found, minlength=len(scope.segments))
        told = everyone(realistic, scope.name)
        assert list(told) == [segment.name for segment in scope.segments]
        assert sum(told.values()) == pytest.approx(1.0)
        assert chisquare(counts, len(EVERYONE) * np.array(list(told.values()))).pvalue > 1e-4, scope.name


def test_softness_moves_its_share_of_users_to_any_segment_alike(realistic):
    watch = realistic.scopes.index(realistic.scope("watch"))
    by_rule = segment_of_combination(realistic.scopes[watch], realistic.population.attributes)
    ruled = by_rule[realistic.population.combination(EVERYONE)]
    found = segments_of_users(realistic, EVERYONE, np.full(len(EVERYONE), watch))
    moved = found != ruled
    assert moved.mean() == pytest.approx(0.15 * 4 / 5, abs=0.005)
    others = ruled == 4
    assert chisquare(np.bincount(found[moved & others], minlength=5)[:4]).pvalue > 0.001


def test_softness_of_two_scopes_is_drawn_apart(realistic):
    moved = []
    for name in ("watch", "phone"):
        place = realistic.scopes.index(realistic.scope(name))
        by_rule = segment_of_combination(realistic.scopes[place], realistic.population.attributes)
        found = segments_of_users(realistic, EVERYONE, np.full(len(EVERYONE), place))
        moved.append(found != by_rule[realistic.population.combination(EVERYONE)])
    assert (moved[0] & moved[1]).mean() == pytest.approx(moved[0].mean() * moved[1].mean(), abs=0.002)


def test_users_of_one_segment_part_in_another_scope(realistic):
    places = {scope.name: place for place, scope in enumerate(realistic.scopes)}
    shoe, bag = (segments_of_users(realistic, EVERYONE, np.full(len(EVERYONE), places[one])) for one in ("shoe", "bag"))
    together = np.histogram2d(shoe, bag, bins=(range(5), range(4)))[0]
    is_young = together[:2]
    assert (is_young > 0.1 * is_young.sum(1, keepdims=True)).all()


def test_every_segment_of_the_easy_market_holds_an_eighth_of_the_users(market):
    sizes = {scope.name: everyone(market, scope.name) for scope in market.scopes}
    assert {scope: len(shares) for scope, shares in sizes.items()} == {"shoe": 4, "bag": 3, "lamp": 3, "mug": 1}
    assert min(min(shares.values()) for shares in sizes.values()) >= 0.12


def test_a_rule_over_nothing_that_is_known_is_refused():
    def scope(*segments: Segment) -> Scope:
        return Scope("hat", "strong", segments)

    others = Segment("others", (), FLAT)
    with pytest.raises(ValueError, match="'rich' has a rule over 'income', which is no attribute"):
        segment_of_combination(scope(Segment("rich", (("income", ("high",)),), FLAT), others), ATTRIBUTES)
    with pytest.raises(ValueError, match="'rich' has a rule over 'income', which is no attribute"):
        segment_of_combination(scope(Segment("rich", (), FLAT, (("income", (0.0, 1.0)),), 1.0), others), ATTRIBUTES)
    with pytest.raises(ValueError, match=r"'babies' has a rule over age \('baby',\)"):
        segment_of_combination(scope(Segment("babies", (("age", ("baby",)),), FLAT), others), ATTRIBUTES)
    with pytest.raises(ValueError, match="no segment of scope 'hat' takes every user"):
        segment_of_combination(scope(Segment("young", (("age", ("young",)),), FLAT)), ATTRIBUTES)


def test_the_log_lift_of_a_picture_by_hand():
    taste = Taste(
        0.1, along(brightness=0.5, shadow=-0.2), along(brightness=0.4, grain=0.6), ((0, 8, 0.3), (1, 2, -1.0))
    )
    style = along(brightness=0.5, warmth=0.2, saturation=0.5, grain=1.0, shadow=-1.0)
    # 0.1 + (0.25 + 0.2) - (0.4 * 0.25 + 0.6 * 1) / 2 + 0.3 * 0.5 * -1 - 1 * 0.2 * 0.5
    assert taste.log_lift(np.array([style, NONE])) == pytest.approx([-0.05, 0.1])


def test_drift_swings_the_slopes_within_half_a_year():
    taste = Taste(0.0, along(warmth=0.2), NONE, drift=along(warmth=0.1))
    warm = np.array([along(warmth=1.0)])
    lifts = [taste.log_lift(warm, days)[0] for days in (0, 45, 90, 135, 180, 225)]
    assert lifts == pytest.approx([0.2, 0.3, 0.2, 0.1, 0.2, 0.3])
