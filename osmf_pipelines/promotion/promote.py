"""Moves the aliases champion and challenger: through the gate, by compare-and-set under a lock, told in the trail.

What happens when:

| asked for | without a champion | with one |
|---|---|---|
| `register` (a new version) | champion where the truth is known, else challenger | challenger |
| `promote` | champion | champion |

Each only where the gate passes; without a truth, champion needs the read-out of an A/B test that it won, or a decision
that a person signs. The alias champion is the point of no return: after a kill the next one to come reads from it how
the move ended; where the champion stays, from the alias challenger, the only one that moves. The lock is a file, so
that it holds for the processes of one machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from osmf_pipelines.promotion.audit import Action, Aliases, AuditTrail, Entry, aliases_of, champions_of, unfinished
from osmf_pipelines.promotion.gate import Floors, GateVerdict
from osmf_pipelines.promotion.judging import Judged, judge_version
from osmf_pipelines.promotion.readout import Evidence, weigh_readout
from osmf_pipelines.promotion.registry import CHALLENGER, CHAMPION, Registry
from osmf_pipelines.spark.locks import TableLocks

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings

_MAX_TAG_CHARS = 4000
OnPhase = Callable[[str], None]


class PromotionRefusedError(RuntimeError):
    """The gate, or another process that was faster, keeps a version from an alias; the message holds the reasons."""


@dataclass(frozen=True)
class Decision:
    """A person's decision that a challenger becomes champion where no truth is known; both are recorded.

    Attributes:
        text: why.
        by: who took it.

    Raises:
        ValueError: when either is empty or blank.
    """

    text: str
    by: str

    def __post_init__(self) -> None:
        if not (self.text.strip() and self.by.strip()):
            raise ValueError(f"the decision {self.text!r} by {self.by!r} lacks its reason or its author: give both.")


@dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes:
        version: that it was about.
        alias: that the version has now; empty for none.
        verdict: of the gate; None for a rollback.
        reasons: why it has no alias, or not the one asked for.
        aliases: as they are now.
    """

    version: int
    alias: str
    verdict: GateVerdict | None
    reasons: tuple[str, ...]
    aliases: Aliases

    @property
    def figures(self) -> dict[str, float]:
        """What the gate looked at, by name."""
        return {} if self.verdict is None else self.verdict.figures


