"""The trail: what it holds survives, and what was edited shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from osmf_pipelines.promotion.audit import Aliases, AuditTrail, Entry, aliases_of, champions_of, unfinished


def move(before: Aliases, after: Aliases, action: str = "promote", state: str = "done") -> Entry:
    return Entry(action, state, "ada", after.champion, before, after)  # type: ignore[arg-type]


NONE, ONE, TWO = Aliases(), Aliases(1, 2), Aliases(2, None)


def test_entries_come_back_in_order_with_numbers_and_times(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "new" / "trail.jsonl")
    assert trail.read() == []
    written = [trail.append(move(NONE, ONE)), trail.append(replace(move(ONE, TWO), reasons=("a", "b")))]
    assert trail.read() == written
    assert [entry.number for entry in written] == [1, 2]
    assert all(entry.at.endswith("+00:00") for entry in written)


def test_a_line_that_a_kill_cut_off_was_never_written(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "trail.jsonl")
    first = trail.append(move(NONE, ONE))
    whole = trail.path.read_bytes()
    trail.append(move(ONE, TWO))
    second = trail.path.read_bytes()[len(whole) :]
    for cut in range(0, len(second), 41):
        trail.path.write_bytes(whole + second[:cut])
        assert trail.read() == [first]
        again = trail.append(move(ONE, TWO))
        assert trail.read() == [first, again]


@pytest.mark.parametrize("harm", ["changed", "removed", "added", "no JSON"])
def test_a_trail_that_was_edited_is_refused(tmp_path: Path, harm: str) -> None:
    trail = AuditTrail(tmp_path / "trail.jsonl")
    for before, after in ((NONE, ONE), (ONE, TWO), (TWO, ONE)):
        trail.append(move(before, after))
    lines = trail.path.read_text().splitlines(keepends=True)
    edited = {
        "changed": [lines[0].replace('"ada"', '"bob"'), *lines[1:]],
        "removed": [lines[0], lines[2]],
        "added": [lines[0], lines[0], *lines[1:]],
        "no JSON": [lines[0], "?\n", *lines[2:]],
    }[harm]
    trail.path.write_text("".join(edited))
    with pytest.raises(ValueError, match=r"line 2 of .*(edited|restore)"):
        trail.read()


def test_aliases_and_champions_are_what_was_done() -> None:
    entries = [
        move(NONE, Aliases(1)),
        move(Aliases(1), Aliases(1, 2), "register"),
        move(Aliases(1, 2), Aliases(2), state="refused"),
        move(Aliases(1, 2), Aliases(3, 2), state="dropped"),
        move(Aliases(1, 2), Aliases(2)),
        move(Aliases(2), Aliases(5), "outside", "found"),
    ]
    assert champions_of(entries) == [1, 2, 5]
    assert aliases_of(entries) == Aliases(5)
    back = [*entries, move(Aliases(5), Aliases(2), "rollback")]
    assert champions_of(back) == [1, 2]
    assert champions_of([*back, move(Aliases(2), Aliases(1), "rollback")]) == [1]
    assert unfinished(entries) is None
    assert unfinished([*entries, move(Aliases(5), Aliases(6), state="intended")]) is not None


def test_a_line_holds_no_more_than_one_object(tmp_path: Path) -> None:
    """Whatever a person writes as a reason stays inside its line."""
    trail = AuditTrail(tmp_path / "trail.jsonl")
    trail.append(replace(move(NONE, ONE), reasons=('line\nbreak "quoted" {}',)))
    assert [json.loads(line)["reasons"] for line in trail.path.read_text().splitlines()] == [
        ['line\nbreak "quoted" {}']
    ]
