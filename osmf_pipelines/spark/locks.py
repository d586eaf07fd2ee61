"""Locks that keep two processes on one machine from writing the same table.

Two kinds: a claim says who is materialising a day of a table, for as long as that takes, and is refused at once to
anyone else; the write lock is held for the commit alone, and waited for. Both end with the process that holds them,
however it ends. Delta itself excludes writers only inside one JVM on a local disk.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

_WRITE_TIMEOUT_SECONDS = 120.0
_POLL_SECONDS = 0.1


class LakeConflictError(RuntimeError):
    """Another process holds the table, or has overtaken this one's commit."""


class TableLocks:
    """Locks as files in a folder.

    Args:
        folder: on a local disk, the same for all processes of the machine.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @contextmanager
    def claim(self, table: str, parts: Sequence[str], *, owner: str) -> Iterator[None]:
        """Holds `parts` of a table while the block runs.

        Args:
            table: name of the table.
            parts: days, or "all".
            owner: who claims, told to whoever comes second.

        Raises:
            LakeConflictError: when another process holds one of them; it names the part and the owner.
        """
        with ExitStack() as held:
            for part in parts:
                handle = held.enter_context(self._open(f"{table}-{part}"))
                if not _try_lock(handle):
                    handle.seek(0)
                    raise LakeConflictError(
                        f"table {table} ({part}) is being materialised by {handle.read() or 'another process'}: "
                        "wait for it, then run again."
                    )
                handle.truncate(0)
                handle.write(f"run {owner}, process {os.getpid()}")
                handle.flush()
            yield

    @contextmanager
    def write(self, table: str) -> Iterator[None]:
        """Holds the table's write lock while the block runs.

        Raises:
            LakeConflictError: when another process does not let go of it in time.
        """
        deadline = time.monotonic() + _WRITE_TIMEOUT_SECONDS
        with self._open(table) as handle:
            while not _try_lock(handle):
                if time.monotonic() > deadline:
                    raise LakeConflictError(
                        f"table {table} is being written by another process: wait for it, then run again."
                    )
                time.sleep(_POLL_SECONDS)
            yield

    def _open(self, name: str) -> TextIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        return (self.folder / f"{name}.lock").open("a+")


def _try_lock(handle: TextIO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
