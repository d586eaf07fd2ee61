"""Ways in which a day's logs break: nothing of that day is published, and yesterday is still served."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.jobs import EVENTS
from osmf_pipelines.resources.lake import LakeResource
from tests.lake.conftest import days_in, failure_of, tiny_settings, versions
from tests.lake.jobs import run_job
from tests.tiny_drop import FIRST_DAY, Drop, make_drop

pytestmark = pytest.mark.slow
YESTERDAY, TODAY = FIRST_DAY, FIRST_DAY + timedelta(days=1)
Damage = Callable[[Drop, date], None]


def _lose_user_ids(drop: Drop, day: date) -> None:
    for row in drop.impressions[day][: len(drop.impressions[day]) * 6 // 100]:
        row["who"] = None


def _click_before_the_impression(drop: Drop, day: date) -> None:
    shown_at = {row["imp"]: row["ts"] for row in drop.impressions[day]}
    for row in drop.clicks[day]:
        if row["imp"] in shown_at:
            midnight = shown_at[row["imp"]].replace(hour=0, minute=0, second=0)
            row["ts"] = max(midnight, shown_at[row["imp"]] - timedelta(hours=1))


def _click_more_than_was_shown(drop: Drop, day: date) -> None:
    rows = drop.clicks[day]
    drop.clicks[day] = [{**row, "click": f"{row['click']}-{copy}"} for row in rows for copy in range(8)]


def _lose_most_of_the_log(drop: Drop, day: date) -> None:
    drop.impressions[day] = drop.impressions[day][: len(drop.impressions[day]) // 10]
    shown = {row["imp"] for row in drop.impressions[day]}
    drop.clicks[day] = [row for row in drop.clicks[day] if row["imp"] in shown]


def _rename_a_column(drop: Drop, day: date) -> None:
    drop.impressions[day] = [
        {("creative" if name == "ad" else name): value for name, value in row.items()} for row in drop.impressions[day]
    ]


@pytest.fixture(scope="module")
def served(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Drop]:
    """A home in which yesterday is published, and its drop."""
    root = tmp_path_factory.mktemp("breaks")
    drop = make_drop(root / "drop", num_days=2)
    drop.write(YESTERDAY)
    assert run_job(tiny_settings(root / "home", drop.folder), "ingest_days", YESTERDAY).success
    return root / "home", drop


@pytest.mark.parametrize(
    ("damage", "told", "first_refused"),
    [
        (_lose_user_ids, "quarantine_is_bearable", "bronze_impressions"),
        (_click_before_the_impression, "clicks_follow_their_impressions", "silver_exposures"),
        (_click_more_than_was_shown, "clicks_at_most_impressions", "bronze_clicks"),
        (_lose_most_of_the_log, "volume_is_bearable", "bronze_impressions"),
        (_rename_a_column, "has no column 'ad'", "bronze_impressions"),
    ],
)
def test_a_broken_day_is_not_served(
    served: tuple[Path, Drop], damage: Damage, told: str, first_refused: str, tmp_path: Path
) -> None:
    home, drop = served
    settings = tiny_settings(home, drop.folder)
    lake = LakeResource(settings).lake
    before = versions(lake)
    damaged = Drop(
        drop.folder,
        {day: [dict(row) for row in rows] for day, rows in drop.impressions.items()},
        {day: [dict(row) for row in rows] for day, rows in drop.clicks.items()},
    )
    damage(damaged, TODAY)
    damaged.write(TODAY)

    result = run_job(settings, "ingest_days", TODAY, selection=EVENTS)

    assert not result.success
    assert told in failure_of(result)
    made = {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key}
    assert made.isdisjoint({first_refused, "silver_exposures", "attribution_ledger", "creative_stats", "cell_users"})
    after = versions(lake)
    assert {name: after[name] for name in ("silver_exposures", "creative_stats", first_refused)} == {
        name: before[name] for name in ("silver_exposures", "creative_stats", first_refused)
    }
    assert days_in(lake, "creative_stats") == {YESTERDAY}


def test_what_a_day_was_refused_for_is_kept(served: tuple[Path, Drop]) -> None:
    home, drop = served
    damaged = Drop(drop.folder, {TODAY: [dict(row) for row in drop.impressions[TODAY]]}, {TODAY: drop.clicks[TODAY]})
    _lose_user_ids(damaged, TODAY)
    damaged.write(TODAY)
    settings = tiny_settings(home, drop.folder)

    assert not run_job(settings, "ingest_days", TODAY, selection=EVENTS).success

    resource = LakeResource(settings)
    refused = resource.lake.read("quarantined_events", [TODAY]).select("reasons").collect()
    assert [row["reasons"] for row in refused] == [["missing_user_id"]] * (len(drop.impressions[TODAY]) * 6 // 100)
    verdict = resource.verdicts.read("bronze_impressions")
    assert verdict is not None
    assert not verdict.is_published
    assert "quarantine_is_bearable" in verdict.failed_checks


def test_a_day_of_drawn_creatives_alone_is_no_evidence(served: tuple[Path, Drop]) -> None:
    """Though late clicks re-open yesterday, whose rows are there."""
    home, drop = served
    drawn = [{**row, "by": "3"} for row in drop.impressions[TODAY]]
    Drop(drop.folder, {TODAY: drawn}, {TODAY: drop.clicks[TODAY]}).write(TODAY)
    assert {row["imp"] for row in drop.clicks[TODAY]} & {row["imp"] for row in drop.impressions[YESTERDAY]}
    settings = tiny_settings(home, drop.folder)

    result = run_job(settings, "ingest_days", TODAY, selection=EVENTS)

    failures = result.filter_events(lambda event: event.is_step_failure)
    refused = {event.step_key: event.step_failure_data.error_display_string for event in failures}
    assert set(refused) == {"creative_stats", "cell_users"}
    assert "every_day_has_evidence" in refused["creative_stats"]
    lake = LakeResource(settings).lake
    assert days_in(lake, "silver_exposures") == {YESTERDAY, TODAY}
    assert days_in(lake, "creative_stats") == {YESTERDAY}
