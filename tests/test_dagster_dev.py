"""`dagster dev` as a user starts it: both code locations load, and the API materialises an asset."""

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
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
_LAUNCH = """
mutation($selector: JobOrPipelineSelector!) {
  launchPipelineExecution(executionParams: {selector: $selector, mode: "default"}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Address of a running `dagster dev` whose source is the Open Bandit logs."""
    (tmp_path / "dagster").mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", tmp_path / "dagster")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "dagster"), "OSMF_HOME": str(tmp_path / "home")}
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
