"""Copies of registered files that MLflow keeps elsewhere: each content once, in a folder named by its hash.

Which files a version has, and how they are fetched, belongs in `registry.py`.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from osmf_models.file_hashes import folder_digest
from osmf_models.records import REGISTRY_FILES


def kept_copy(copies: Path, fetch: Callable[[Path], Path]) -> Path:
    """Returns the folder of what was fetched, which all that fetch the same share.

    Fetched each time: whether files have changed elsewhere is what is asked.

    Args:
        copies: folder of the copies.
        fetch: writes files below an empty folder and returns where they are.
    """
    with _fetching(copies):
        part = copies / "part"
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir()
        fetched = fetch(part)
        copy = copies / _digest(fetched)
        if not (copy.is_dir() and _digest(copy) == copy.name):
            shutil.rmtree(copy, ignore_errors=True)
            fetched.rename(copy)
        shutil.rmtree(part, ignore_errors=True)
    return copy


@contextmanager
def _fetching(copies: Path) -> Iterator[None]:
    """Waits until no other process fetches; a lock ends with its process."""
    copies.mkdir(parents=True, exist_ok=True)
    with (copies / "fetching.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(folder: Path) -> str:
    return folder_digest(folder, without=REGISTRY_FILES)
