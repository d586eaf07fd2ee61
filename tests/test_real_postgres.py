"""Dagster and MLflow on a real PostgreSQL server of this machine, by settings alone; `make postgres` runs it.

The server is started from its programs (Debian: apt-get install postgresql), in a folder that is removed afterwards;
where there are none, these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import psycopg2
import pytest
from mlflow import MlflowClient

from osmf_pipelines.promotion.promote import Promotions
from osmf_pipelines.resources.tracking import TrackedRun
from osmf_pipelines.settings import Settings
from tests.cluster.conftest import free_port
from tests.promotion.registered_versions import TinyRegistry, record_of
from tests.tiny_drop import FIRST_DAY, make_drop

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
USER, PASSWORD = "osmf", "not: a/secret"
OSMF = "from osmf_pipelines.cli.main import main; main()"


@dataclass(frozen=True)
class Server:
    """A server that runs on 127.0.0.1."""

    port: int

    def connect(self, database: str = "postgres") -> closing[Any]:
        """A connection that ends with the block."""
        return closing(
            psycopg2.connect(host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database)
        )

    def create(self, database: str) -> str:
        """Makes a database; returns its URI."""
        with self.connect() as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {database}")
        return f"postgresql+psycopg2://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def rows(self, database: str, query: str) -> list[tuple[object, ...]]:
        """What a query finds."""
        with self.connect(database) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            return list(cursor.fetchall())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's initdb and postgres are not installed (Debian: apt-get install postgresql)")
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    # Not below pytest's folder, which other users do not see into.
    folder = Path(tempfile.mkdtemp(prefix="osmf-postgres-"))
    process = None
    try:
        (folder / "password").write_text(PASSWORD)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        port = free_port()
        made = ["--username", USER, "--auth", "scram-sha-256", "--pwfile", folder / "password", "--no-sync"]
        initdb = [programs / "initdb", "-D", folder / "data", *made]
        subprocess.run(initdb, check=True, cwd=folder, user=user, stdout=subprocess.DEVNULL)
        options = ["-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", *options], cwd=folder, user=user, stderr=log
            )
        running = Server(port)
        _await(running, process, folder / "log")
        yield running
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # at SIGTERM it would wait for those still connected
            process.wait(60)
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """The folder of a server's programs: on the path, or where Debian puts them."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _await(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once it takes connections."""
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()
        try:
            with server.connect():
                return
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


def test_dagster_keeps_runs_and_days_there(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`osmf ingest` in one process; another, given the same settings, knows the run and the day."""
    server.create("dagster")
    drop = make_drop(tmp_path / "drop", num_days=1)
    drop.write()
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "dagster_home" / "postgres" / "dagster.yaml", home)
    given = {"HOST": "127.0.0.1", "PORT": str(server.port), "DB": "dagster", "USERNAME": USER, "PASSWORD": PASSWORD}
    for name, value in given.items():
        monkeypatch.setenv(f"DAGSTER_PG_{name}", value)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "OSMF_HOME": str(tmp_path / "home"),
        "OSMF_SOURCE_PATH": str(drop.folder),
        "OSMF_FIRST_DATE": FIRST_DAY.isoformat(),
        "OSMF_DRIVER_MEMORY": "2g",
        "OSMF_SPARK_MASTER": "local[2]",
    }
    done = subprocess.run([sys.executable, "-c", OSMF, "ingest"], cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0

    assert server.rows("dagster", "SELECT pipeline_name, status FROM runs") == [("ingest_days", "SUCCESS")]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("creative_stats")) == {FIRST_DAY.isoformat()}
    assert list(home.rglob("*.db")) == []


def test_mlflow_keeps_runs_models_and_aliases_there(server: Server, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", mlflow_uri=server.create("mlflow"), model_name="shop")
    with TrackedRun(settings, "pretrained_model 2026-03-02") as run:
        run.log_record({"stage": "pretrain", "data_hash": "d" * 64, "metrics": {"loss": 0.25}})
    registry, promotions = TinyRegistry(settings), Promotions(settings)
    first = registry.add("first", record_of(0.04))
    promotions.register(first, by="test")
    second = registry.add("second", record_of(0.05), first=record_of(0.04))
    promotions.register(second, by="test")
    promotions.promote(by="test")

    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    logged = client.get_run(run.run_id)
    assert (logged.info.status, logged.data.metrics, logged.data.params["stage"]) == (
        "FINISHED",
        {"loss": 0.25},
        "pretrain",
    )
    assert client.get_model_version_by_alias("shop", "champion").version == str(second)
    assert server.rows("mlflow", "SELECT alias, version FROM registered_model_aliases") == [("champion", second)]
    assert promotions.rollback(by="test").alias == "champion"
    assert server.rows("mlflow", "SELECT alias, version FROM registered_model_aliases") == [("champion", first)]
    assert list(settings.home.rglob("*.db")) == []
