"""Two processes of a stage meet on this machine alone; one is killed, and torch's launcher ends the whole job."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from tests.listening import listening_at


@pytest.mark.slow
def test_one_killed_process_ends_the_job_in_under_a_minute(export_folder, tmp_path):
    launcher = [sys.executable, "-m", "osmf_models.training.local_launch"]
    launcher += ["--nproc-per-node", "2", "--log-dir", str(tmp_path / "torchrun")]
    stage = ["-m", "osmf_models.stages.pretrain", "--recipe", "tiny", "--data", export_folder, "--output", tmp_path]
    stage += ["--set", "pretraining.training.num_steps=100000", "--set", "pretraining.training.checkpoint_every=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(map(str, [*launcher, *stage]), env=environment, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "heartbeat.json").exists():
            assert job.poll() is None
            time.sleep(0.5)
        assert listening_at(job.pid) == {"127.0.0.1"}
        workers = psutil.Process(job.pid).children()
        (second,) = [worker for worker in workers if worker.environ().get("RANK") == "1"]
        second.kill()
        killed_at = time.monotonic()
        assert job.wait(timeout=60) != 0
        assert time.monotonic() - killed_at < 60
        assert not any(worker.is_running() for worker in workers)
        assert not (tmp_path / "run.json").exists()
    finally:
        job.kill()
