"""Dagster and MLflow on a real PostgreSQL server of this machine, by settings alone; `make postgres` runs it.

The server is started from its programs (Debian: apt-get install postgresql), in a folder that is removed afterwards;
where there are none, these tests are skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from mlflow import MlflowClient

from osmf_pipelines.promotion.promote import Promotions
from osmf_pipelines.resources.tracking import TrackedRun
from osmf_pipelines.settings import Settings
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

    def create(self, database: str) -> str:
        """Makes a database; returns its URI."""
        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres")
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {database}")
        connection.close()
        return f"postgresql+psycopg2://{USER}:not%3A%20a%2Fsecret@127.0.0.1:{self.port}/{database}"

    def rows(self, database: str, query: str) -> list[tuple[object, ...]]:
        """What a query finds."""
        with psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database
        ) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            return cursor.fetchall()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's initdb and postgres are not installed (Debian: apt-get install postgresql)")
    # It refuses to run as root, and other users do not see into pytest's folders.
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="osmf-postgres-"))
    (folder / "password").write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, as_user = folder / "data", {"cwd": folder, "user": user if os.geteuid() == 0 else None}
    made = ["--username", USER, "--auth", "scram-sha-256", "--pwfile", str(folder / "password"), "--no-sync"]
    process = None
    try:
        subprocess.run([programs / "initdb", "-D", data, *made], check=True, stdout=subprocess.DEVNULL, **as_user)
        options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([programs / "postgres", "-D", data, *options], stderr=log, **as_user)
        _await(port, process, folder / "log")
        yield Server(port)
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """The folder of a server's programs: on the path, or where Debian puts them."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(150):
        assert process.poll() is None, log.read_text()
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres").close()
            return
        except psycopg2.OperationalError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_dagster_keeps_runs_and_days_there(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`osmf ingest` in one process; another, given the same settings, knows the run and the day."""
    server.create("dagster")
    drop = make_drop(tmp_path / "drop", num_days=1)
    drop.write()
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "dagster_home" / "postgres" / "dagster.yaml", home)
    variables = {"HOST": "127.0.0.1", "PORT": str(server.port), "DB": "dagster", "USERNAME": USER, "PASSWORD": PASSWORD}
    for name, value in variables.items():
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
