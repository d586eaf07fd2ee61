"""A cluster as `osmf cluster` starts it, and a day that one driver runs on it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from osmf_pipelines.jobs import DIMENSIONS
from osmf_pipelines.spark.cluster import own_versions
from tests.listening import listening_at
from tests.tiny_drop import FIRST_DAY, Drop, make_drop

ROOT = Path(__file__).resolve().parents[2]
OSMF = "from osmf_pipelines.cli.main import main; main()"
UPSTREAM = DIMENSIONS
PAIRS = ("user_groups", "group_features", "group_ctr", "preference_pairs")
QUICK_JAVA = "-XX:TieredStopAtLevel=1"  # what the optimising compiler costs is not earned back within a minute


@dataclass(frozen=True)
class Day:
    """A day that was run on a cluster.

    Attributes:
        home, drop: as of its settings.
        work: folder of the cluster's workers.
        found: what the driver saw.
        listening: the addresses at which driver, master, workers and executors listened meanwhile.
    """

    home: Path
    drop: Drop
    work: Path
    found: dict[str, Any]
    listening: set[str]


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Master and folder of a cluster that runs; ended as by Ctrl-C, which must leave nothing behind."""
    home, port = tmp_path_factory.mktemp("cluster"), free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", OSMF, "cluster", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "OSMF_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = next((line for line in iter(process.stdout.readline, "") if line.startswith("export ")), "")
    assert told.startswith("export OSMF_SPARK_MASTER=spark://127.0.0.1:"), told
    yield told.strip().removeprefix("export OSMF_SPARK_MASTER="), home / "cluster"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@pytest.fixture(scope="session")
def day(cluster: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Dimensions, events (an executor killed in the middle) and pairs of one day, made on the cluster."""
    master, folder = cluster
    root = tmp_path_factory.mktemp("day")
    drop = make_drop(root / "drop", num_days=1)
    drop.write()
    (root / "elsewhere").mkdir()
    arguments = [master, str(root / "home"), str(drop.folder), FIRST_DAY.isoformat(), str(_old_pillow(root))]
    listening = set()
    with (root / "told").open("w") as told:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.driver", *arguments],
            cwd=root / "elsewhere",
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAVA_TOOL_OPTIONS": QUICK_JAVA},
            stdout=told,
        )
        while driver.poll() is None:
            listening |= listening_at(os.getpid())
            time.sleep(1)
    lines = (root / "told").read_text().splitlines()
    assert driver.returncode == 0, lines
    return Day(root / "home", drop, folder / "work", json.loads(lines[-1]), listening)


def _old_pillow(root: Path) -> Path:
    """A Python of workers on which Pillow says that it is version 1.0."""
    information = root / "old" / "pillow-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 1.0\n")
    python = root / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={root / "old"}:$PYTHONPATH exec python{own_versions()["Python"]} "$@"\n')
    python.chmod(0o755)
    return python
