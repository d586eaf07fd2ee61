"""A launch that is followed to its end: what is waited for, said and ended. Shell scripts are the stages."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from osmf_pipelines.resources import following
from osmf_pipelines.resources.following import Following, without_password
from osmf_pipelines.resources.launchers import Launch
from osmf_pipelines.settings import Settings
from tests.launching.conftest import is_running

Follow = Callable[..., None]
RECORD = "echo {} > run.json"


@pytest.fixture
def follow(tmp_path: Path) -> Follow:
    """Runs a script elsewhere, in the output folder, with a cancel command that leaves a file."""

    def run(
        text: str,
        *,
        cancel: str | None = "touch cancelled",
        on_heartbeat: Callable[[dict[str, object]], None] | None = None,
        **fields: object,
    ) -> None:
        settings = Settings(home=tmp_path, **fields)  # type: ignore[arg-type]
        at = f"cd '{tmp_path}'; "
        launch = Launch(
            commands=[["sh", "-c", at + text]],
            cancels=[["sh", "-c", at + cancel]] if cancel else [],
            environment=dict(os.environ),
            is_elsewhere=True,
        )
        Following("a model", launch, tmp_path, settings, has_heartbeat=True, on_heartbeat=on_heartbeat).run()

    return run


def beat(step: int) -> str:
    return f"echo '{{\"step\": {step}}}' > heartbeat.new; mv heartbeat.new heartbeat.json"


def test_heartbeats_are_told_and_nothing_is_cancelled(follow: Follow, tmp_path: Path) -> None:
    seen: list[dict[str, object]] = []
    follow(f"{beat(1)}; sleep 0.8; {beat(2)}; {RECORD}", on_heartbeat=seen.append)
    assert seen == [{"step": 1}, {"step": 2}]
    assert not (tmp_path / "cancelled").exists()


def test_record_that_appears_late_is_waited_for(follow: Follow) -> None:
    late = f"(sleep 1.2; {RECORD}) & exit 0"
    follow(late, record_wait_seconds=10)


def test_record_that_never_appears_is_missed_by_name(follow: Follow, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"run.json was not there 1 s after that \(OSMF_RECORD_WAIT_SECONDS\)"):
        follow("exit 0", record_wait_seconds=1)
    assert (tmp_path / "cancelled").exists()


def test_a_job_that_was_only_handed_over_is_followed_by_its_heartbeat(follow: Follow) -> None:
    """As with `sbatch`: the command is back at once, and the wait for the record starts anew with each heartbeat."""
    steps = "; ".join(f"sleep 0.7; {beat(step)}" for step in range(4))
    started = time.monotonic()
    follow(f"({steps}; {RECORD}) & exit 0", record_wait_seconds=2)
    assert time.monotonic() - started > 2.5


def test_silence_is_told_then_ended(follow: Follow, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no heartbeat for 2 s \(OSMF_HEARTBEAT_LIMIT_SECONDS\).* run it again"):
        follow(
            "echo $$ > pid; exec sleep 60",
            cancel='touch cancelled; kill "$(cat pid)"',
            heartbeat_warning_seconds=1,
            heartbeat_limit_seconds=2,
        )
    assert "a model: no heartbeat for 1 s; cancelled after 1 s more" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "cancelled").exists()
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_a_lost_connection_cancels_what_may_go_on(follow: Follow, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)ended with exit code 255; .*connection closed"):
        follow("echo connection closed; exit 255")
    assert (tmp_path / "cancelled").exists()


def test_a_cancel_command_that_hangs_or_fails_is_told(
    follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CANCEL_SECONDS", 1.0)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="exit code 3"):
        follow("exit 3", cancel="echo $$ > pid; sleep 60 & wait")
    assert time.monotonic() - started < 10
    assert not is_running(int((tmp_path / "pid").read_text()))
    assert "cancelling gave exit code none after 1 s" in (tmp_path / "log.txt").read_text()
    with pytest.raises(RuntimeError, match="exit code 3"):
        follow("exit 3", cancel="exit 9")
    assert "cancelling gave exit code 9: see whether the job still runs" in (tmp_path / "log.txt").read_text()


def test_without_a_cancel_command_what_is_out_of_reach_goes_on_and_it_is_said(
    follow: Follow, tmp_path: Path, elsewhere: Path, remote: Path
) -> None:
    """The stand-in for another machine is out of reach indeed, so that the tests of cancelling show something."""
    with pytest.raises(KeyboardInterrupt):
        follow(
            f"{beat(1)}; exec {remote} job sleep 60",
            cancel=None,
            on_heartbeat=_interrupt,
        )
    pid = int((elsewhere / "job.pid").read_text())
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)
    assert "OSMF_CANCEL_COMMAND is not set" in (tmp_path / "log.txt").read_text()


def _interrupt(_: dict[str, object]) -> None:
    time.sleep(0.5)
    raise KeyboardInterrupt


def test_passwords_are_not_repeated(follow: Follow) -> None:
    uri = "http://me:s3%40cret@tracking:5000"
    with pytest.raises(RuntimeError, match="cannot reach") as caught:
        follow(f"echo cannot reach {uri} s3@cret; exit 1", mlflow_uri=uri)
    assert "s3" not in str(caught.value)
    assert without_password("nothing", "sqlite:////here/mlflow.db") == "nothing"


def test_nothing_of_a_launch_on_this_machine_survives(tmp_path: Path) -> None:
    """torchrun's processes have sessions of their own, so that the group of torchrun does not hold them."""
    marked = {**os.environ, "MLFLOW_RUN_ID": f"run of {tmp_path}"}
    text = f"cd '{tmp_path}'; setsid sh -c 'echo $$ > pid; exec sleep 60' & sleep 1; exit 4"
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, "MLFLOW_RUN_ID": "another"})
    try:
        launch = Launch([["sh", "-c", text]], [], marked, is_elsewhere=False)
        with pytest.raises(RuntimeError, match="exit code 4"):
            Following("a model", launch, tmp_path, Settings(home=tmp_path), has_heartbeat=True).run()
        assert not is_running(int((tmp_path / "pid").read_text()))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
