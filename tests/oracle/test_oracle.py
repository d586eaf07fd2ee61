"""The pipeline against the oracle on random logs, table by table.

Groups are given, not grown. `user_fold` is the pipeline's own, being a hash that the oracle does not know.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.spark.place_effects import PlaceEffects, fit_place_effects
from osmf_pipelines.tables import TABLES
from tests.oracle.clicks import OUTCOMES, ClickRules, judge_clicks
from tests.oracle.events import Ingested, Line, Row, hash_user, ingest_clicks, ingest_impressions
from tests.oracle.exposures import attribution_ledger, form_exposures, ingest_ledger, sum_exposures
from tests.oracle.pairs import Comparison, compare_creatives, find_contradictions, is_kept
from tests.oracle.pipeline import Events, Preferences, run_day, run_events, run_preferences, write_drop
from tests.oracle.random_logs import Log, draw_groups, draw_log
from tests.oracle.rates import ROOT, count_scopes, fit_effects, posteriors
from tests.oracle.special import regularised_incomplete_beta, regularised_lower_gamma

USER_KEY = "a secret"
MIN_PROBABILITY = 0.7
REASONS = {
    *(f"missing_{name}" for name in ("impression_id", "user_id", "product_id", "creative_id", "impressed_at")),
    *(f"missing_{name}" for name in ("click_id", "clicked_at")),
    *(f"bad_{name}" for name in ("impressed_at", "position", "propensity", "clicked_at")),
    "unreadable",
    "unknown_creative",
    "creative_of_another_product",
    "outside_source_date",
    "after_source_date",
    "position_below_1",
    "propensity_not_in_0_1",
    "conflicting_duplicate",
}


@dataclass(frozen=True)
class Case:
    """Random logs, by their seeds, and the settings that they are read with."""

    seeds: range
    rules: ClickRules
    fitted_splits: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """One case, what the oracle says of its events, and what the pipeline made of them."""

    case: Case
    log: Log
    impressions: Ingested
    clicks: Ingested
    judged: list[Row]
    exposures: list[Row]
    pipeline: Events


CASES = [
    Case(range(8), ClickRules(30, 2, 6), ("train",)),
    pytest.param(Case(range(100, 140), ClickRules(36, 3, 5), ("train", "validation", "test")), marks=pytest.mark.slow),
    pytest.param(Case(range(200, 240), ClickRules(1, 1, 7), ("train",)), marks=pytest.mark.slow),
    pytest.param(Case(range(300, 340), ClickRules(48, 2, 6), ("train",)), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"seeds {case.seeds.start}-{case.seeds.stop - 1}")
def answers(request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The logs of a case are one log: their ids have nothing in common, so it is as if each were run alone."""
    case: Case = request.param
    log = Log()
    for seed in case.seeds:
        log.add(draw_log(seed, case.rules))
    folder = tmp_path_factory.mktemp("oracle") / "drop"
    write_drop(log, folder)
    impressions = ingest_impressions(log.impressions, log.product_of_creative, USER_KEY)
    clicks = ingest_clicks(log.clicks)
    judged = judge_clicks(impressions.kept, clicks.kept, case.rules)
    attributes = {hash_user(user, USER_KEY): values for user, values in log.attributes_of_user.items()}
    exposures = form_exposures(impressions.kept, judged, attributes, log.scope_of_product, case.rules)
    pipeline = run_events(spark, folder, case.rules, user_key=USER_KEY)
    return Answers(case, log, impressions, clicks, judged, exposures, pipeline)


def test_every_reason_and_every_outcome_occurs(answers: Answers) -> None:
    refused = answers.impressions.refused + answers.clicks.refused

    assert {reason for refusal in refused for reason in refusal.reasons} == REASONS
    assert {click["outcome"] for click in answers.judged} == OUTCOMES
    user_days = {row["num_user_impressions"] for row in answers.impressions.kept}
    assert {answers.case.rules.max_impressions_per_user_day + more for more in (0, 1)} < user_days


