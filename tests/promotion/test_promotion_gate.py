"""The gate as a pure function: by hand, and whatever the figures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registered_versions import GROUPS, OTHER_SET, PAIRS, PRODUCTS, record_of

from osmf_models.evaluation.evaluation_record import EvaluationRecord, JudgedCase, JudgedPairs
from osmf_pipelines.promotion.comparison import compare, wilson_interval
from osmf_pipelines.promotion.gate import Floors, GateVerdict, judge_promotion

FLOORS = Floors(picture_quality=0.8, product_fidelity=0.99)
CHAMPION = record_of({"g1": 0.04, "g2": 0.02})


def judge(challenger: EvaluationRecord, champion: EvaluationRecord | None = CHAMPION, found: str = "") -> GateVerdict:
    return judge_promotion(challenger, champion, found_sha256=found, floors=FLOORS)


def only_reason(verdict: GateVerdict) -> str:
    assert not verdict.is_passed
    assert len(verdict.reasons) == 1, verdict.reasons
    return verdict.reasons[0]


def test_differences_by_hand():
    """Product p1 differs by 2, p2 by 0 in both groups: resampled means are 0, 1, 2, stretched by the root of 2 / 1."""
    ours = {("s", group, product): float(product == "p1") * 2 + 1 for group in GROUPS for product in PRODUCTS[:2]}
    theirs = dict.fromkeys(ours, 1.0)
    compared = compare(ours, theirs)
    for difference in (compared.overall, compared.worst_group):
        assert (difference.value, difference.low, difference.high) == pytest.approx((1.0, 1 - 2**0.5, 1 + 2**0.5))


def test_worst_group_is_each_ones_own():
    """Means 0.03 and 0.03, worst 0.02 against 0.01: one gains in its worst group what it loses elsewhere."""
    ours = {("s", "g1", "p1"): 0.04, ("s", "g2", "p1"): 0.02}
    theirs = {("s", "g1", "p1"): 0.01, ("s", "g2", "p1"): 0.05}
    compared = compare(ours, theirs)
    assert compared.overall.value == pytest.approx(0.0)
    assert compared.worst_group.value == pytest.approx(0.01)


def test_wilson_interval_by_hand():
    """8 of 10: (0.8 + 0.19207) / 1.38415 -+ 1.95996 / 1.38415 * sqrt(0.016 + 0.0096036)."""
    assert wilson_interval(0.8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_equal_and_better_challengers_pass():
    for rates in ({"g1": 0.04, "g2": 0.02}, {"g1": 0.05, "g2": 0.02}):
        verdict = judge(record_of(rates))
        assert verdict.is_passed
        assert verdict.is_truth_known
    assert verdict.figures["true_ctr_rate_minus_champion/overall"] == pytest.approx(0.005)
    assert verdict.figures["true_ctr_rate_minus_champion/worst_group"] == pytest.approx(0.0)


def test_a_challenger_worse_overall_or_in_its_worst_group_is_refused():
    assert "below the champion overall: true_ctr_rate -0.00500" in only_reason(
        judge(record_of({"g1": 0.03, "g2": 0.02}))
    )
    lost = only_reason(judge(record_of({"g1": 0.06, "g2": 0.01})))
    assert "below the champion worst group: true_ctr_rate -0.01000" in lost


def test_a_loss_that_chance_explains_passes():
    """One product of three is far better, two a little worse: the interval holds 0."""
    rates = {"p1": 0.08, "p2": 0.01, "p3": 0.01}
    challenger = replace(
        CHAMPION, cases=tuple(replace(case, true_ctr_rate=rates[case.product_id]) for case in CHAMPION.cases)
    )
    level = record_of(0.035)
    verdict = judge(challenger, level)
    assert verdict.figures["true_ctr_rate_minus_champion/overall"] < 0
    assert verdict.figures["true_ctr_rate_minus_champion/overall_high"] > 0
    assert verdict.is_passed


def test_floors_hold_for_the_first_model_too():
    for champion in (None, CHAMPION):
        assert (
            only_reason(judge(record_of(0.09, quality=0.79), champion))
            == "picture_quality 0.790 is below the floor 0.8"
        )
        assert "product_fidelity 0.980" in only_reason(judge(record_of(0.09, fidelity=0.98), champion))
    assert judge(record_of(0.0001, quality=0.8), None).is_passed


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("figure", ["true_ctr_rate", "picture_quality", "product_fidelity"])
def test_a_figure_that_is_no_number_is_refused(figure, broken):
    cases = list(CHAMPION.cases)
    cases[2] = replace(cases[2], **{figure: broken})
    damaged = replace(CHAMPION, cases=tuple(cases))
    assert only_reason(judge(damaged)) == f"the challenger's {figure} is no finite number in 1 of 6 cases"
    assert only_reason(judge(CHAMPION, damaged)) == f"the champion's {figure} is no finite number in 1 of 6 cases"


def test_other_data_is_refused():
    assert "on other data than the champion" in only_reason(judge(record_of(0.09, evaluation_set=OTHER_SET)))
    assert "sampling differs" in only_reason(judge(replace(record_of(0.09), sampling={"num_seeds": 1})))
    fewer = replace(record_of(0.09), cases=record_of(0.09).cases[:3])
    assert only_reason(judge(fewer)) == "its cases are not the champion's"
    lacking = replace(record_of(0.09), cases=record_of(0.09).cases[:-1])
    assert "the challenger's evaluation lacks products for some groups" in judge(lacking).reasons
    assert "the challenger's evaluation holds no case" in judge(replace(record_of(0.09), cases=())).reasons


def test_changed_files_are_refused():
    assert "not the ones that were evaluated" in only_reason(judge(record_of(0.09), found="c" * 64))


def without_truth(lift: float | None, pairs: tuple[JudgedPairs, ...] = PAIRS) -> EvaluationRecord:
    return record_of(None, lift=lift, pairs=pairs)


def test_without_a_truth_predicted_lifts_and_pairs_decide():
    passed = judge(without_truth(0.2), without_truth(0.1))
    assert passed.is_passed
    assert not passed.is_truth_known
    assert passed.figures["predicted_log_lift_minus_champion/overall"] == pytest.approx(0.1)
    # 0.7 and 0.6 of 200 each: 0.65 of 400, 0.6021 to 0.6951.
    assert passed.figures["pair_accuracy"] == pytest.approx(0.65)
    assert passed.figures["pair_accuracy_low"] == pytest.approx(0.6021, abs=5e-4)
    reasons = judge(without_truth(0.0), without_truth(0.1)).reasons
    assert [reason[:33] for reason in reasons] == [
        "it is below the champion overall:",
        "it is below the champion worst gr",
    ]
    assert only_reason(judge(without_truth(None), None)).startswith("neither a truth nor a reward model")


def test_pairs_that_a_coin_would_order_as_well_are_refused():
    assert only_reason(judge(without_truth(0.2, ()), None)) == "no held-out pairs were judged"
    at_chance = (JudgedPairs("g1", 200, 0.52), JudgedPairs("g2", 200, 0.52))
    assert "is not above a coin's" in only_reason(judge(without_truth(0.2, at_chance), None))
    one_wrong = (JudgedPairs("g1", 2000, 0.7), JudgedPairs("g2", 200, 0.3))
    assert "in the worst group pair accuracy is below a coin's" in only_reason(
        judge(without_truth(0.2, one_wrong), None)
    )
    unsure = (JudgedPairs("g1", 2000, 0.7), JudgedPairs("g2", 5, 0.2))
    assert judge(without_truth(0.2, unsure), None).is_passed


def test_products_without_logged_pictures_are_left_out_of_lifts_alone():
    def lacking_p3(lift: float) -> EvaluationRecord:
        record = without_truth(lift)
        cases = [replace(one, predicted_log_lift=None) if one.product_id == "p3" else one for one in record.cases]
        return replace(record, cases=tuple(cases))

    assert judge(lacking_p3(0.2), lacking_p3(0.1)).is_passed
    assert only_reason(judge(lacking_p3(0.2), without_truth(0.1))) == "its cases are not the champion's"


RATE = st.floats(0.0, 0.2)
SHARE = st.floats(0.0, 1.0)


@st.composite
def records(draw, has_truth: bool) -> EvaluationRecord:
    cases = [
        JudgedCase(
            "shoe",
            group,
            product,
            draw(RATE) if has_truth else None,
            draw(st.floats(0.7, 1.0)) if has_truth else None,
            None if has_truth else draw(st.floats(-1.0, 1.0)),
            draw(st.floats(0.985, 1.0)),
        )
        for group in GROUPS
        for product in PRODUCTS
    ]
    pairs = tuple(JudgedPairs(group, draw(st.integers(1, 500)), draw(st.floats(0.4, 1.0))) for group in GROUPS)
    sampling = {"num_seeds": 2.0}
    return EvaluationRecord("", "a", None if has_truth else "r", sampling, tuple(cases), pairs)


def worse(draw, record: EvaluationRecord) -> EvaluationRecord:
    """The same with every figure as it is or lower."""

    def lower(value: float | None) -> float | None:
        return None if value is None else value - draw(st.sampled_from([0.0, 0.0, 1e-4, 0.01, 0.1]))

    names = ("true_ctr_rate", "picture_quality", "predicted_log_lift", "product_fidelity")
    cases = tuple(replace(case, **{name: lower(getattr(case, name)) for name in names}) for case in record.cases)
    pairs = tuple(replace(one, accuracy=max(0.0, lower(one.accuracy))) for one in record.pairs)
    return replace(record, cases=cases, pairs=pairs)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_a_challenger_made_worse_never_passes_where_it_was_refused(data, has_truth, has_champion):
    challenger = data.draw(records(has_truth))
    champion = data.draw(records(has_truth)) if has_champion else None
    lower = worse(data.draw, challenger)
    if judge(lower, champion).is_passed:
        assert judge(challenger, champion).is_passed


@settings(max_examples=40, deadline=None)
@given(records(has_truth=True))
def test_no_model_loses_to_itself(record):
    reasons = judge(record, record).reasons
    assert not [reason for reason in reasons if "below the champion" in reason]
