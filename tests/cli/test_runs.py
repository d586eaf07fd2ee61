"""What is made of a schedule's or a sensor's answer for one day."""

from __future__ import annotations

from datetime import date

import dagster as dg
import pytest
from rich.console import Console

from osmf_pipelines.cli.runs import Asked, _asked, _Reporter
from osmf_pipelines.schedules import refresh_request

DAY = date(2026, 3, 5)
TAGS = {"dagster/sensor_name": "missing_days"}


def test_the_day_that_is_asked_for_gets_the_tags_of_the_request_and_of_who_asked() -> None:
    told = [refresh_request(date(2026, 3, 4), "d1", run_key="a"), refresh_request(DAY, "d2", run_key="b")]
    assert _asked(told, DAY, TAGS) == Asked({"osmf/delivery": "d2", **TAGS})


def test_why_a_day_is_not_asked_for_is_told() -> None:
    assert _asked([dg.SkipReason("the logs are not complete")], DAY, TAGS) == Asked(None, "the logs are not complete")
    others = [refresh_request(date(2026, 3, 4), "d1", run_key="a")]
    assert _asked(others, DAY, TAGS) == Asked(None, "it asks for other days than 2026-03-05")


def test_a_day_that_late_events_reopen_has_a_line_beside_the_table_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = _Reporter(Console(width=120))
    key = dg.AssetKey("silver_exposures")
    reporter._tell_materialization(
        dg.AssetMaterialization(key, description="re-opened by late events", partition="2026-03-03")
    )
    rows = {"dagster/row_count": dg.MetadataValue.int(59880)}
    reporter._tell_materialization(dg.AssetMaterialization(key, metadata=rows, partition="2026-03-04"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.strip() == "+ silver_exposures of 2026-03-03 re-opened by late events"
    assert "59,880 rows" in second
