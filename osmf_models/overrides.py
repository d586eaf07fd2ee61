"""The `--set a.b=value` overrides that replace single fields of a training run's settings.

The settings themselves belong in `config.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

from osmf_models.config import RunConfig

_CHOICES: dict[str, tuple[Any, ...]] = {
    "precision": ("fp32", "bf16"),
    "stage": (0, 1, 2, 3),
    "label": ("probability", "strength"),
    "error_space": ("look", "clean", "velocity"),
    "pair_groups": ("own", "null", "shuffled"),
    "reference": ("cached", "forward", "adapter_off"),
    "backbone_training": ("frozen", "lora", "whole"),
    "denoiser_training": ("frozen", "lora", "whole"),
}


def apply_overrides(config: RunConfig, assignments: Iterable[str]) -> RunConfig:
    """Returns `config` with fields replaced.

    Args:
        config: the recipe's values.
        assignments: `section.field=value` each, e.g. `dpo.beta=100`.

    Raises:
        ValueError: when an assignment is malformed, its field is unknown, or its value is of the wrong kind.
    """
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set {assignment!r} is not of the form section.field=value.")
        config = _replaced(config, key.split("."), text, key)
    return config


def _replaced(node: Any, path: list[str], text: str, key: str) -> Any:
    """Returns dataclass `node` with the field at `path` set to the value that `text` spells."""
    known = [item.name for item in fields(node)]
    if path[0] not in known:
        raise ValueError(f"--set {key}: no field {path[0]!r} here; known: {', '.join(known)}.")
    value = getattr(node, path[0])
    if is_dataclass(value):
        if len(path) == 1:
            raise ValueError(f"--set {key}: names a section; its fields: {', '.join(f.name for f in fields(value))}.")
        return replace(node, **{path[0]: _replaced(value, path[1:], text, key)})
    if len(path) > 1:
        raise ValueError(f"--set {key}: {path[0]!r} is a value, not a section.")
    return replace(node, **{path[0]: _parsed(text, get_type_hints(type(node))[path[0]], key)})


def _parsed(text: str, kind: type, key: str) -> Any:
    """Returns `text` as a value of `kind`, checked against the field's choices where it has some."""
    value: Any
    try:
        value = text if kind is str else json.loads(text)
    except json.JSONDecodeError:
        value = None
    if kind == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ValueError(f'--set {key}={text}: expected a list of texts, as ["a", "b"].')
        return tuple(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"--set {key}={text}: expected a value of type {kind.__name__}.")
    choices = _CHOICES.get(key.rpartition(".")[2])
    if choices and value not in choices:
        raise ValueError(f"--set {key}={text}: expected one of {', '.join(map(str, choices))}.")
    return value