def test_the_same_events_are_refused_for_the_same_reasons(answers: Answers) -> None:
    def as_it_came(line: Line) -> frozenset | str:
        return line if isinstance(line, str) else frozenset((k, str(v)) for k, v in line.items() if v is not None)

    def as_told(row: Row) -> frozenset | str:
        return row["payload"] if "unreadable" in row["reasons"] else frozenset(json.loads(row["payload"]).items())

    expected = [
        (event_type, refusal.source_date, refusal.reasons, as_it_came(refusal.line))
        for event_type, events in (("impression", answers.impressions), ("click", answers.clicks))
        for refusal in events.refused
    ]
    found = [
        (row["event_type"], row["source_date"], frozenset(row["reasons"]), as_told(row))
        for row in answers.pipeline.rows["quarantined_events"]
    ]
    _assert_same(found, expected)


def test_bronze_rows_agree(answers: Answers) -> None:
    for table, events in (("bronze_impressions", answers.impressions), ("bronze_clicks", answers.clicks)):
        columns = [name for name in TABLES[table].column_names if name not in TABLES[table].provenance_columns]
        _assert_same(_tuples(answers.pipeline.rows[table], columns), _tuples(events.kept, columns))


def test_each_click_comes_to_the_same(answers: Answers) -> None:
    columns = ("source_date", "click_id", "impression_id", "clicked_at", "event_date", "outcome")

    _assert_same(_tuples(answers.pipeline.rows["judged_clicks"], columns), _tuples(answers.judged, columns))


def test_ledgers_agree_and_balance(answers: Answers) -> None:
    ledger = answers.pipeline.ledger + _attribution_counts(answers)
    expected = ingest_ledger(answers.impressions, answers.clicks)
    expected += attribution_ledger(answers.impressions.kept, answers.judged, answers.case.rules)
    for event_type, lines in (("impression", answers.log.impressions), ("click", answers.log.clicks)):
        expected += Counter({(day, event_type, "read"): len(lines[day]) for day in lines})

    assert ledger == expected
    for event_type, parts in (("impression", {"exposure", "bot"}), ("click", OUTCOMES)):
        for day in answers.log.impressions:
            accounted = sum(ledger[day, event_type, name] for name in {*parts, "deduplicated", "quarantined"})
            assert ledger[day, event_type, "read"] == accounted


def test_exposures_agree(answers: Answers) -> None:
    columns = [name for name in TABLES["silver_exposures"].column_names if name != "user_fold"]

    _assert_same(_tuples(answers.pipeline.rows["silver_exposures"], columns), _tuples(answers.exposures, columns))


def test_a_user_has_one_fold_of_five(answers: Answers) -> None:
    folds = {(row["user_id"], row["user_fold"]) for row in answers.pipeline.rows["silver_exposures"]}

    assert len(folds) == len({user for user, _ in folds})
    assert {fold for _, fold in folds} == {0, 1, 2, 3, 4}


def test_creative_stats_agree(answers: Answers) -> None:
    _assert_same(
        _tuples(answers.pipeline.rows["creative_stats"], TABLES["creative_stats"].column_names),
        _tuples(_stats(answers), TABLES["creative_stats"].column_names),
    )


def test_days_run_one_by_one_come_to_the_same_after_each(answers: Answers) -> None:
    """Each day is run when the days after it are not there yet, and re-opens the days that its clicks touch."""
    published: dict[date, set[tuple]] = {}
    for day in sorted(answers.log.impressions):
        judged, touched = run_day(answers.pipeline, day, day, answers.case.rules)
        for reopened in {day} | touched & published.keys():
            published[reopened] = _attributed(judged, [reopened])
        until_now = [
            [row for row in events.kept if row["source_date"] <= day]
            for events in (answers.impressions, answers.clicks)
        ]
        expected = _attributed(judge_clicks(*until_now, answers.case.rules), answers.log.impressions)
        assert set().union(*published.values()) == expected


def test_a_day_run_again_when_later_ones_are_there_changes_nothing(answers: Answers) -> None:
    days = sorted(answers.log.impressions)
    for day in days[1:4]:
        judged, touched = run_day(answers.pipeline, day, days[-1], answers.case.rules)
        reopened = {day} | touched
        assert _attributed(judged, reopened) == _attributed(answers.judged, reopened)


