"""From creative_stats to preference pairs: the pipeline against the oracle. Groups are given, not grown."""

from __future__ import annotations

import random
from datetime import date, timedelta
from itertools import product as every

import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.spark.pairs import preference_pairs
from osmf_pipelines.tables import TABLES
from tests.oracle.answers import MIN_PROBABILITY, PreferenceAnswers
from tests.oracle.events import Row
from tests.oracle.pairs import Comparison, compare_creatives, find_contradictions, is_kept
from tests.oracle.pipeline import collect_rows
from tests.oracle.rates import ROOT
from tests.oracle.special import regularised_lower_gamma

DAY = date(2026, 3, 1)


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
    effective = {key: effective for key, (_, _, effective) in preferences.shown.items()}
    rows = preferences.pipeline.preference_pairs

    _assert_pairs_agree(rows, preferences.comparisons, effective, preferences.split_of_product)
    assert {row["as_of_date"] for row in rows} == {preferences.as_of_date}


def test_pairs_agree_where_root_and_groups_have_nothing_in_common(spark: SparkSession) -> None:
    """Posteriors drawn one by one: roots stand against all their groups, and means against probabilities."""
    rng, rows, posterior_of, effective = random.Random(0), [], {}, {}
    product_of = {f"p{number}-c{creative}": f"p{number}" for number in range(8) for creative in range(4)}
    for scope, group, creative in every(("shoes", "lamps"), ("g1", "g2", ROOT), product_of):
        for day in (DAY - timedelta(days=1), DAY):
            shape = 10 ** rng.uniform(-1, 2)
            rate, key = shape / rng.uniform(0.05, 0.1), (scope, group, creative)
            posterior_of[key], effective[key] = (shape, rate), rng.uniform(1, 100)
            names = (day, f"{scope}/{group}", scope, group is ROOT, product_of[creative], creative)
            rows.append((*names, 1, 0, effective[key], shape, rate, shape / rate, 0.0, 1.0))
    comparisons = []
    for scope in ("shoes", "lamps"):
        of_scope = {key[1:]: posterior for key, posterior in posterior_of.items() if key[0] == scope}
        comparisons += compare_creatives(scope, of_scope, product_of)
    split_of = {f"p{number}": "train" for number in range(7)}
    splits = [(product, "shoes", split) for product, split in split_of.items()]
    pairs = preference_pairs(
        spark.createDataFrame(rows, TABLES["group_ctr"].ddl),
        spark.createDataFrame(splits, TABLES["product_splits"].ddl),
        as_of_date=DAY,
        min_probability=MIN_PROBABILITY,
    )
    found = [{**row, "group_id": row["group_id"].split("/")[1]} for row in collect_rows(pairs)]

    _assert_pairs_agree(found, comparisons, effective, split_of)
    sure = [pair for pair in comparisons if pair.chosen_better_probability >= MIN_PROBABILITY]
    assert any(pair.log_rate_ratio < 0 for pair in sure)


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


def _assert_pairs_agree(
    rows: list[Row], comparisons: list[Comparison], effective: dict[tuple, float], split_of: dict[str, str]
) -> None:
    kept = [pair for pair in comparisons if is_kept(pair, MIN_PROBABILITY)]
    contradictions = find_contradictions(kept)
    expected = {_key(vars(pair), pair.group_id): pair for pair in kept if pair.product_id in split_of}
    found = {_key(row, _group(row)): row for row in rows}
    assert _margin(comparisons) > 1e-6
    assert len(found) == len(rows)
    assert found.keys() == expected.keys()
    for key, row in found.items():
        pair = expected[key]
        assert row["is_contradiction"] == (pair in contradictions)
        assert row["split"] == split_of[pair.product_id]
        assert row["chosen_better_probability"] == pytest.approx(pair.chosen_better_probability, rel=1e-9)
        assert row["log_rate_ratio"] == pytest.approx(pair.log_rate_ratio, rel=1e-9)
        for side in ("chosen", "rejected"):
            evidence = effective[pair.scope, pair.group_id, row[f"{side}_creative_id"]]
            assert row[f"{side}_effective_impressions"] == pytest.approx(evidence, rel=1e-12)


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
