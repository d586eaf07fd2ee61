"""`dagster dev` as a user starts it: both code locations load, the API materialises an asset, the schedule a day."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.small_shop import NUM_CLICKS, NUM_IMPRESSIONS, NUM_PRODUCTS, write_small_shop

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
_LAUNCH = """
mutation($selector: JobOrPipelineSelector!) {
  launchPipelineExecution(executionParams: {selector: $selector, mode: "default"}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""


_SCHEDULE = {"repositoryLocationName": "osmf", "repositoryName": "__repository__", "scheduleName": "daily_refresh"}
_START = """
mutation($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) { __typename ... on PythonError { message } }
}"""
_TICKS = """
query($selector: ScheduleSelector!) {
  scheduleOrError(scheduleSelector: $selector) {
    ... on Schedule { scheduleState { ticks { timestamp status runIds skipReason error { message } } } }
  }
}"""
_RUNS = """
query {
  runsOrError(filter: {pipelineName: "refresh_pairs"}) {
    ... on Runs {
      results {
        runId status tags { key value }
        assetMaterializations {
          assetKey { path } partition metadataEntries { label ... on IntMetadataEntry { intValue } }
        }
      }
    }
  }
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running `dagster dev`: a small shop with complete logs, and the Open Bandit logs."""
    folder = tmp_path_factory.mktemp("dev")
    today = datetime.now(UTC).date()
    # Today's too: midnight may pass.
    write_small_shop(folder / "drop", [today - timedelta(days=1), today])
    (folder / "dagster").mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", folder / "dagster")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(folder / "dagster"),
        "OSMF_HOME": str(folder / "home"),
        "OSMF_SOURCE_PATH": str(folder / "drop"),
        "OSMF_FIRST_DATE": str(today - timedelta(days=1)),
        "OSMF_REFRESH_CRON": "* * * * *",
        "OSMF_MIN_GROUP_USERS": "10",
        "OSMF_MIN_GROUP_CLICKS": "20",
        "OSMF_DRIVER_MEMORY": "2g",
    }
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def _ask(address: str, query: str, **variables: Any) -> Any:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def _wait_for(what: Any, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found = what()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(1)
    raise TimeoutError(f"not within {seconds} s")


def test_api_materialises_an_asset(address: str) -> None:
    nodes = _wait_for(lambda: _ask(address, "{ assetNodes { id assetKey { path } } }")["assetNodes"], 120)
    keys = {"/".join(node["assetKey"]["path"]) for node in nodes}
    assert {"preference_pairs", "group_dpo_model", "open_bandit/preference_pairs"} <= keys

    selector = {
        "repositoryLocationName": "open_bandit",
        "repositoryName": "__repository__",
        "pipelineName": "ingest_days",
        "assetSelection": [{"path": ["open_bandit", "products"]}],
    }
    launched = _ask(address, _LAUNCH, selector=selector)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched

    def status() -> str | None:
        run = _ask(
            address, "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=launched["run"]["runId"]
        )
        return run["runOrError"]["status"] if run["runOrError"]["status"] in ("SUCCESS", "FAILURE") else None

    assert _wait_for(status, 240) == "SUCCESS"


def test_schedule_refreshes_yesterday_once(address: str) -> None:
    """Every minute is a tick; the first launches yesterday, which runs to the end, and the next one leaves it alone."""
    _wait_for(lambda: _ask(address, "{ assetNodes { id } }")["assetNodes"], 120)
    started = _ask(address, _START, selector=_SCHEDULE)["startSchedule"]
    assert started["__typename"] == "ScheduleStateResult", started

    def ticks() -> list[dict[str, Any]]:
        told = _ask(address, _TICKS, selector=_SCHEDULE)["scheduleOrError"]["scheduleState"]["ticks"]
        assert [tick["error"] for tick in told if tick["error"]] == []
        return told

    def runs() -> list[dict[str, Any]]:
        return _ask(address, _RUNS)["runsOrError"]["results"]

    skipped = _wait_for(lambda: [tick for tick in ticks() if tick["status"] == "SKIPPED"], 300)
    (run,) = runs()
    assert run["runId"] in skipped[0]["skipReason"]
    _wait_for(lambda: runs()[0]["status"] in ("SUCCESS", "FAILURE"), 600)

    (run,) = runs()
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["dagster/schedule_name"] == "daily_refresh"
    (launched,) = [tick for tick in ticks() if run["runId"] in tick["runIds"]]
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