def test_place_effects_agree(answers: Answers) -> None:
    found, expected = fit_place_effects(answers.pipeline.stats), fit_effects(_stats(answers))

    assert found.examination_rates == pytest.approx(expected.of_place, rel=1e-6)
    assert found.day_factors == pytest.approx(expected.of_day, rel=1e-6)


@dataclass(frozen=True)
class PreferenceAnswers:
    """Rates and pairs of one case, by the oracle and by the pipeline; a root's group is `ROOT`.

    Attributes:
        shown: impressions, clicks and effective impressions of (scope, group, creative).
        posterior_of: Gamma shape and rate of the same.
        comparisons: every two creatives of a product that a group was shown.
        as_of_date: last day of the logs.
        pipeline: what the pipeline made of the same groups and place effects.
    """

    shown: dict[tuple, tuple[int, int, float]]
    posterior_of: dict[tuple, tuple[float, float]]
    comparisons: list[Comparison]
    as_of_date: date
    pipeline: Preferences


@pytest.fixture(scope="module")
def preferences(answers: Answers) -> PreferenceAnswers:
    """Both are given the oracle's place effects, so that no rounding to thousandths can fall differently."""
    case, log, stats = answers.case, answers.log, _stats(answers)
    effects = fit_effects(stats)
    group_of_cell = draw_groups(case.seeds.start, [(row["scope"], row["cell"]) for row in answers.exposures])
    scopes, shown = count_scopes(stats, group_of_cell, log.split_of_product, effects, case.fitted_splits)
    posterior_of, comparisons = {}, []
    for scope, counts in scopes.items():
        of_scope = {key: value for key, value in posteriors(counts).items() if (scope, *key) in shown}
        posterior_of |= {(scope, *key): value for key, value in of_scope.items()}
        comparisons += compare_creatives(scope, of_scope, counts.product_of)
    as_of_date = max(log.impressions)
    pipeline = run_preferences(
        answers.pipeline,
        PlaceEffects(effects.of_place, effects.of_day),
        group_of_cell,
        log,
        as_of_date=as_of_date,
        fitted_splits=case.fitted_splits,
        min_probability=MIN_PROBABILITY,
    )
    return PreferenceAnswers(shown, posterior_of, comparisons, as_of_date, pipeline)


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


def test_pairs_agree(answers: Answers, preferences: PreferenceAnswers) -> None:
    kept = [pair for pair in preferences.comparisons if is_kept(pair, MIN_PROBABILITY)]
    contradictions = find_contradictions(kept)
    split_of = answers.log.split_of_product
    expected = {_pair_key(vars(pair), pair.group_id): pair for pair in kept if pair.product_id in split_of}
    found = {_pair_key(row, _group(row)): row for row in preferences.pipeline.preference_pairs}

    assert _margin(preferences.comparisons) > 1e-6
    assert len(found) == len(preferences.pipeline.preference_pairs)
    assert found.keys() == expected.keys()
    assert {key for key, row in found.items() if row["is_contradiction"]} == {
        key for key, pair in expected.items() if pair in contradictions
    }
    for key, row in found.items():
        pair = expected[key]
        assert (row["as_of_date"], row["split"]) == (preferences.as_of_date, split_of[pair.product_id])
        assert row["chosen_better_probability"] == pytest.approx(pair.chosen_better_probability, rel=1e-9)
        assert row["log_rate_ratio"] == pytest.approx(pair.log_rate_ratio, rel=1e-9)
        for side in ("chosen", "rejected"):
            *_, effective = preferences.shown[pair.scope, pair.group_id, row[f"{side}_creative_id"]]
            assert row[f"{side}_effective_impressions"] == pytest.approx(effective, rel=1e-12)


