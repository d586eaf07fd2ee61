"""Hashes that say whether a model's files are the ones that were judged.

What a checkpoint must hold belongs in `training/manifest.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path


def artifacts_digest(artifacts: dict[str, str]) -> str:
    """Returns one hash over files and their hashes."""
    return hashlib.sha256("\n".join(f"{name} {sha}" for name, sha in sorted(artifacts.items())).encode()).hexdigest()


def folder_digest(folder: Path, *, relative_to: Path | None = None, without: Collection[str] = ()) -> str:
    """Returns one hash over every file below a folder.

    Args:
        folder: whose files are hashed; one that does not exist holds none.
        relative_to: where their names begin; default: the folder itself.
        without: names of files, and of folders with all that they hold, that are left out.
    """
    root = relative_to or folder
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    kept = [path for path in files if not set(path.relative_to(folder).parts) & set(without)]
    return artifacts_digest({path.relative_to(root).as_posix(): _file_sha256(path) for path in kept})


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
