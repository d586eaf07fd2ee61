"""`docs/settings.md` tells the settings as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from osmf_pipelines.settings import Settings
from osmf_pipelines.settings_table import settings_markdown

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "settings.md").read_text()


def _rows() -> dict[str, tuple[str, str]]:
    """Variable to (default, meaning), as the page has them."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| `OSMF_")]
    return {variable.strip().strip("`"): (default.strip(), meaning.strip()) for variable, default, meaning in cells}


def test_page_is_what_the_settings_say() -> None:
    assert settings_markdown() == PAGE, "run `osmf settings --markdown > docs/settings.md`"


def test_every_setting_has_one_row() -> None:
    assert list(_rows()) == [f"OSMF_{name.upper()}" for name in Settings.model_fields]
    assert len(re.findall(r"^\| `OSMF_", PAGE, flags=re.MULTILINE)) == len(Settings.model_fields)


def test_defaults_as_shown_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever exports what the page shows has the same settings as before."""
    for variable in _rows():
        monkeypatch.delenv(variable, raising=False)
    expected = Settings()
    shown = {variable: default.strip("`") for variable, (default, _) in _rows().items() if default != "not set"}
    for variable, default in shown.items():
        monkeypatch.setenv(variable, default)
    monkeypatch.chdir(ROOT)
    found = Settings()
    assert found.home.resolve() == expected.home
    assert found.model_copy(update={"home": expected.home}) == expected


def test_page_shows_no_path_of_this_machine() -> None:
    assert str(ROOT) not in PAGE
    assert str(Path.home()) not in PAGE
    assert _rows()["OSMF_HOME"][0] == "`.osmf`"


def test_choices_are_told() -> None:
    assert "`files`, `table`, `open_bandit`" in _rows()["OSMF_SOURCE"][1]