def test_pairs_are_of_every_kind(answers: Answers, preferences: PreferenceAnswers) -> None:
    rows = preferences.pipeline.preference_pairs

    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    assert {(row["is_scope_root"], row["is_contradiction"]) for row in rows} == {
        (True, False),
        (False, True),
        (False, False),
    }
    assert any(pair.product_id not in answers.log.split_of_product for pair in preferences.comparisons)
    assert {
        len({group for of_scope, group, _ in preferences.shown if of_scope == scope}) for scope, *_ in preferences.shown
    } == {2, 3, 4}


def test_what_is_not_sure_enough_is_counted(preferences: PreferenceAnswers) -> None:
    counts = preferences.pipeline.counts
    kept = [pair for pair in preferences.comparisons if is_kept(pair, MIN_PROBABILITY)]

    assert (counts.num_kept, counts.num_insufficient_evidence) == (len(kept), len(preferences.comparisons) - len(kept))
    wrong = sum(1 - pair.chosen_better_probability for pair in kept) / len(kept)
    assert counts.expected_wrong_share == pytest.approx(wrong, rel=1e-9)


def test_special_functions_have_their_known_values() -> None:
    beta, gamma = regularised_incomplete_beta, regularised_lower_gamma

    assert beta(1, 1, 0.3) == pytest.approx(0.3, rel=1e-12)
    assert beta(7, 1, 0.9) == pytest.approx(0.9**7, rel=1e-12)
    assert beta(2, 3, 0.4) == pytest.approx(6 * 0.4**2 - 8 * 0.4**3 + 3 * 0.4**4, rel=1e-12)
    assert beta(40, 40, 0.5) == pytest.approx(0.5, rel=1e-12)
    for x in (0.1, 1.0, 9.0):
        assert gamma(1, x) == pytest.approx(1 - math.exp(-x), rel=1e-12)
        assert gamma(0.5, x) == pytest.approx(math.erf(math.sqrt(x)), rel=1e-12)


def _stats(answers: Answers) -> list[Row]:
    folds = {row["user_id"]: row["user_fold"] for row in answers.pipeline.rows["silver_exposures"]}
    return sum_exposures(answers.exposures, folds)


def _attribution_counts(answers: Answers) -> Counter:
    """What became of the pipeline's bronze rows, by (source_date, event_type, outcome)."""
    rows, limit = answers.pipeline.rows, answers.case.rules.max_impressions_per_user_day
    counts = Counter((row["event_date"], "impression", "exposure") for row in rows["silver_exposures"])
    bots = [row for row in rows["bronze_impressions"] if row["num_user_impressions"] > limit]
    counts.update((row["source_date"], "impression", "bot") for row in bots)
    counts.update((row["source_date"], "click", row["outcome"]) for row in rows["judged_clicks"])
    return counts


def _attributed(judged: Iterable[Row], days: Iterable[date]) -> set[tuple]:
    """The click times of the impressions of `days`."""
    rows = [row for row in judged if row["outcome"] == "attributed" and row["event_date"] in days]
    return set(_tuples(rows, ("event_date", "impression_id", "clicked_at")))


def _group(row: Row) -> str | None:
    return ROOT if row["is_scope_root"] else row["group_id"]


def _pair_key(pair: Row, group: str | None) -> tuple:
    return (pair["scope"], group, pair["product_id"], pair["chosen_creative_id"], pair["rejected_creative_id"])


def _margin(comparisons: list[Comparison]) -> float:
    """How far the nearest comparison is from being decided otherwise."""
    from_threshold = (abs(pair.chosen_better_probability - MIN_PROBABILITY) for pair in comparisons)
    sure = (pair for pair in comparisons if pair.chosen_better_probability >= MIN_PROBABILITY)
    return min(*from_threshold, *(abs(pair.log_rate_ratio) for pair in sure))


def _tuples(rows: Iterable[Row], columns: Iterable[str]) -> list[tuple]:
    return [tuple(row[name] for name in columns) for row in rows]


def _assert_same(found: Iterable, expected: Iterable) -> None:
    """The same rows, as often, in any order; tells the first that differ."""
    found, expected = Counter(found), Counter(expected)
    missing, unexpected = list((expected - found).elements()), list((found - expected).elements())
    assert (len(missing), missing[:3], len(unexpected), unexpected[:3]) == (0, [], 0, [])
