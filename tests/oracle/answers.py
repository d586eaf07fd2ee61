"""What the oracle says of a log, beside what the pipeline made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession

from osmf_pipelines.spark.place_effects import PlaceEffects
from tests.oracle.clicks import ClickRules, judge_clicks
from tests.oracle.events import Ingested, Row, hash_user, ingest_clicks, ingest_impressions
from tests.oracle.exposures import form_exposures, sum_exposures
from tests.oracle.pairs import Comparison, compare_creatives
from tests.oracle.pipeline import Events, Preferences, run_events, run_preferences, write_drop
from tests.oracle.random_logs import Log, draw_groups, draw_log
from tests.oracle.rates import Effects, count_scopes, fit_effects, posteriors

MIN_PROBABILITY = 0.7
_USER_KEY = "a secret"


@dataclass(frozen=True)
class Case:
    """Random logs, by their seeds, and the settings that they are read with."""

    seeds: range
    rules: ClickRules
    fitted_splits: tuple[str, ...]


@dataclass(frozen=True)
class EventAnswers:
    """Events of one case: the oracle's (stats with the folds that the pipeline gave), and the pipeline's."""

    case: Case
    log: Log
    impressions: Ingested
    clicks: Ingested
    judged: list[Row]
    exposures: list[Row]
    stats: list[Row]
    pipeline: Events


@dataclass(frozen=True)
class PreferenceAnswers:
    """Rates and pairs of one case; a root's group is `ROOT`.

    Attributes:
        split_of_product: train, validation or test; not every product has one.
        shown: impressions, clicks and effective impressions of (scope, group, creative).
        posterior_of: Gamma shape and rate of the same.
        comparisons: every two creatives of a product that a group was shown.
        as_of_date: last day of the logs.
        pipeline: what the pipeline made of the same groups and place effects.
    """

    split_of_product: dict[str, str]
    shown: dict[tuple, tuple[int, int, float]]
    posterior_of: dict[tuple, tuple[float, float]]
    comparisons: list[Comparison]
    as_of_date: date
    pipeline: Preferences


def answer_events(case: Case, spark: SparkSession, folder: Path) -> EventAnswers:
    """Runs both from the log to creative_stats.

    The logs of a case are one log: their ids have nothing in common, so it is as if each were run alone.
    """
    log = Log()
    for seed in case.seeds:
        log.add(draw_log(seed, case.rules))
    write_drop(log, folder)
    impressions = ingest_impressions(log.impressions, log.product_of_creative, _USER_KEY)
    clicks = ingest_clicks(log.clicks)
    judged = judge_clicks(impressions.kept, clicks.kept, case.rules)
    attributes = {hash_user(user, _USER_KEY): values for user, values in log.attributes_of_user.items()}
    exposures = form_exposures(impressions.kept, judged, attributes, log.scope_of_product, case.rules)
    pipeline = run_events(spark, folder, case.rules, user_key=_USER_KEY)
    folds = {row["user_id"]: row["user_fold"] for row in pipeline.rows["silver_exposures"]}
    stats = sum_exposures(exposures, folds)
    return EventAnswers(case, log, impressions, clicks, judged, exposures, stats, pipeline)


def answer_preferences(events: EventAnswers) -> PreferenceAnswers:
    """Runs both from creative_stats and given groups to pairs.

    Both take the oracle's place effects, so that no rounding to thousandths can fall differently.
    """
    case, log = events.case, events.log
    effects = fit_effects(events.stats)
    group_of_cell = draw_groups(case.seeds.start, [(row["scope"], row["cell"]) for row in events.exposures])
    as_of_date = max(log.impressions)
    pipeline = run_preferences(
        events.pipeline,
        PlaceEffects(effects.of_place, effects.of_day),
        group_of_cell,
        log,
        as_of_date=as_of_date,
        fitted_splits=case.fitted_splits,
        min_probability=MIN_PROBABILITY,
    )
    return PreferenceAnswers(
        log.split_of_product, *_rate_and_compare(events, effects, group_of_cell), as_of_date, pipeline
    )


def _rate_and_compare(
    events: EventAnswers, effects: Effects, group_of_cell: dict[tuple[str, str], str]
) -> tuple[dict, dict, list[Comparison]]:
    splits, fitted = events.log.split_of_product, events.case.fitted_splits
    scopes, shown = count_scopes(events.stats, group_of_cell, splits, effects, fitted)
    posterior_of, comparisons = {}, []
    for scope, counts in scopes.items():
        of_scope = {key: value for key, value in posteriors(counts).items() if (scope, *key) in shown}
        posterior_of |= {(scope, *key): value for key, value in of_scope.items()}
        comparisons += compare_creatives(scope, of_scope, counts.product_of)
    return shown, posterior_of, comparisons


def tuples(rows: Iterable[Row], columns: Iterable[str]) -> list[tuple]:
    """Returns the columns of each row."""
    columns = list(columns)
    return [tuple(row[name] for name in columns) for row in rows]


def assert_same(found: Iterable, expected: Iterable) -> None:
    """The same rows, as often, in any order; tells the first that differ."""
    found, expected = Counter(found), Counter(expected)
    missing, unexpected = list((expected - found).elements()), list((found - expected).elements())
    assert (len(missing), missing[:3], len(unexpected), unexpected[:3]) == (0, [], 0, [])
