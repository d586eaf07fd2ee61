"""Reads `mapping.toml`, whose form is in `mapping.py`, and says in words what is wrong with it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from osmf_pipelines.sources.mapping import DailyMapping, Mapping, UsersMapping

MAPPING_NAME = "mapping.toml"


def read_mapping(folder: Path, source: Literal["files", "table"]) -> Mapping:
    """Returns the mapping in `folder`.

    Args:
        folder: holds `mapping.toml`.
        source: how impressions and clicks must be given.

    Raises:
        ValueError: when it is missing, unreadable or wrong; it names the file, the section, the key and the remedy.
    """
    path = folder / MAPPING_NAME
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: OSMF_SOURCE={source} needs it. `osmf simulate` writes a drop folder with one to look "
            "at; OSMF_SOURCE_PATH names another folder."
        )
    try:
        mapping = Mapping.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        # Values are left out: an option may be a secret.
        problems = "; ".join(_explain(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors())
        raise ValueError(f"{path} is not a valid mapping: {problems}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    for name in ("impressions", "clicks"):
        has_files = getattr(mapping, name).files is not None
        if has_files != (source == "files"):
            need = "files" if source == "files" else "table or format"
            other = "table" if source == "files" else "files"
            raise ValueError(f"{path}: OSMF_SOURCE={source}, so [{name}] needs {need}; or set OSMF_SOURCE={other}.")
    return mapping


def near_match(name: str, names: Iterable[str]) -> str:
    """Returns a question after a name that `name` may have meant, or nothing."""
    found = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _explain(location: tuple[int | str, ...], kind: str, message: str) -> str:
    section = f"[{'.'.join(map(str, location[:-1]))}] " if len(location) > 1 else ""
    key = str(location[-1])
    if kind == "missing":
        return f"{section}{key} is missing"
    if kind == "extra_forbidden":
        known = {*Mapping.model_fields, *UsersMapping.model_fields, *DailyMapping.model_fields}
        return f"{section}{key} is not known here{near_match(key, known)}"
    if kind == "value_error":
        return f"[{'.'.join(map(str, location))}] {message.removeprefix('Value error, ')}"
    return f"{section}{key}: {message}"
