"""The same day again, however it is delivered and wherever it runs: the same content, and no new version."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.resources.lake import LakeResource
from tests.lake.conftest import hashes, tiny_settings, versions
from tests.lake.jobs import run_events, run_job
from tests.tiny_drop import FIRST_DAY, make_drop

pytestmark = pytest.mark.torture
ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"TZ": "Asia/Tokyo", "JAVA_TOOL_OPTIONS": "-Duser.timezone=Asia/Tokyo"}


def test_five_replays_change_nothing(spark: SparkSession, tmp_path: Path) -> None:
    drop = make_drop(tmp_path / "drop", num_days=1)
    drop.write()
    settings = tiny_settings(tmp_path / "home", drop.folder)
    lake = LakeResource(settings).lake
    assert run_job(settings, "ingest_days", FIRST_DAY).success
    content, published = hashes(lake), versions(lake)
    assert set(published.values()) == {0}

    def check_replay() -> None:
        assert run_events(settings, FIRST_DAY)
        assert hashes(lake) == content
        assert versions(lake) == published

    assert run_job(settings, "ingest_days", FIRST_DAY).success
    check_replay()
    for seed in (1, 2):
        random.Random(seed).shuffle(drop.impressions[FIRST_DAY])
        random.Random(seed).shuffle(drop.clicks[FIRST_DAY])
        drop.write()
        spark.conf.set("spark.sql.shuffle.partitions", 3 + seed)
        try:
            check_replay()
        finally:
            spark.conf.set("spark.sql.shuffle.partitions", 4)
    arguments = [str(settings.home), str(drop.folder), FIRST_DAY.isoformat(), "none", "-", "-"]
    command = [sys.executable, "-m", "tests.lake.jobs", *arguments]
    assert subprocess.run(command, cwd=ROOT, env={**os.environ, **ELSEWHERE}, check=False).returncode == 0
    assert hashes(lake) == content
    assert versions(lake) == published
