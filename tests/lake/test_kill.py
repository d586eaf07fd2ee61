"""A process that is killed in the middle: nothing lost, nothing doubled, readers never see half a day."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.jobs import EVENTS
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.lake import PHASES
from osmf_pipelines.spark.locks import LakeConflictError
from tests.lake.conftest import failure_of, hashes, tiny_settings
from tests.lake.jobs import run_events, run_job
from tests.tiny_drop import FIRST_DAY, make_drop

ROOT = Path(__file__).resolve().parents[2]
TODAY = FIRST_DAY + timedelta(days=1)
_NUM_RANDOM_KILLS = 25
_BRONZE, _FROM_SILVER = EVENTS[:4], EVENTS[4:]
Hashes = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Reference:
    """What a killed run is measured against.

    Attributes:
        home: a home in which yesterday is published.
        ingested: the same with today's events in bronze.
        drop: its drop folder, with today's logs.
        before: content of every table in `home`.
        after: content once today is published too.
    """

    home: Path
    ingested: Path
    drop: Path
    before: Hashes
    after: Hashes


@pytest.fixture(scope="module")
def reference(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Yesterday published, and what today must come to."""
    root = tmp_path_factory.mktemp("kill")
    drop = make_drop(root / "drop", num_days=2)
    drop.write()
    yesterday, both = (tiny_settings(root / name, drop.folder) for name in ("yesterday", "both"))
    assert run_job(yesterday, "ingest_days", FIRST_DAY).success
    shutil.copytree(yesterday.home, both.home)
    assert run_events(both, TODAY, assets=_BRONZE)
    shutil.copytree(both.home, root / "ingested")
    assert run_events(both, TODAY, assets=_FROM_SILVER)
    before, after = (hashes(LakeResource(settings).lake) for settings in (yesterday, both))
    return Reference(yesterday.home, root / "ingested", drop.folder, before, after)


@pytest.fixture
def home(reference: Reference, tmp_path: Path) -> Settings:
    """Settings of a copy of yesterday's home."""
    shutil.copytree(reference.home, tmp_path / "home")
    return tiny_settings(tmp_path / "home", reference.drop)


def _start(
    settings: Settings, how: str, phase: str = "-", table: str = "-", assets: Sequence[str] = EVENTS
) -> subprocess.Popen[bytes]:
    arguments = [str(settings.home), str(settings.source_path), TODAY.isoformat(), how, phase, table, *assets]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lake.jobs", *arguments],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )


def _check_readers(settings: Settings, reference: Reference) -> None:
    """Each day of each table is as it was before, or as it will be after: never in between."""
    for name, by_day in hashes(LakeResource(settings).lake).items():
        for day, content in by_day.items():
            assert content in (reference.before[name].get(day), reference.after[name][day]), (name, day)


def _check_finished(settings: Settings, reference: Reference, assets: Sequence[str] = EVENTS) -> None:
    assert run_events(settings, TODAY, assets=assets)
    assert hashes(LakeResource(settings).lake) == reference.after


@pytest.mark.slow
def test_killed_at_every_phase_one_after_the_other(reference: Reference, tmp_path: Path) -> None:
    """Each run meets what the one before it, killed a phase earlier, has left behind; the last one finishes the day."""
    shutil.copytree(reference.ingested, tmp_path / "home")
    settings = tiny_settings(tmp_path / "home", reference.drop)
    for phase in PHASES:
        process = _start(settings, "kill", phase, "silver_exposures", _FROM_SILVER)
        assert process.wait(300) == -signal.SIGKILL, phase
        (settings.home / "reached").unlink()
        _check_readers(settings, reference)
    _check_finished(settings, reference, _FROM_SILVER)


@pytest.mark.slow
def test_two_processes_on_the_same_day(home: Settings, reference: Reference) -> None:
    first = _start(home, "wait", "audit", "bronze_impressions")
    _wait_for(home.home / "reached", first)

    second = run_job(home, "ingest_days", TODAY)

    assert not second.success
    told = failure_of(second)
    assert LakeConflictError.__name__ in told
    assert "is being materialised by run" in told
    (home.home / "go-on").touch()
    assert first.wait(300) == 0
    assert hashes(LakeResource(home).lake) == reference.after


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_killed_at_random_times(reference: Reference, tmp_path: Path) -> None:
    """Process and JVM are killed together, anywhere between the start of Spark and the end of the run."""
    rng = random.Random(11)
    shutil.copytree(reference.home, tmp_path / "timed")
    started = time.monotonic()
    assert _start(tiny_settings(tmp_path / "timed", reference.drop), "none").wait(600) == 0
    seconds = time.monotonic() - started
    num_killed = 0
    for number in range(_NUM_RANDOM_KILLS):
        shutil.copytree(reference.home, tmp_path / str(number))
        settings = tiny_settings(tmp_path / str(number), reference.drop)
        process = _start(settings, "none")
        try:
            process.wait(rng.uniform(0.15, 0.95) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            num_killed += 1
        _check_readers(settings, reference)
        _check_finished(settings, reference)
        shutil.rmtree(tmp_path / str(number))
    assert num_killed >= _NUM_RANDOM_KILLS * 0.8
