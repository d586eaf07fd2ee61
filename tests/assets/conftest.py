"""A small simulated market's drop folder, made once, and jobs run on a home of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from pyspark.sql import SparkSession

from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import Market
from osmf_models.simulator.mess import Mess
from osmf_pipelines.definitions import build_defs
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.lake import Lake
from osmf_pipelines.spark.simulate_logs import Logs, simulate_logs

FIRST_DAY, LAST_DAY = date(2026, 3, 2), date(2026, 3, 3)
LOGS = Logs(FIRST_DAY, num_days=2, impressions_per_day=60_000, seed=3, mess=Mess(duplicate_share=0.002))
Run = Callable[..., dg.ExecuteInProcessResult]


def small_market() -> Market:
    return easy_market(3, num_products_per_scope=8, num_creatives_per_product=4, num_users=3000)


@pytest.fixture(scope="session")
def drop_folder(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of a small market; its truth is moved where no setting points: what reads the drop must not need it."""
    output = tmp_path_factory.mktemp("market")
    simulate_logs(spark, small_market(), output, LOGS)
    (output / "truth").rename(output / "hidden-truth")
    return output / "drop"


@pytest.fixture
def market_settings(settings: Settings, drop_folder: Path) -> Settings:
    """Settings that read a copy of the drop folder, for a test to damage."""
    copy = settings.home / "drop"
    shutil.copytree(drop_folder, copy)
    return _settings_of(settings, copy)


@pytest.fixture
def lake(market_settings: Settings, spark: SparkSession) -> Lake:
    """The lake that the jobs write."""
    return LakeResource(market_settings).lake


@pytest.fixture
def run(market_settings: Settings) -> Run:
    """Runs a job for the two days, or as of the last one."""
    instance = dg.DagsterInstance.ephemeral()

    def run_with(name: str, settings: Settings = market_settings, *assets: str) -> dg.ExecuteInProcessResult:
        return _run_job(name, settings, instance, *assets)

    return run_with


@pytest.fixture(scope="session")
def formed_home(drop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose pairs are formed, for tests of models to copy."""
    home = tmp_path_factory.mktemp("formed") / "home"
    settings = _settings_of(Settings(home=home, driver_memory="2g", spark_master="local[2]"), drop_folder)
    for name in ("ingest_days", "form_pairs"):
        assert _run_job(name, settings, dg.DagsterInstance.ephemeral()).success
    return home


@pytest.fixture
def formed_settings(market_settings: Settings, formed_home: Path) -> Settings:
    """Settings of a home whose pairs are formed."""
    shutil.copytree(formed_home, market_settings.home, dirs_exist_ok=True)
    return market_settings


def _settings_of(settings: Settings, drop_folder: Path) -> Settings:
    return settings.model_copy(update={"source_path": drop_folder, "first_date": FIRST_DAY, "min_group_clicks": 100})


def _run_job(name: str, settings: Settings, instance: dg.DagsterInstance, *assets: str) -> dg.ExecuteInProcessResult:
    job = build_defs(settings).resolve_job_def(name)
    days: dict[str, object] = {"partition_key": LAST_DAY.isoformat()}
    if name == "ingest_days":
        tags = {
            ASSET_PARTITION_RANGE_START_TAG: FIRST_DAY.isoformat(),
            ASSET_PARTITION_RANGE_END_TAG: LAST_DAY.isoformat(),
        }
        days = {"tags": tags}
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    selection = [dg.AssetKey(asset) for asset in assets] or None
    return job.execute_in_process(
        instance=instance, raise_on_error=False, run_config=quiet, asset_selection=selection, **days
    )
