"""Dagster's instance files and the hooks before a commit: read by the tools that will read them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.instance.config import PoolGranularity, dagster_instance_config, get_tick_retention_settings
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.utils import make_new_run_id
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config

ROOT = Path(__file__).resolve().parent.parent
SQLITE, POSTGRES = ROOT / "dagster_home", ROOT / "dagster_home" / "postgres"
DATABASE = {"HOST": "db.internal", "PORT": "5433", "DB": "dagster", "USERNAME": "osmf", "PASSWORD": "p"}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in DATABASE.items():
        monkeypatch.setenv(f"DAGSTER_PG_{name}", value)


@pytest.mark.parametrize("folder", [SQLITE, POSTGRES], ids=["sqlite", "postgres"])
def test_dagster_takes_every_setting(folder: Path) -> None:
    config, custom_class = dagster_instance_config(str(folder))
    assert custom_class is None
    assert config["telemetry"] == {"enabled": False}


def test_dagster_refuses_a_setting_that_it_does_not_know(tmp_path: Path) -> None:
    """Otherwise the test above would pass for any file."""
    text = (SQLITE / "dagster.yaml").read_text().replace("max_runtime_seconds", "max_run_time_seconds")
    (tmp_path / "dagster.yaml").write_text(text)
    with pytest.raises(dg.DagsterInvalidConfigError, match="max_run_time_seconds"):
        dagster_instance_config(str(tmp_path))


def test_instance_behaves_as_the_file_says(tmp_path: Path) -> None:
    shutil.copy(SQLITE / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert (pools.pool_granularity, pools.default_pool_limit) == (PoolGranularity.RUN, 1)
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds == 6 * 3600
        assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] == 60
        assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 1)
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert not instance.nux_enabled
        never = dict.fromkeys(TickStatus, -1)
        for kind in ("schedule", "sensor"):
            kept = get_tick_retention_settings(instance.get_settings("retention")[kind], never)
            assert all(0 < days <= 90 for days in kept.values()), kind


@pytest.mark.parametrize(
    ("reason", "is_retried"),
    [(RunFailureReason.STEP_FAILURE, False), (RunFailureReason.RUN_EXCEPTION, True), (None, True)],
    ids=["a day is refused", "the run breaks", "its process dies"],
)
def test_only_what_another_try_can_mend_is_tried_again(
    tmp_path: Path, reason: RunFailureReason | None, is_retried: bool
) -> None:
    shutil.copy(SQLITE / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = dg.DagsterRun(job_name="refresh_pairs", run_id=make_new_run_id(), status=dg.DagsterRunStatus.FAILURE)
        instance.add_run(run)
        assert auto_reexecution_should_retry_run(instance, run, reason) is is_retried


def test_postgres_file_differs_in_its_storage_alone() -> None:
    sqlite, postgres = (yaml.safe_load((folder / "dagster.yaml").read_text()) for folder in (SQLITE, POSTGRES))
    assert set(postgres.pop("storage")) == {"postgres"}
    assert postgres == sqlite


@pytest.mark.usefixtures("database")
def test_postgres_is_reached_by_the_environment() -> None:
    storage = InstanceRef.from_dir(str(POSTGRES)).storage_data
    assert (storage.module_name, storage.class_name) == ("dagster_postgres", "DagsterPostgresStorage")
    config = process_config(resolve_to_config_type(DagsterPostgresStorage.config_type()), storage.config_dict)
    assert config.success
    url = pg_url_from_config(config.value)
    assert url == "postgresql+psycopg2://osmf:p@db.internal:5433/dagster"
    # Needs the driver, no server.
    assert create_pg_engine(url).dialect.driver == "psycopg2"


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("name", DATABASE)
def test_a_missing_variable_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"DAGSTER_PG_{name}")
    storage = InstanceRef.from_dir(str(POSTGRES)).storage_data
    config = process_config(resolve_to_config_type(DagsterPostgresStorage.config_type()), storage.config_dict)
    assert f"DAGSTER_PG_{name}" in " ".join(error.message for error in config.errors or [])


def test_git_keeps_both_files_and_nothing_else_of_the_homes() -> None:
    paths = ["dagster.yaml", "postgres/dagster.yaml", "history/runs.db", "postgres/logs/run.log"]
    command = ["git", "check-ignore", *[f"dagster_home/{path}" for path in paths]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["dagster_home/history/runs.db", "dagster_home/postgres/logs/run.log"]


def test_hooks_run_without_fetching_anything(tmp_path: Path) -> None:
    """In a fresh repository with this configuration, a badly formatted file is mended and the commit is stopped."""
    shutil.copy(ROOT / ".pre-commit-config.yaml", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("ruff", "mypy"):
        (tmp_path / ".venv" / "bin" / name).symlink_to(Path(sys.executable).with_name(name))
    (tmp_path / "mypy.ini").write_text("[mypy]\nfiles = bad.py\n")
    (tmp_path / ".gitignore").write_text(".venv\n.mypy_cache\n.ruff_cache\n")
    (tmp_path / "bad.py").write_text("x  =  1\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    environment = {
        "PRE_COMMIT_HOME": str(tmp_path / "cache"),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    command = [str(Path(sys.executable).with_name("pre-commit")), "run", "--all-files"]

    first, second = (
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        for _ in range(2)
    )

    assert first.returncode == 1, first.stdout + first.stderr
    assert (tmp_path / "bad.py").read_text() == "x = 1\n"
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("Passed") == 3
