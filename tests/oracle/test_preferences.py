"""From creative_stats to preference pairs: the pipeline against the oracle. Groups are given, not grown."""

from __future__ import annotations

import pytest

from tests.oracle.answers import MIN_PROBABILITY, PreferenceAnswers
from tests.oracle.events import Row
from tests.oracle.pairs import Comparison, find_contradictions, is_kept
from tests.oracle.rates import ROOT
from tests.oracle.special import regularised_lower_gamma


def test_rates_agree(preferences: PreferenceAnswers) -> None:
    rows = {(row["scope"], _group(row), row["creative_id"]): row for row in preferences.pipeline.group_ctr}

    assert len(rows) == len(preferences.pipeline.group_ctr)
    assert rows.keys() == preferences.shown.keys()
    for key, row in rows.items():
        impressions, clicks, effective_impressions = preferences.shown[key]
        shape, rate = preferences.posterior_of[key]
        assert row["as_of_date"] == preferences.as_of_date
        assert (row["num_impressions"], row["num_clicks"]) == (impressions, clicks)
        assert row["effective_impressions"] == pytest.approx(effective_impressions, rel=1e-12)
        assert (row["posterior_shape"], row["posterior_rate"]) == pytest.approx((shape, rate), rel=1e-9)
        assert row["ctr_rate"] == pytest.approx(shape / rate, rel=1e-9)
        for bound, mass in (("ctr_rate_low", 0.025), ("ctr_rate_high", 0.975)):
            assert regularised_lower_gamma(shape, row[bound] * rate) == pytest.approx(mass, rel=1e-8)


def test_pairs_agree(preferences: PreferenceAnswers) -> None:
    split_of, kept = preferences.split_of_product, _kept(preferences)
    contradictions = find_contradictions(kept)
    expected = {_key(vars(pair), pair.group_id): pair for pair in kept if pair.product_id in split_of}
    found = {_key(row, _group(row)): row for row in preferences.pipeline.preference_pairs}

    assert _margin(preferences.comparisons) > 1e-6
    assert len(found) == len(preferences.pipeline.preference_pairs)
    assert found.keys() == expected.keys()
    for key, row in found.items():
        pair = expected[key]
        assert row["is_contradiction"] == (pair in contradictions)
        assert (row["as_of_date"], row["split"]) == (preferences.as_of_date, split_of[pair.product_id])
        assert row["chosen_better_probability"] == pytest.approx(pair.chosen_better_probability, rel=1e-9)
        assert row["log_rate_ratio"] == pytest.approx(pair.log_rate_ratio, rel=1e-9)
        for side in ("chosen", "rejected"):
            *_, effective = preferences.shown[pair.scope, pair.group_id, row[f"{side}_creative_id"]]
            assert row[f"{side}_effective_impressions"] == pytest.approx(effective, rel=1e-12)


def test_what_is_not_sure_enough_is_counted(preferences: PreferenceAnswers) -> None:
    counts, kept = preferences.pipeline.counts, _kept(preferences)

    assert (counts.num_kept, counts.num_insufficient_evidence) == (len(kept), len(preferences.comparisons) - len(kept))
    wrong = sum(1 - pair.chosen_better_probability for pair in kept) / len(kept)
    assert counts.expected_wrong_share == pytest.approx(wrong, rel=1e-9)


def test_scopes_have_one_group_or_more_and_pairs_are_of_every_kind(preferences: PreferenceAnswers) -> None:
    groups_of = {(scope, group) for scope, group, _ in preferences.shown if group is not ROOT}
    num_groups = {sum(scope == other for other, _ in groups_of) for scope, _ in groups_of}
    rows = preferences.pipeline.preference_pairs
    kinds = {(row["is_scope_root"], row["is_contradiction"]) for row in rows}

    assert num_groups == {1, 2, 3}
    assert kinds == {(True, False), (False, True), (False, False)}
    assert {row["split"] for row in rows} > {"train"}
    assert any(pair.product_id not in preferences.split_of_product for pair in _kept(preferences))


def _kept(preferences: PreferenceAnswers) -> list[Comparison]:
    return [pair for pair in preferences.comparisons if is_kept(pair, MIN_PROBABILITY)]


def _group(row: Row) -> str | None:
    return ROOT if row["is_scope_root"] else row["group_id"]


def _key(pair: Row, group: str | None) -> tuple:
    return (pair["scope"], group, pair["product_id"], pair["chosen_creative_id"], pair["rejected_creative_id"])


def _margin(comparisons: list[Comparison]) -> float:
    """How far the nearest comparison is from being decided otherwise."""
    from_threshold = (abs(pair.chosen_better_probability - MIN_PROBABILITY) for pair in comparisons)
    sure = (pair for pair in comparisons if pair.chosen_better_probability >= MIN_PROBABILITY)
    return min(*from_threshold, *(abs(pair.log_rate_ratio) for pair in sure))
