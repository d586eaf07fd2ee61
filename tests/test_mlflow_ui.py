"""`mlflow ui` as the demo tells to start it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.listening import listening_at
from tests.running_dagster import wait_for


@pytest.mark.slow
def test_it_answers_on_this_machine_alone(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [str(Path(sys.executable).with_name("mlflow")), "ui", "--port", address.rpartition(":")[2]]
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    try:
        assert wait_for(lambda: urllib.request.urlopen(f"{address}/health", timeout=5).status == 200, 120)
        assert listening_at(server.pid) == {"127.0.0.1"}
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
