"""The last verdict on each table: a small JSON file in HOME/verdicts, so that it can be told without starting Spark.

The history of verdicts is Dagster's.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path


@dataclass(frozen=True)
class Verdict:
    """What the gate said of a candidate.

    Attributes:
        table: the table.
        is_published: false where a critical expectation failed.
        judged_at: ISO time, UTC.
        run_id: of the Dagster run.
        days: first and last day judged, ISO; empty for a snapshot.
        failed_checks: names of the expectations that did not hold; warnings only, where it was published.
    """

    table: str
    is_published: bool
    judged_at: str
    run_id: str
    days: tuple[str, ...]
    failed_checks: tuple[str, ...]

    @classmethod
    def now(cls, table: str, *, run_id: str, days: tuple[date, ...] | None, failed_checks: tuple[str, ...]) -> Verdict:
        """Returns a verdict to publish, given at this moment."""
        ends = (days[0].isoformat(), days[-1].isoformat()) if days else ()
        return cls(table, True, datetime.now(UTC).isoformat(timespec="seconds"), run_id, ends, failed_checks)

    def as_refused(self) -> Verdict:
        """Returns the same with the opposite outcome."""
        return replace(self, is_published=False)


class Verdicts:
    """The last verdict on each table.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, verdict: Verdict) -> None:
        """Keeps `verdict` in place of the table's last one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{verdict.table}.json"
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(asdict(verdict)))
        temporary.replace(path)

    def read(self, table: str) -> Verdict | None:
        """Returns the last verdict on `table`, or None where there was none."""
        path = self.folder / f"{table}.json"
        if not path.is_file():
            return None
        told = json.loads(path.read_text())
        return Verdict(**{**told, "days": tuple(told["days"]), "failed_checks": tuple(told["failed_checks"])})
