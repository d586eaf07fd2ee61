"""The shop of docs/tutorial.md: its script makes what the page says, and its days come to groups and pairs."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from osmf_pipelines.sources.files import FilesSource

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
OSMF = str(Path(sys.executable).with_name("osmf"))
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


@pytest.mark.torture
def test_its_days_come_to_pairs_and_the_bad_one_is_refused(tmp_path: Path) -> None:
    shop = _make_shop(tmp_path)
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", tmp_path)
    environment = {
        **os.environ,
        "COLUMNS": "250",
        "DAGSTER_HOME": str(tmp_path),
        "OSMF_USER_KEY": "a-secret-of-yours",
        "OSMF_HOME": str(tmp_path / "home"),
        "OSMF_SOURCE_PATH": str(shop),
        "OSMF_FIRST_DATE": FIRST.isoformat(),
        "OSMF_DRIVER_MEMORY": "2g",
    }

    def osmf(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([OSMF, *arguments], capture_output=True, text=True, check=False, env=environment)

    done = osmf("ingest", "--first-day", str(FIRST), "--last-day", str(SECOND), "--pairs")
    assert done.returncode == 0, done.stdout + done.stderr
    told = {name: int(rows.replace(",", "")) for name, rows in re.findall(r"✓ (\w+) +([\d,]+) rows", done.stdout)}
    written = {name: int(rows.replace(",", "")) for name, rows in re.findall(r"✓ (\w+) +([\d,]+) rows", PAGE)}
    assert told["quarantined_events"] == 120
    assert written == told
    refused = osmf("ingest", "--first-day", str(THIRD))
    assert refused.returncode == 2
    assert "quarantine_is_bearable" in refused.stdout
    assert f"refused {THIRD}: quarantine_is_small, quarantine_is_bearable" in osmf("tables").stdout
