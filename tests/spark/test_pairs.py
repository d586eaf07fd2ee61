from datetime import date

import numpy as np
import pytest

from osmf_pipelines.spark.pairs import better_probability, count_pairs, preference_pairs
from osmf_pipelines.tables import TABLES

DAY, YESTERDAY = date(2026, 3, 2), date(2026, 3, 1)


def _rate(group, creative, shape, rate, *, product="p1", is_root=False, day=DAY):
    counts = (int(rate), int(shape), float(rate), float(shape), float(rate))
    return (day, group, "shoes", is_root, product, creative, *counts, shape / rate, 0.0, 1.0)


ROWS = [
    _rate("g1", "a", 100, 1000),
    _rate("g1", "b", 50, 1000),
    _rate("g1", "c", 48, 1000),
    _rate("g2", "a", 50, 1000),
    _rate("g2", "b", 100, 1000),
    _rate("root", "a", 150, 2000, is_root=True),
    _rate("root", "b", 300, 2000, is_root=True),
    _rate("g1", "y", 100, 1000, product="p-unsplit"),
    _rate("g1", "z", 50, 1000, product="p-unsplit"),
    _rate("g1", "a", 1, 1000, day=YESTERDAY),
]
SPLITS = [("p1", "shoes", "validation")]


def _frames(spark):
    return (
        spark.createDataFrame(ROWS, TABLES["group_ctr"].ddl),
        spark.createDataFrame(SPLITS, TABLES["product_splits"].ddl),
    )


@pytest.mark.parametrize(
    ("x", "y"), [((3.0, 10.0), (2.0, 9.0)), ((40.0, 900.0), (25.0, 800.0)), ((0.3, 5.0), (2.0, 4.0))]
)
def test_the_probability_agrees_with_draws(x, y):
    rng = np.random.default_rng(0)
    draws = [rng.gamma(shape, 1 / rate, 1_000_000) for shape, rate in (x, y)]

    probability = better_probability(*(np.array(value) for value in (*x, *y)))

    assert probability == pytest.approx((draws[0] > draws[1]).mean(), abs=0.002)
    assert probability == pytest.approx(1 - better_probability(*(np.array(value) for value in (*y, *x))))


def test_pairs_are_kept_with_their_direction_evidence_and_strength(spark):
    pairs = preference_pairs(*_frames(spark), as_of_date=DAY)

    assert ", ".join(f"`{name}` {type_}" for name, type_ in pairs.dtypes) == TABLES["preference_pairs"].ddl
    found = {(r["group_id"], r["chosen_creative_id"], r["rejected_creative_id"]): r for r in pairs.collect()}
    assert set(found) == {("g1", "a", "b"), ("g1", "a", "c"), ("g2", "b", "a"), ("root", "b", "a")}
    pair = found["g1", "a", "b"]
    assert pair["log_rate_ratio"] == pytest.approx(np.log(2))
    assert pair["chosen_better_probability"] == pytest.approx(
        better_probability(*(np.array(value) for value in (100.0, 1000.0, 50.0, 1000.0)))
    )
    assert (pair["chosen_effective_impressions"], pair["rejected_effective_impressions"]) == (1000.0, 1000.0)
    assert {row["split"] for row in found.values()} == {"validation"}


def test_contradictions_are_between_groups_and_never_with_the_root(spark):
    pairs = preference_pairs(*_frames(spark), as_of_date=DAY).collect()

    contradicting = {(row["group_id"], row["rejected_creative_id"]) for row in pairs if row["is_contradiction"]}
    assert contradicting == {("g1", "b"), ("g2", "a")}


def test_what_is_not_sure_is_counted(spark):
    rates, _ = _frames(spark)

    counts = count_pairs(rates.where("product_id = 'p1'"))

    assert (counts.num_kept, counts.num_insufficient_evidence) == (4, 1)
    assert 0 < counts.expected_wrong_share < 0.01
    assert count_pairs(rates.where("creative_id = 'a'")).expected_wrong_share is None


def test_a_probable_pair_with_the_lower_mean_is_not_kept(spark):
    rows = [_rate("g1", "steady", 1000, 10_000), _rate("g1", "wild", 1, 8)]
    frame = spark.createDataFrame(rows, TABLES["group_ctr"].ddl)
    wild_is_worse = better_probability(*(np.array(value) for value in (1000.0, 10_000.0, 1.0, 8.0)))

    assert wild_is_worse > 0.5
    assert preference_pairs(frame, _frames(spark)[1], as_of_date=DAY, min_probability=0.5).count() == 0


def test_an_impossible_minimum_is_refused(spark):
    with pytest.raises(ValueError, match="min_probability"):
        count_pairs(_frames(spark)[0], min_probability=1.0)
