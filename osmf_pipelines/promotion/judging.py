"""A registered version before the gate: fetches what was found of it and of the champion, and hashes its files.

The rules belong in `gate.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from osmf_models.evaluation.evaluation_record import EvaluationRecord
from osmf_pipelines.promotion.gate import Floors, GateVerdict, judge_promotion
from osmf_pipelines.promotion.registry import Package, RegisteredVersion, Registry


@dataclass(frozen=True)
class Judged:
    """A version, the champion it was held against, what the gate said, and what that rests on."""

    version: RegisteredVersion
    champion: int | None
    verdict: GateVerdict
    grounds: dict[str, Any]


def judge_version(registry: Registry, floors: Floors, number: int, champion: int | None) -> Judged:
    """Returns what the gate says of a version against a champion.

    The champion is judged as the version's own evaluation found it, else as its own did.

    Raises:
        RegistryError: when the registry cannot be reached, or there is no such version.
        ValueError: when a file of records is broken.
    """
    version = registry.version(number)
    package = registry.package(version)
    changed = package.changes_since(version)
    if changed:
        return Judged(version, champion, GateVerdict(changed), package.hashes())
    records = _records(package)
    record = _of(version.artifact_sha256, records)
    if record is None:
        reason = "it was registered without an evaluation of its files: register it with --evaluation"
        return Judged(version, champion, GateVerdict((reason,)), package.hashes())
    grounds = {**package.hashes(), "evaluation_set_sha256": record.evaluation_set_sha256}
    other = None
    if champion is not None:
        in_use = registry.version(champion)
        sha256 = in_use.artifact_sha256
        other = _of(sha256, records) or _of(sha256, _records(registry.package(in_use)))
        if other is None:
            reason = f"version {champion}, the champion, was not evaluated: evaluate again, it is judged beside"
            return Judged(version, champion, GateVerdict((reason,)), grounds)
    verdict = judge_promotion(record, other, found_sha256=package.artifact_sha256, floors=floors)
    return Judged(version, champion, verdict, {**grounds, "figures": verdict.figures})


def _records(package: Package) -> list[EvaluationRecord]:
    return list(package.records().values()) if package.has_records else []


def _of(artifact_sha256: str, records: Iterable[EvaluationRecord]) -> EvaluationRecord | None:
    """The first record of these files; of several in one evaluation the one that judged pairs."""
    own = [record for record in records if record.artifact_sha256 == artifact_sha256]
    return next((record for record in own if record.pairs), own[0]) if own else None
