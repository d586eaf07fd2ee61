"""The list of all settings as a Markdown page: what `docs/settings.md` holds and `osmf settings --markdown` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from osmf_pipelines.settings import Settings

_CHECKOUT = Path(__file__).resolve().parent.parent
_PAGE = """\
# Settings

Every setting of a lake is an environment variable, read once when a process starts. A value that cannot be is refused
with the variable's name. HOME is `OSMF_HOME`. What a training run does is a recipe (`osmf_models/recipes.py`), which
`OSMF_RECIPE` chooses.

{table}

## Secret and restricted

- Secrets, to be kept out of files and logs: `OSMF_USER_KEY`, from which hashed user ids could be recomputed;
  `OSMF_ALERT_URL`, `OSMF_MLFLOW_URI` and `OSMF_SPARK_CONF` where they carry a token or a password;
  `DAGSTER_PG_PASSWORD` of `dagster_home/postgres/dagster.yaml`. `osmf settings` does not show the user key.
- `OSMF_USER_KEY` is set before the first day of real logs and never changes: another key makes every user a new one.
- Restricted folders, which hold events or hashed user ids: `OSMF_LAKE` and `OSMF_SOURCE_PATH`. Which tables of the lake
  are restricted is in `osmf_pipelines/tables.py`. `OSMF_TRUTH_PATH` is for evaluation alone.
"""


def settings_markdown() -> str:
    """Returns the page: a table with one row per setting, and which settings are secret or restricted."""
    rows = [
        f"| `OSMF_{name.upper()}` | {_default(field)} | {_meaning(field)} |"
        for name, field in Settings.model_fields.items()
    ]
    return _PAGE.format(table="\n".join(["| variable | default | meaning |", "|---|---|---|", *rows]))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value in (None, "", Path()):
        return "not set"
    return f"`{_text(value)}`"


def _text(value: Any) -> str:
    if isinstance(value, Path) and value.is_relative_to(_CHECKOUT):
        return str(value.relative_to(_CHECKOUT))
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _meaning(field: FieldInfo) -> str:
    if field.description is None:
        raise ValueError(f"a setting without a description: {field!r}")
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    told = f" ({', '.join(f'`{choice}`' for choice in choices)})" if choices else ""
    return field.description.replace("|", "\\|") + told
