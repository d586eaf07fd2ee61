"""Random logs, run by the oracle and by the pipeline once for all tests of this folder."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from tests.oracle.answers import Case, EventAnswers, PreferenceAnswers, answer_events, answer_preferences
from tests.oracle.clicks import ClickRules

CASES = [
    Case(range(24, 32), ClickRules(30, 2, 6), ("train",)),
    pytest.param(Case(range(100, 140), ClickRules(36, 3, 5), ("train", "validation", "test")), marks=pytest.mark.slow),
    pytest.param(Case(range(200, 240), ClickRules(1, 1, 7), ("train",)), marks=pytest.mark.slow),
    pytest.param(Case(range(300, 340), ClickRules(48, 2, 6), ("train",)), marks=pytest.mark.slow),
]


@pytest.fixture(scope="session", params=CASES, ids=lambda case: f"seeds {case.seeds.start}-{case.seeds.stop - 1}")
def events(
    request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> EventAnswers:
    """From logs to creative_stats."""
    return answer_events(request.param, spark, tmp_path_factory.mktemp("oracle") / "drop")


@pytest.fixture(scope="session")
def preferences(events: EventAnswers) -> PreferenceAnswers:
    """From creative_stats and given groups to pairs."""
    return answer_preferences(events)
