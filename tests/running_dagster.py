"""`dagster dev` as a user starts it, on a small shop of its own, and what its API answers."""

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
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
REPOSITORY = {"repositoryLocationName": "osmf", "repositoryName": "__repository__"}
_SCHEDULE = {**REPOSITORY, "scheduleName": "daily_refresh"}


@dataclass(frozen=True)
class DagsterDev:
    """A running `dagster dev`.

    Attributes:
        address: of its pages.
        home: OSMF_HOME.
        pid: of the process that started all others.
    """

    address: str
    home: Path
    pid: int

    def ask(self, query: str, **variables: Any) -> Any:
        """Returns what the API answers."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def start_schedule(self) -> None:
        """Waits until the code is loaded, and switches the daily refresh on."""
        wait_for(lambda: self.ask("{ assetNodes { id } }")["assetNodes"], 120)
        started = self.ask(_START, selector=_SCHEDULE)["startSchedule"]
        assert started["__typename"] == "ScheduleStateResult", started

    def ticks(self) -> list[dict[str, Any]]:
        """Returns the schedule's ticks; none may have failed."""
        told = self.ask(_TICKS, selector=_SCHEDULE)["scheduleOrError"]["scheduleState"]["ticks"]
        assert [tick["error"] for tick in told if tick["error"]] == []
        return told

    def refreshes(self) -> list[dict[str, Any]]:
        """Returns the runs of the daily refresh."""
        return self.ask(_RUNS)["runsOrError"]["results"]


@contextmanager
def dagster_dev(folder: Path, first_day: date, **variables: str) -> Iterator[DagsterDev]:
    """Starts `dagster dev` on the drop folder FOLDER/drop; the schedule ticks every minute once it is on.

    Args:
        folder: where home and Dagster's own files go.
        first_day: of the logs.
        variables: of the environment, which go before those set here.
    """
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
        "OSMF_FIRST_DATE": str(first_day),
        "OSMF_REFRESH_CRON": "* * * * *",
        "OSMF_MIN_GROUP_USERS": "10",
        "OSMF_MIN_GROUP_CLICKS": "20",
        "OSMF_DRIVER_MEMORY": "2g",
        **variables,
    }
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        yield DagsterDev(f"http://127.0.0.1:{port}", folder / "home", process.pid)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(what: Callable[[], Any], seconds: float) -> Any:
    """Returns what `what` finds, once it finds something."""
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


def tags_of(run: dict[str, Any]) -> dict[str, str]:
    """Returns the tags of a run."""
    return {tag["key"]: tag["value"] for tag in run["tags"]}
