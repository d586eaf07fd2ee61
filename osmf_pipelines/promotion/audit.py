"""The audit trail of a registered model: who moved its aliases when, on what grounds, and what was refused.

One JSON object a line, only ever appended, each with the hash of the line before it, so that a line that was changed or
removed shows. A move of aliases is two lines: what is intended, then whether it was done. Whoever comes after a process
that was killed between the two finds out from the aliases themselves and writes the second line. What to write belongs
in `promote.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

# intended: about to move aliases; done, dropped: how the intended line before ended; refused: nothing moves;
# found: the aliases were moved by something else.
State = Literal["intended", "done", "dropped", "refused", "found"]
Action = Literal["register", "promote", "rollback", "outside"]


@dataclass(frozen=True)
class Aliases:
    """Which versions the aliases name; None: no version."""

    champion: int | None = None
    challenger: int | None = None


@dataclass(frozen=True)
class Entry:
    """One line of the trail.

    Attributes:
        action: what was asked for.
        state: what came of it.
        by: who asked.
        version: the version that it is about.
        before: aliases as they were.
        after: aliases as they are meant to be; as they were, for what was refused.
        reasons: of the gate, against it.
        grounds: whatever it rests on: hashes, figures, a decision.
        number: from 1.
        at: ISO time, UTC.
        previous_sha256: hash of the line before; empty for the first.
    """

    action: Action
    state: State
    by: str
    version: int | None
    before: Aliases
    after: Aliases
    reasons: tuple[str, ...] = ()
    grounds: dict[str, Any] | None = None
    number: int = 0
    at: str = ""
    previous_sha256: str = ""


class AuditTrail:
    """The trail of one registered model.

    Args:
        path: its file. Whoever appends holds the model's lock.
    """

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[Entry]:
        """Returns the entries, oldest first; a last line that a kill cut off was never written.

        Raises:
            ValueError: when a line was changed, removed or added by hand.
        """
        entries, previous = [], ""
        for number, line in enumerate(self._lines(), start=1):
            try:
                fields = json.loads(line)
                entry = Entry(
                    **{
                        **fields,
                        "before": Aliases(**fields["before"]),
                        "after": Aliases(**fields["after"]),
                        "reasons": tuple(fields["reasons"]),
                    }
                )
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"line {number} of {self.path} is no entry ({error}): restore it.") from error
            if (entry.number, entry.previous_sha256) != (number, previous):
                raise ValueError(f"line {number} of {self.path} does not follow the one before: it was edited.")
            entries.append(entry)
            previous = _sha256(line)
        return entries

    def append(self, entry: Entry) -> Entry:
        """Adds an entry and returns it as it was written, on disk when this returns."""
        lines = self._lines()
        written = replace(
            entry,
            number=len(lines) + 1,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            previous_sha256=_sha256(lines[-1]) if lines else "",
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(asdict(written), sort_keys=True).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            whole = sum(len(line) + 1 for line in lines)
            os.ftruncate(descriptor, whole)  # what a kill cut off
            os.pwrite(descriptor, content, whole)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return written

    def _lines(self) -> list[bytes]:
        if not self.path.is_file():
            return []
        return self.path.read_bytes().split(b"\n")[:-1]


def unfinished(entries: Sequence[Entry]) -> Entry | None:
    """Returns the intended move of which the trail does not say how it ended."""
    return entries[-1] if entries and entries[-1].state == "intended" else None


def aliases_of(entries: Sequence[Entry]) -> Aliases:
    """Returns the aliases as the trail has them."""
    moved = [entry.after for entry in entries if entry.state in ("done", "found")]
    return moved[-1] if moved else Aliases()


def champions_of(entries: Sequence[Entry]) -> list[int]:
    """Returns the champions that a rollback can go back through; the last is the one in use."""
    champions: list[int] = []
    for entry in entries:
        if entry.state not in ("done", "found") or entry.before.champion == entry.after.champion:
            continue
        if entry.action == "rollback":
            champions = champions[:-1]
        elif entry.after.champion is not None:
            champions.append(entry.after.champion)
    return champions


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
