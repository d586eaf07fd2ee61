"""The champion behind `mlflow models serve`, asked over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from test_register import check_drawn, rows_of_one_shoe, run_register

from tests.listening import listening_at

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def served(uri: str, port: int, log: Path) -> Iterator[int]:
    """Yields the id of a server of the champion once it answers."""
    command = [Path(sys.executable).with_name("mlflow"), "models", "serve", "--model-uri", "models:/osmf-test@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with log.open("w") as out:
        server = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                time.sleep(1.0)
        yield server.pid
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def ask(port: int, rows: pd.DataFrame) -> pd.DataFrame:
    content = {"dataframe_split": rows.to_dict("split"), "params": {"num_inference_steps": 2}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(content).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return pd.DataFrame(json.load(answer)["predictions"])


def test_a_product_and_a_group_in_a_picture_out(folders, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    uri, port = f"sqlite:///{tmp_path / 'mlflow.db'}", free_port()
    version = run_register(folders, tmp_path / "one", uri, monkeypatch)["model_version"]
    MlflowClient(uri, uri).set_registered_model_alias("osmf-test", "champion", str(version))
    rows = rows_of_one_shoe(folders)
    with served(uri, port, tmp_path / "server.log") as pid:
        check_drawn(rows, ask(port, rows))
        assert listening_at(pid) == {"127.0.0.1"}
        with pytest.raises(urllib.error.HTTPError) as refusal:
            ask(port, rows.assign(group_id="<script>nobody"))
        assert refusal.value.code == 400
        assert "group '<script>nobody' is not one that this model knows" in json.load(refusal.value)["message"]
        check_drawn(rows, ask(port, rows))
