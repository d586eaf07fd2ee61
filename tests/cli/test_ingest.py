"""`osmf ingest`: which days are taken, what a dry run shows, what wrong input ends with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import date, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from osmf_pipelines.cli.ingest import choose_days, preview_table
from osmf_pipelines.settings import Settings
from osmf_pipelines.sources.preview import TablePreview
from tests.tiny_drop import FIRST_DAY, make_drop

OSMF = str(Path(sys.executable).with_name("osmf"))


class _Days:
    """A source of which only the days are asked."""

    def __init__(self, *days: date):
        self.complete = list(days)

    def days(self) -> list[date]:
        return self.complete


def _choose(complete: list[int], first: int | None, last: int | None) -> tuple[date, date]:
    days = [None if number is None else FIRST_DAY + timedelta(days=number) for number in (first, last)]
    source = _Days(*[FIRST_DAY + timedelta(days=number) for number in complete])
    return choose_days(source, Settings(first_date=FIRST_DAY), *days)  # type: ignore[arg-type]


def test_all_complete_days_are_taken_or_those_named() -> None:
    ends = (FIRST_DAY, FIRST_DAY + timedelta(days=2))
    assert _choose([-5, 0, 1, 2], None, None) == ends
    assert _choose([0, 1, 2], 2, None) == (ends[1], ends[1])
    assert _choose([0, 1, 2, 3], 0, 2) == ends


@pytest.mark.parametrize(
    ("complete", "first", "last", "message"),
    [
        ([], None, None, "no complete day"),
        ([-3], None, None, "OSMF_FIRST_DATE=2026-03-02"),
        ([0, 1], 1, 0, "is after --last-day"),
        ([0, 2], None, None, "day 2026-03-03 is not complete"),
        ([0, 1], 5, None, "day 2026-03-07 is not complete"),
    ],
)
def test_days_that_are_not_there_are_named(
    complete: list[int], first: int | None, last: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _choose(complete, first, last)


def test_what_logs_and_mapping_hold_is_no_markup() -> None:
    """Closing tags would end the command, others and names of emoji vanish."""
    preview = TablePreview(
        section="clicks",
        origin="[/]clicks[bold].csv",
        columns=("click_id", "price"),
        their_columns=("[/dim][red]id", ""),
        rows=(("[/red]a:100:", "[b]1[/b]\\"), ("2", "3")),
        reasons=(("no_[/]_price", "[late]"), ()),
    )
    text = StringIO()
    Console(file=text, width=120).print(preview_table(preview))
    lines = [[cell.strip() for cell in re.split("[┃│]", line)[1:-1]] for line in text.getvalue().splitlines()]
    assert text.getvalue().splitlines()[0].strip() == "clicks ← [/]clicks[bold].csv"
    assert [cells for cells in lines if cells] == [
        ["click_id", "price", ""],
        ["[/dim][red]id", "not mapped", "refused for"],
        ["[/red]a:100:", "[b]1[/b]\\", "no_[/]_price, [late]"],
        ["2", "3", ""],
    ]


def test_a_dry_run_shows_the_mapping_and_writes_no_table(tmp_path: Path) -> None:
    drop = make_drop(tmp_path / "drop", num_days=1, num_impressions=30, num_users=5)
    drop.impressions[FIRST_DAY][3]["who"] = None
    drop.write()
    environment = {
        **os.environ,
        "COLUMNS": "250",
        "OSMF_HOME": str(tmp_path / "home"),
        "OSMF_SOURCE_PATH": str(drop.folder),
        "OSMF_FIRST_DATE": FIRST_DAY.isoformat(),
    }
    command = [OSMF, "ingest", "--dry-run", "--rows", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in ("impressions", "clicks", "users", "products", "creatives"))
    assert "missing_user_id" in done.stdout
    assert "user-0" not in done.stdout
    assert not (tmp_path / "home" / "lake").exists()

    (drop.folder / "mapping.toml").write_text("[impressions]\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stdout.startswith("error: ")
    assert "mapping.toml" in done.stdout
