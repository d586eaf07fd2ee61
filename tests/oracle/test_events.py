"""From random logs to creative_stats: the pipeline against the oracle, table by table.

`user_fold` is the pipeline's own, being a hash that the oracle does not know.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import date

import pytest

from osmf_pipelines.spark.place_effects import fit_place_effects
from osmf_pipelines.tables import TABLES
from tests.oracle.answers import EventAnswers, assert_same, tuples
from tests.oracle.clicks import OUTCOMES, judge_clicks
from tests.oracle.events import Line, Row
from tests.oracle.exposures import attribution_ledger, ingest_ledger
from tests.oracle.pipeline import run_day
from tests.oracle.rates import fit_effects

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
_JUDGED = ("source_date", "click_id", "impression_id", "clicked_at", "event_date", "outcome")


def test_every_reason_every_outcome_and_both_sides_of_the_bot_limit_occur(events: EventAnswers) -> None:
    limit = events.case.rules.max_impressions_per_user_day
    refused = events.impressions.refused + events.clicks.refused

    assert {reason for refusal in refused for reason in refusal.reasons} == REASONS
    assert {click["outcome"] for click in events.judged} == OUTCOMES
    assert {limit, limit + 1} < {row["num_user_impressions"] for row in events.impressions.kept}


def test_the_same_events_are_refused_for_the_same_reasons(events: EventAnswers) -> None:
    def as_it_came(line: Line) -> frozenset | str:
        return line if isinstance(line, str) else frozenset((k, str(v)) for k, v in line.items() if v is not None)

    def as_told(row: Row) -> frozenset | str:
        return row["payload"] if "unreadable" in row["reasons"] else frozenset(json.loads(row["payload"]).items())

    expected = [
        (event_type, refusal.source_date, refusal.reasons, as_it_came(refusal.line))
        for event_type, ingested in (("impression", events.impressions), ("click", events.clicks))
        for refusal in ingested.refused
    ]
    found = [
        (row["event_type"], row["source_date"], frozenset(row["reasons"]), as_told(row))
        for row in events.pipeline.rows["quarantined_events"]
    ]
    assert_same(found, expected)


def test_bronze_rows_agree(events: EventAnswers) -> None:
    for table, ingested in (("bronze_impressions", events.impressions), ("bronze_clicks", events.clicks)):
        columns = [name for name in TABLES[table].column_names if name not in TABLES[table].provenance_columns]
        assert_same(tuples(events.pipeline.rows[table], columns), tuples(ingested.kept, columns))


def test_each_click_comes_to_the_same(events: EventAnswers) -> None:
    assert_same(tuples(events.pipeline.rows["judged_clicks"], _JUDGED), tuples(events.judged, _JUDGED))


def test_ledgers_agree_and_balance(events: EventAnswers) -> None:
    ledger = events.pipeline.ledger + _attribution_counts(events)
    expected = ingest_ledger(events.impressions, events.clicks)
    expected += attribution_ledger(events.impressions.kept, events.judged, events.case.rules)
    for event_type, lines in (("impression", events.log.impressions), ("click", events.log.clicks)):
        expected += Counter({(day, event_type, "read"): len(lines[day]) for day in lines})

    assert ledger == expected
    for event_type, parts in (("impression", {"exposure", "bot"}), ("click", OUTCOMES)):
        for day in events.log.impressions:
            accounted = sum(ledger[day, event_type, name] for name in {*parts, "deduplicated", "quarantined"})
            assert ledger[day, event_type, "read"] == accounted


def test_exposures_agree(events: EventAnswers) -> None:
    columns = [name for name in TABLES["silver_exposures"].column_names if name != "user_fold"]

    assert_same(tuples(events.pipeline.rows["silver_exposures"], columns), tuples(events.exposures, columns))


def test_a_user_has_one_fold_of_five(events: EventAnswers) -> None:
    folds = {(row["user_id"], row["user_fold"]) for row in events.pipeline.rows["silver_exposures"]}

    assert len(folds) == len({user for user, _ in folds})
    assert {fold for _, fold in folds} == {0, 1, 2, 3, 4}


def test_creative_stats_agree(events: EventAnswers) -> None:
    columns = TABLES["creative_stats"].column_names

    assert_same(tuples(events.pipeline.rows["creative_stats"], columns), tuples(events.stats, columns))


def test_days_run_one_by_one_come_to_the_same_after_each(events: EventAnswers) -> None:
    """Each day is run when the days after it are not there yet, and re-opens the days that its clicks touch."""
    published: dict[date, set[tuple]] = {}
    for day in sorted(events.log.impressions):
        judged, touched = run_day(events.pipeline, day, day, events.case.rules)
        for reopened in {day} | touched & published.keys():
            published[reopened] = _attributed(judged, [reopened])
        until_now = [
            [row for row in ingested.kept if row["source_date"] <= day]
            for ingested in (events.impressions, events.clicks)
        ]
        expected = judge_clicks(*until_now, events.case.rules)
        assert set().union(*published.values()) == _attributed(expected, events.log.impressions)
        assert_same(_delivered(judged, day), _delivered(expected, day))


def test_a_day_run_again_when_later_ones_are_there_changes_nothing(events: EventAnswers) -> None:
    days = sorted(events.log.impressions)
    for day in days[1:4]:
        judged, touched = run_day(events.pipeline, day, days[-1], events.case.rules)
        reopened = {day} | touched
        assert _attributed(judged, reopened) == _attributed(events.judged, reopened)
        assert_same(_delivered(judged, day), _delivered(events.judged, day))


def test_place_effects_agree(events: EventAnswers) -> None:
    found, expected = fit_place_effects(events.pipeline.stats), fit_effects(events.stats)

    assert found.examination_rates == pytest.approx(expected.of_place, rel=1e-6)
    assert found.day_factors == pytest.approx(expected.of_day, rel=1e-6)


def _attribution_counts(events: EventAnswers) -> Counter:
    """What became of the pipeline's bronze rows, by (source_date, event_type, outcome)."""
    rows, limit = events.pipeline.rows, events.case.rules.max_impressions_per_user_day
    counts = Counter((row["event_date"], "impression", "exposure") for row in rows["silver_exposures"])
    bots = [row for row in rows["bronze_impressions"] if row["num_user_impressions"] > limit]
    counts.update((row["source_date"], "impression", "bot") for row in bots)
    counts.update((row["source_date"], "click", row["outcome"]) for row in rows["judged_clicks"])
    return counts


def _attributed(judged: Iterable[Row], days: Iterable[date]) -> set[tuple]:
    """The click times of the impressions of `days`."""
    rows = [row for row in judged if row["outcome"] == "attributed" and row["event_date"] in days]
    return set(tuples(rows, ("event_date", "impression_id", "clicked_at")))


def _delivered(judged: Iterable[Row], day: date) -> list[tuple]:
    """What became of the clicks that a day's log delivered."""
    return tuples((row for row in judged if row["source_date"] == day), _JUDGED)
