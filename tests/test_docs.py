"""README and docs/: links lead somewhere, and settings that a page names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_VARIABLES = {f"OSMF_{name.upper()}" for name in Settings.model_fields}


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """Of each heading as GitHub makes them: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", _prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", _prose(page))
    for target in [target for target in targets if "://" not in target]:
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_exist(page: Path) -> None:
    assert set(re.findall(r"OSMF_[A-Z][A-Z_]*[A-Z]", page.read_text())) <= _VARIABLES


def test_serving_names_columns_that_the_table_has() -> None:
    told = re.search(r"The table has\s(.*?)\.", (ROOT / "docs" / "serving.md").read_text(), flags=re.DOTALL)
    assert told is not None
    named = set(re.findall(r"`(\w+)`", told[1]))
    assert "seed" in named
    assert named <= {column.name for column in TABLES["generated_creatives"].columns}
