"""`dagster dev` as a user starts it: both code locations load, the API materialises an asset, the schedule a day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.listening import listening_at
from tests.running_dagster import DagsterDev, dagster_dev, tags_of, wait_for
from tests.small_shop import NUM_CLICKS, NUM_IMPRESSIONS, NUM_PRODUCTS, write_small_shop

pytestmark = pytest.mark.slow
_LAUNCH = """
mutation($selector: JobOrPipelineSelector!) {
  launchPipelineExecution(executionParams: {selector: $selector, mode: "default"}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    """A running `dagster dev`: a small shop with complete logs, and the Open Bandit logs."""
    folder = tmp_path_factory.mktemp("dev")
    today = datetime.now(UTC).date()
    # Today's too: midnight may pass.
    write_small_shop(folder / "drop", [today - timedelta(days=1), today])
    with dagster_dev(folder, today - timedelta(days=1)) as running:
        yield running


def test_api_materialises_an_asset(dev: DagsterDev) -> None:
    nodes = wait_for(lambda: dev.ask("{ assetNodes { id assetKey { path } } }")["assetNodes"], 120)
    keys = {"/".join(node["assetKey"]["path"]) for node in nodes}
    assert {"preference_pairs", "group_dpo_model", "open_bandit/preference_pairs"} <= keys

    selector = {
        "repositoryLocationName": "open_bandit",
        "repositoryName": "__repository__",
        "pipelineName": "ingest_days",
        "assetSelection": [{"path": ["open_bandit", "products"]}],
    }
    launched = dev.ask(_LAUNCH, selector=selector)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched

    addresses = set()

    def status() -> str | None:
        addresses.update(listening_at(dev.pid))
        run = dev.ask(
            "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=launched["run"]["runId"]
        )
        return run["runOrError"]["status"] if run["runOrError"]["status"] in ("SUCCESS", "FAILURE") else None

    assert wait_for(status, 240) == "SUCCESS"
    assert addresses == {"127.0.0.1"}


def test_schedule_refreshes_yesterday_once(dev: DagsterDev) -> None:
    """Every minute is a tick; the first launches yesterday, which runs to the end, and the next one leaves it alone."""
    dev.start_schedule()
    skipped = wait_for(lambda: [tick for tick in dev.ticks() if tick["status"] == "SKIPPED"], 300)
    (run,) = dev.refreshes()
    assert run["runId"] in skipped[0]["skipReason"]
    wait_for(lambda: dev.refreshes()[0]["status"] in ("SUCCESS", "FAILURE"), 600)

    (run,) = dev.refreshes()
    tags = tags_of(run)
    assert tags["dagster/schedule_name"] == "daily_refresh"
    (launched,) = [tick for tick in dev.ticks() if run["runId"] in tick["runIds"]]
    yesterday = str(datetime.fromtimestamp(launched["timestamp"], UTC).date() - timedelta(days=1))
    assert tags["dagster/partition"] == tags["dagster/run_key"] == yesterday
    assert run["status"] == "SUCCESS"
    made = {made["assetKey"]["path"][-1]: made for made in run["assetMaterializations"]}
    assert {made[name]["partition"] for name in ("bronze_impressions", "preference_pairs")} == {yesterday}
    assert _rows(made["bronze_impressions"]) == NUM_IMPRESSIONS
    assert _rows(made["bronze_clicks"]) == NUM_CLICKS
    # One pair per product in the one group, and in the scope's root.
    assert _rows(made["preference_pairs"]) == 2 * NUM_PRODUCTS
    assert "training_export" in made


def _rows(materialization: dict[str, Any]) -> int:
    (count,) = [e["intValue"] for e in materialization["metadataEntries"] if e["label"] == "dagster/row_count"]
    return count
