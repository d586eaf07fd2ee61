"""The shop of docs/tutorial.md: its script makes what the page says."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

from osmf_pipelines.sources.files import FilesSource

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()
FIRST, SECOND, THIRD = (date(2026, 3, day) for day in (2, 3, 4))


def _make_shop(folder: Path, *arguments: str) -> Path:
    found = re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None
    (folder / "make_shop.py").write_text(found[1])
    subprocess.run([sys.executable, "make_shop.py", *arguments], cwd=folder, check=True)
    return folder / "shop"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_script_makes_what_the_page_says(tmp_path: Path) -> None:
    shop = _make_shop(tmp_path)
    assert FilesSource(shop).days() == [FIRST, SECOND, THIRD]
    impressions = _rows(shop / f"logs/{FIRST}/impressions.csv")
    assert sum(row["uid"] == "" for row in impressions) == 60
    assert len(impressions) - len({row["imp"] for row in impressions}) == 5
    third = {row["ts"][:10] for row in _rows(shop / f"logs/{THIRD}/impressions.csv")}
    assert third == {"2026-03-04", "2026-03-05"}
    for line in re.findall(r"^ {47}(\S.*)$", PAGE, flags=re.MULTILINE):
        assert any(line in file.read_text() for file in shop.rglob("*.csv")), line
    _make_shop(tmp_path, "mended")
    assert {row["ts"][:10] for row in _rows(shop / f"logs/{THIRD}/impressions.csv")} == {"2026-03-04"}
