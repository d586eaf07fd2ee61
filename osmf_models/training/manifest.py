"""Checkpoint folders: what makes one whole, and which is the newest that is.

Nothing here unpickles: a checkpoint's files are pickles, and are read only after they were found whole. Writing and
reading the state of training belongs in `checkpoint.py`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from osmf_models.records import CHECKPOINT_PATTERN, CHECKPOINT_POINTER_NAME

logger = logging.getLogger(__name__)

_MANIFEST_NAME = "manifest.json"
_TAG = re.compile(r"step-\d{7}")


@dataclass(frozen=True)
class Origin:
    """What wrote a checkpoint.

    Attributes:
        step: optimiser steps behind it.
        world_size: processes that trained together.
        zero_stage: ZeRO stage of the engine.
        model_sha256: hash of the names, shapes and precisions of the model's parameters.
        settings: of the optimisation, those on which its course depends.
    """

    step: int
    world_size: int
    zero_stage: int
    model_sha256: str
    settings: dict[str, Any]


def checkpoint_tag(step: int) -> str:
    """Returns the folder name of the checkpoint after `step` steps."""
    return f"step-{step:07d}"


def checkpoint_tags(folder: Path) -> list[str]:
    """Returns the names of the checkpoints in `folder`, newest first, whole or not."""
    return sorted((path.name for path in folder.glob(CHECKPOINT_PATTERN) if _TAG.fullmatch(path.name)), reverse=True)


def write_manifest(folder: Path, origin: Origin) -> None:
    """Writes what `folder` holds, so that `verified_origin` can check it."""
    files = {
        name: {"num_bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in _relative_files(folder)
    }
    content = {**asdict(origin), "files": files}
    write_json(folder / _MANIFEST_NAME, {**content, "sha256": _content_sha256(content)})


def verified_origin(folder: Path) -> Origin:
    """Returns what wrote the checkpoint in `folder`, after checking every byte of it.

    Raises:
        ValueError: when a file is missing, added, damaged or another's, the manifest's own included.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link to elsewhere")
    try:
        told = (folder / _MANIFEST_NAME).read_bytes()
        content = json.loads(told)
        is_as_written = told == _text(content).encode()  # the same in other words is damage too
        stated, files = content.pop("sha256"), content.pop("files")
        is_own = is_as_written and stated == _content_sha256({**content, "files": files})
        origin = Origin(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the manifest of {folder} is broken ({error!r})") from error
    if not is_own or checkpoint_tag(origin.step) != folder.name:
        raise ValueError(f"the manifest of {folder} is damaged or another checkpoint's")
    differing = sorted(set(_relative_files(folder)) ^ set(files))
    if differing:
        raise ValueError(f"{folder} lacks or adds {', '.join(differing)}")
    for name, expected in files.items():
        path = folder / name
        if path.is_symlink() or path.stat().st_size != expected["num_bytes"] or file_sha256(path) != expected["sha256"]:
            raise ValueError(f"{path} is damaged (size or sha256 differs)")
    return origin


def newest_whole(folder: Path) -> tuple[str, Origin]:
    """Returns the name and origin of the newest checkpoint in `folder` that is whole; the log tells what was not.

    Raises:
        ValueError: when none is.
    """
    tags, wrong = checkpoint_tags(folder), _wrong_pointer(folder)
    for tag in tags:
        try:
            origin = verified_origin(folder / tag)
        except (OSError, ValueError) as error:
            wrong.append(str(error))
            continue
        if wrong:
            logger.warning("%s; checkpoint %s is whole and used instead", "; ".join(wrong), tag)
        return tag, origin
    told = f" ({'; '.join(wrong)})" if wrong else ""
    raise ValueError(f"nothing to resume: {folder} holds no whole checkpoint{told}. Without --resume it starts afresh.")


def write_pointer(folder: Path, tag: str) -> None:
    """Tells whoever looks into `folder` which checkpoint is the newest; what is gone on from is found without it."""
    write_json(folder / CHECKPOINT_POINTER_NAME, {"tag": tag})


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file that is whole or absent."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(_text(content))
    temporary.replace(path)


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wrong_pointer(folder: Path) -> list[str]:
    """Returns what is wrong with the pointer, if anything; one that lags behind was overtaken by a kill, no more."""
    pointer = folder / CHECKPOINT_POINTER_NAME
    try:
        tag = json.loads(pointer.read_text())["tag"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{pointer} is missing or broken ({error!r})"]
    return [] if tag in checkpoint_tags(folder) else [f"{pointer} points to {tag!r}, which is no checkpoint here"]


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True)


def _content_sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _relative_files(folder: Path) -> list[str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return [name for name in names if name != _MANIFEST_NAME]
