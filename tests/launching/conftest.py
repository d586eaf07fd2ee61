"""Stand-ins for another machine: they run a command in another directory, in a session of its own.

What is started so is out of reach of whoever ends the process group that started it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

HOSTILE = 'it\'s $HOME "of" `id`; {job} &\nnew'
Script = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in this process, by other tests, leaves its network device behind."""
    for name in [name for name in os.environ if name.startswith(("NCCL_", "GLOO_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory whose name a shell would take apart."""
    folder = tmp_path / HOSTILE
    folder.mkdir()
    return folder


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes a program for `sh` under tmp_path/bin and returns its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def remote(elsewhere: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`remote NAME COMMAND ...` runs the command elsewhere; `forsake NAME` ends it, by its number in NAME.pid."""
    monkeypatch.setenv("ELSEWHERE", str(elsewhere))
    script("forsake", 'kill -TERM "$(cat "$ELSEWHERE/$1.pid")"\n')
    return script(
        "remote",
        'cd "$ELSEWHERE"\nname=$1\nshift\nsetsid "$@" &\necho $! > "$name.pid"\nwait $!\n',
    )


@pytest.fixture
def ssh(elsewhere: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ssh` before the real one: like it, it joins its arguments into a line for a shell."""
    monkeypatch.setenv("ELSEWHERE", str(elsewhere))
    path = script(
        "ssh",
        'while [ "$1" = -o ]; do shift 2; done\nshift\ncd "$ELSEWHERE"\nsetsid sh -c "$*" &\nwait $!\n',
    )
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return path


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