class Promotions:
    """Moves the aliases of one registered model.

    Args:
        settings: where the registry and HOME are, and the floors.
        on_phase: told as each step is done: judged, intended, champion set, challenger set, done.
    """

    def __init__(self, settings: Settings, on_phase: OnPhase = lambda phase: None):
        self.registry = Registry(settings)
        self.trail = AuditTrail(trail_path(settings))
        self.floors = Floors(picture_quality=settings.min_picture_quality)
        self._locks = TableLocks(settings.home / "locks")
        self._on_phase = on_phase

    def register(self, number: int, *, by: str) -> Outcome:
        """Gives a new version the alias that it deserves; a refused one gets none."""
        judged = judge_version(self.registry, self.floors, number, self.registry.aliases().champion)

        def target(now: Aliases) -> Aliases:
            is_first = now.champion is None and judged.verdict.is_truth_known
            return _with_champion(now, number) if is_first else replace(now, challenger=number)

        return self._settle("register", judged, by, target)

    def promote(
        self,
        number: int | None = None,
        *,
        by: str,
        decision: Decision | None = None,
        evidence: Evidence | None = None,
    ) -> Outcome:
        """Makes a version the champion.

        Args:
            number: of the version; default: the challenger.
            by: who asks.
            decision: needed where no truth is known and no A/B test was won.
            evidence: the read-out of an A/B test, which it must have won.

        Raises:
            PromotionRefusedError: when the gate refuses it, or the champion is another one by the time of the move.
            RegistryError: when the registry cannot be reached, or there is no such version.
            ValueError: when there is nothing to promote.
        """
        aliases = self.registry.aliases()
        if number is None and aliases.challenger is None:
            raise ValueError("there is no challenger: name a version, `osmf promote --version N`.")
        number = aliases.challenger if number is None else number
        assert number is not None
        if number == aliases.champion:
            raise ValueError(f"version {number} is the champion already.")
        judged = judge_version(self.registry, self.floors, number, aliases.champion)
        if evidence is not None:
            judged = weigh_readout(judged, evidence, self.registry)
        if decision is not None:
            judged.grounds["decision"] = asdict(decision)
        is_allowed = judged.verdict.is_truth_known or decision is not None or evidence is not None

        def target(now: Aliases) -> Aliases:
            if not is_allowed:
                return replace(now, challenger=number)
            return _with_champion(now, number)

        outcome = self._settle("promote", judged, by, target)
        if outcome.reasons:
            raise PromotionRefusedError(f"version {number} is refused: {'; '.join(outcome.reasons)}.")
        return outcome

    def rollback(self, *, by: str) -> Outcome:
        """Gives the alias champion back to the champion before; again, to the one before that.

        Raises:
            PromotionRefusedError: when the files of that version have changed since they were registered.
            RegistryError: when the registry cannot be reached, or the version is gone from it.
            ValueError: when there is no champion before.
        """
        with self._locked() as now:
            champions = champions_of(self.trail.read())
            if now.champion is None or len(champions) < 2:
                raise ValueError(
                    f"{self.registry.name} has no champion before this one to go back to: `osmf promote --version N` "
                    "takes a version through the gate."
                )
            version = self.registry.version(champions[-2])
            package = self.registry.package(version)
            after = _with_champion(now, version.number)
            entry = Entry("rollback", "intended", by, version.number, now, after, grounds=package.hashes())
            reasons = package.changes_since(version)
            if reasons:
                self.trail.append(replace(entry, state="refused", after=now, reasons=reasons))
                raise PromotionRefusedError(f"version {version.number} cannot come back: {'; '.join(reasons)}.")
            aliases = self._move(entry)
        return Outcome(version.number, CHAMPION, None, (), aliases)

    def _settle(self, action: Action, judged: Judged, by: str, target: Callable[[Aliases], Aliases]) -> Outcome:
        """Moves aliases where the gate has passed and the champion is still the one that was judged against."""
        self._on_phase("judged")
        number, verdict = judged.version.number, judged.verdict
        with self._locked() as now:
            reasons = verdict.reasons
            if not reasons and now.champion != judged.champion:
                reasons = (
                    f"the champion is version {now.champion} by now, and it was held against {judged.champion}: "
                    "promote again",
                )
            self._tag(judged, reasons)
            entry = Entry(action, "intended", by, number, now, now, reasons, judged.grounds)
            if reasons:
                self.trail.append(replace(entry, state="refused"))
                return Outcome(number, _alias_of(number, now), verdict, reasons, now)
            aliases = self._move(replace(entry, after=target(now)))
        return Outcome(number, _alias_of(number, aliases), verdict, (), aliases)

    def _tag(self, judged: Judged, reasons: tuple[str, ...]) -> None:
        tags = {
            "gate_verdict": "refused" if reasons else "passed",
            "gate_reasons": "; ".join(reasons)[:_MAX_TAG_CHARS],
            "gate_champion": str(judged.champion or ""),
            "gate_figures": json.dumps(judged.verdict.figures)[:_MAX_TAG_CHARS],
        }
        self.registry.tag(judged.version.number, tags)

    def _move(self, entry: Entry) -> Aliases:
        """Writes what is intended, moves the aliases, champion first, and writes that it is done."""
        intended = self.trail.append(entry)
        self._on_phase("intended")
        self._set(intended)
        self.trail.append(replace(intended, state="done"))
        self._on_phase("done")
        return entry.after

    def _set(self, entry: Entry) -> None:
        for alias in (CHAMPION, CHALLENGER):
            before, after = getattr(entry.before, alias), getattr(entry.after, alias)
            if before != after:
                self.registry.set_alias(alias, after)
                self._on_phase(f"{alias} set")

    @contextmanager
    def _locked(self) -> Iterator[Aliases]:
        """Holds the model's lock; yields the aliases, once the trail agrees with them."""
        with self._locks.write(f"registry-{quote(self.registry.name, safe='')}"):
            yield self._reconcile()

    def _reconcile(self) -> Aliases:
        """Brings to an end what a kill left half-way, and tells in the trail what others did to the aliases."""
        now = self.registry.aliases()
        left = unfinished(self.trail.read())
        if left is not None:
            now = self._end(left, now)
        told = aliases_of(self.trail.read())
        if told != now:
            self.trail.append(Entry("outside", "found", "unknown", now.champion, told, now))
        return now

    def _end(self, left: Entry, now: Aliases) -> Aliases:
        """Ends a move that a kill left half-way, as the alias that it moves first says; returns the aliases then.

        The champion is never set here, and a challenger that others have set since stays.
        """
        first = CHAMPION if left.before.champion != left.after.champion else CHALLENGER
        if getattr(now, first) != getattr(left.after, first):
            self.trail.append(replace(left, state="dropped", after=left.before))
            return now
        after = replace(now, challenger=left.after.challenger) if now.challenger == left.before.challenger else now
        self._set(replace(left, before=now, after=after))
        self.trail.append(replace(left, state="done"))
        return after


def trail_path(settings: Settings) -> Path:
    """Returns where the audit trail of the settings' model lies."""
    return settings.home / "registry" / f"{quote(settings.model_name, safe='')}.jsonl"


def _with_champion(aliases: Aliases, number: int) -> Aliases:
    """The aliases after a version has become champion: it is challenger no more."""
    return Aliases(number, None if aliases.challenger == number else aliases.challenger)


def _alias_of(number: int, aliases: Aliases) -> str:
    return CHAMPION if aliases.champion == number else CHALLENGER if aliases.challenger == number else ""
