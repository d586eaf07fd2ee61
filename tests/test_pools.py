"""A new Dagster home knows its pools before the first run is taken from the queue."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from osmf_pipelines.definitions import build_defs
from osmf_pipelines.schedules import announce_pools
from osmf_pipelines.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def new_home(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A home that nothing has run in, with the concurrency of the checkout's dagster.yaml."""
    told = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    with dg.instance_for_test({"concurrency": told["concurrency"]}, temp_dir=str(tmp_path)) as instance:
        yield instance


def limits(instance: dg.DagsterInstance) -> dict[str, int]:
    storage = instance.event_log_storage
    return {pool: storage.get_concurrency_info(pool).slot_count for pool in storage.get_concurrency_keys()}


def test_every_pool_of_the_assets_is_announced(new_home: dg.DagsterInstance, settings: Settings) -> None:
    announce_pools(new_home)
    assert limits(new_home) == {"spark": 1, "gpu": 1}
    elsewhere = settings.model_copy(update={"launch_command": "ssh host"})
    for one in (settings, elsewhere):
        nodes = build_defs(one).resolve_asset_graph().assets_defs
        assert {asset.op.pool for asset in nodes if asset.is_executable} <= {None, "spark", "gpu"}


def test_a_limit_that_a_person_has_set_stays(new_home: dg.DagsterInstance) -> None:
    new_home.event_log_storage.set_concurrency_slots("spark", 3)
    announce_pools(new_home)
    assert limits(new_home) == {"spark": 3, "gpu": 1}


def test_what_launches_runs_by_itself_announces_them(new_home: dg.DagsterInstance, settings: Settings) -> None:
    defs = build_defs(settings)
    for name in ("daily_refresh", "weekly_training"):
        context = dg.build_schedule_context(new_home, scheduled_execution_time=datetime(2020, 1, 1, tzinfo=UTC))
        defs.resolve_schedule_def(name).evaluate_tick(context)
        assert set(limits(new_home)) == {"spark", "gpu"}, name
        for pool in ("spark", "gpu"):
            new_home.event_log_storage.delete_concurrency_limit(pool)
    assert not limits(new_home)
