"""Runs a launch: starts its commands, follows heartbeat and record in the output folder, and ends what was started.

What the commands are belongs in `launchers.py`. Nothing here prints a command: it may hold a password.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import psutil

from osmf_models.records import HEARTBEAT_NAME, RUN_RECORD_NAME
from osmf_pipelines.resources.launchers import Command, Launch

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings

logger = logging.getLogger(__name__)

CANCEL_SECONDS = 60.0
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0
# torchrun gives its processes half a minute to end.
_GRACE_ELSEWHERE_SECONDS = 45.0
_LOG_NAME = "log.txt"
_LOG_TAIL_LINES = 15

OnHeartbeat = Callable[[dict[str, Any]], None]


@dataclass
class _Heartbeat:
    """The last heartbeat seen, and when it came, by this machine's clock."""

    path: Path
    moved_at: float
    text: str | None = None
    is_warned: bool = False

    def read(self) -> dict[str, Any] | None:
        """Returns the heartbeat when it is another one than before."""
        try:
            text = self.path.read_text()
        except OSError:  # not yet there, or just replaced on a network file system: the next look will tell
            return None
        if not text or text == self.text:
            return None
        self.text, self.moved_at, self.is_warned = text, time.monotonic(), False
        content: dict[str, Any] = json.loads(text)
        return content


class Following:
    """One launch, from its start to its end.

    Args:
        name: of the run, for messages.
        launch: what is started.
        output: the folder that the stage writes.
        settings: how long to wait for what.
        has_heartbeat: the stage is to write heartbeats, so that silence means something.
        on_heartbeat: called whenever the heartbeat moves.
    """

    def __init__(
        self,
        name: str,
        launch: Launch,
        output: Path,
        settings: Settings,
        *,
        has_heartbeat: bool,
        on_heartbeat: OnHeartbeat | None = None,
    ):
        self.name, self.launch, self.output, self.settings = name, launch, output, settings
        self.has_heartbeat, self.on_heartbeat = has_heartbeat, on_heartbeat
        self.log_path = output / _LOG_NAME
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """Returns when the stage has succeeded; whatever else happens, nothing of it is left running.

        Raises:
            RuntimeError: when the stage fails or falls silent; the message ends with the last lines of its log.
        """
        has_succeeded = False
        if self.launch.note:
            self._tell(logging.WARNING, self.launch.note)
        try:
            for command in self.launch.commands:
                self.processes.append(self._start(command))
            self._wait()
            has_succeeded = True
        finally:
            try:
                if not has_succeeded and self.processes:
                    self._cancel()
            finally:
                self._stop()

    def _stop(self) -> None:
        for process in self.processes:
            stop_group(process)
        if not self.launch.is_elsewhere:
            _kill_marked("MLFLOW_RUN_ID", self.launch.environment["MLFLOW_RUN_ID"])

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        with self.log_path.open("a") as log:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.launch.environment,
                start_new_session=True,
            )

    def _wait(self) -> None:
        heartbeat = _Heartbeat(self.output / HEARTBEAT_NAME, moved_at=time.monotonic())
        ended_at: float | None = None
        while True:
            codes = [process.poll() for process in self.processes]
            news = heartbeat.read()
            if news is not None and self.on_heartbeat is not None:
                self.on_heartbeat(news)
            failed = next((code for code in codes if code), None)
            if failed is not None:
                raise self._failure(f"ended with exit code {failed}")
            if all(code == 0 for code in codes):
                ended_at = ended_at or time.monotonic()
                if self._has_record(max(ended_at, heartbeat.moved_at)):
                    return
            else:
                self._judge_silence(heartbeat)
            time.sleep(_POLL_SECONDS)

    def _has_record(self, since: float) -> bool:
        """Whether the record is there; a network file system may show it late."""
        if (self.output / RUN_RECORD_NAME).is_file():
            return True
        patience = self.settings.record_wait_seconds if self.launch.is_elsewhere else 0
        if time.monotonic() - since < patience:
            return False
        waited = f" {patience} s after that (OSMF_RECORD_WAIT_SECONDS)" if patience else ""
        raise self._failure(f"ended with exit code 0, and {self.output / RUN_RECORD_NAME} was not there{waited}")

    def _judge_silence(self, heartbeat: _Heartbeat) -> None:
        silent, settings = time.monotonic() - heartbeat.moved_at, self.settings
        if not self.has_heartbeat:
            return
        if silent > settings.heartbeat_limit_seconds:
            raise self._failure(
                f"gave no heartbeat for {settings.heartbeat_limit_seconds} s (OSMF_HEARTBEAT_LIMIT_SECONDS) and was "
                "cancelled: see whether it still waited in a queue, a process hangs or a machine is lost; run it "
                "again, and it goes on from its last checkpoint; raise the limit where that silence is usual"
            )
        if silent > settings.heartbeat_warning_seconds and not heartbeat.is_warned:
            heartbeat.is_warned = True
            left = settings.heartbeat_limit_seconds - settings.heartbeat_warning_seconds
            self._tell(logging.WARNING, f"no heartbeat for {silent:.0f} s; cancelled after {left} s more without one")

    def _cancel(self) -> None:
        """Ends the job where it runs, and gives its commands the time to notice."""
        if not self.launch.is_elsewhere:
            return
        if not self.launch.cancels:
            self._tell(
                logging.WARNING, "OSMF_CANCEL_COMMAND is not set: only what was started on this machine is ended"
            )
            return
        cancels = [self._start(command) for command in self.launch.cancels]
        deadline = time.monotonic() + CANCEL_SECONDS
        for cancel in cancels:
            try:
                code: int | str = cancel.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = f"none after {CANCEL_SECONDS:.0f} s"
            stop_group(cancel)
            if code != 0:
                self._tell(logging.ERROR, f"cancelling gave exit code {code}: see whether the job still runs")
        deadline = time.monotonic() + _GRACE_ELSEWHERE_SECONDS
        while any(process.poll() is None for process in self.processes) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _failure(self, what: str) -> RuntimeError:
        tail = "\n".join(self.log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
        hidden = without_password(tail, self.settings.tracking_uri)
        return RuntimeError(f"{self.name} {what}; {self.log_path} ends with:\n{hidden}")

    def _tell(self, level: int, text: str) -> None:
        """Says something in the stage's log and in the log of whoever runs it."""
        logger.log(level, "%s: %s", self.name, text)
        with self.log_path.open("a") as log:
            log.write(f"{self.name}: {text}\n")


def without_password(text: str, uri: str) -> str:
    """Returns `text` with the password of `uri`, where it has one, replaced."""
    password = urlsplit(uri).password
    if not password:
        return text
    return text.replace(password, "***").replace(unquote(password), "***")


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ends every process of the group of `process`, also those that outlive it."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal_number)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _kill_marked(variable: str, value: str) -> None:
    """Kills what was started with `variable` at `value`: torchrun gives each of its processes a session of its own."""
    killed = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value:
                process.kill()
                killed.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    psutil.wait_procs(killed, _GRACE_SECONDS)
