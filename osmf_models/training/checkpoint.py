"""Checkpoints that are whole or absent: a temporary folder, a manifest of hashes, a rename, then a pointer.

DeepSpeed's own pointer is written too early and its files are pickles, so a checkpoint is verified before it is read.
Handing over a trained model (safetensors) belongs in `model/pipeline.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from osmf_models.records import CHECKPOINT_POINTER_NAME
from osmf_models.training import zero

_MANIFEST_NAME = "manifest.json"


def save_checkpoint(engine: Any, folder: Path, step: int) -> None:
    """Writes the state after `step` steps and points at it; the one before is kept, older ones are removed."""
    tag, temporary = f"step-{step:07d}", f"tmp-{step:07d}"
    if zero.rank() == 0:
        for stale in (folder / tag, folder / temporary):
            shutil.rmtree(stale, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    zero.barrier()
    zero.save_sharded(engine, folder, temporary, {"step": step})
    zero.barrier()
    if zero.rank() == 0:
        write_manifest(folder / temporary, step, zero.world_size())
        (folder / temporary).rename(folder / tag)
        _write_json(folder / CHECKPOINT_POINTER_NAME, {"tag": tag})
        for old in sorted(folder.glob("step-*"))[:-2]:
            shutil.rmtree(old)
    zero.barrier()


def load_checkpoint(engine: Any, folder: Path) -> int:
    """Restores the newest checkpoint and returns the number of steps behind it.

    Raises:
        ValueError: when there is none, when it is damaged, or when another number of processes wrote it.
    """
    tag = verified_tag(folder, zero.world_size())
    return int(zero.load_sharded(engine, folder, tag)["step"])


def verified_tag(folder: Path, world_size: int) -> str:
    """Returns the name of the checkpoint that is pointed at, after checking every file of it."""
    pointer = folder / CHECKPOINT_POINTER_NAME
    if not pointer.is_file():
        raise ValueError(f"nothing to resume: {pointer} is missing.")
    try:
        tag = json.loads(pointer.read_text())["tag"]
        manifest = json.loads((folder / tag / _MANIFEST_NAME).read_text())
        files, written_by = manifest["files"], manifest["world_size"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"cannot resume from {folder}: its pointer or manifest is broken ({error!r}).") from error
    if written_by != world_size:
        raise ValueError(f"cannot resume: {folder / tag} was written by {written_by} processes, now {world_size} run.")
    present = _relative_files(folder / tag)
    if set(present) != set(files):
        raise ValueError(f"cannot resume: {folder / tag} lacks or adds {sorted(set(present) ^ set(files))}.")
    for name, expected in files.items():
        path = folder / tag / name
        if path.stat().st_size != expected["num_bytes"] or file_sha256(path) != expected["sha256"]:
            raise ValueError(f"cannot resume: {path} is damaged (size or sha256 differs).")
    return tag


def write_manifest(folder: Path, step: int, world_size: int) -> None:
    """Writes what `folder` holds, so that `verified_tag` can check it."""
    files = {
        name: {"num_bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in _relative_files(folder)
    }
    _write_json(folder / _MANIFEST_NAME, {"step": step, "world_size": world_size, "files": files})


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _relative_files(folder: Path) -> list[str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _MANIFEST_NAME)
    return [path.relative_to(folder).as_posix() for path in paths]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True))
    temporary.replace(path)
