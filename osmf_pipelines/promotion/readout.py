"""An A/B read-out before the gate: whether a version won against the champion, among users who were shown both.

It speaks for a version only where the experiment is sound, its arm was drawn by that version alone, the control by the
champion, the arm is above the control by more than chance explains, and in no group below it. Making any of its
figures worse never turns a refusal into a pass. Counting an experiment belongs in `osmf_pipelines/spark`, its figures
in `osmf_models/evaluation/ab_readout.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from osmf_models.evaluation.ab import holm
from osmf_models.evaluation.ab_readout import ALPHA, Comparison, ReadOut, read_readout
from osmf_pipelines.promotion.gate import GateVerdict
from osmf_pipelines.promotion.judging import Judged
from osmf_pipelines.promotion.registry import RegisteredVersion, Registry

_MAX_GROUPS_NAMED = 3


@dataclass(frozen=True)
class Evidence:
    """A read-out, and the hash of its file."""

    readout: ReadOut
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Evidence:
        """Returns the read-out of a file that `osmf ab --output` wrote.

        Raises:
            ValueError: when it is none.
        """
        return cls(read_readout(path), hashlib.sha256(path.read_bytes()).hexdigest())


def names_of(model_name: str, version: RegisteredVersion) -> frozenset[str]:
    """Returns the texts that name a version as `model_version` of an impression.

    Its number, the number after the model's name, MLflow's URI, or the hash over its files.
    """
    number = f"{model_name}/{version.number}"
    return frozenset({str(version.number), number, f"models:/{number}", version.artifact_sha256} - {""})


def weigh_readout(judged: Judged, evidence: Evidence, registry: Registry) -> Judged:
    """Returns what was judged, with what a read-out says of it added to reasons, figures and grounds.

    Raises:
        RegistryError: when the registry cannot be reached.
    """
    own = names_of(registry.name, judged.version)
    champion = None if judged.champion is None else names_of(registry.name, registry.version(judged.champion))
    found = judge_readout(evidence.readout, own, champion)
    verdict = replace(
        judged.verdict,
        reasons=(*judged.verdict.reasons, *found.reasons),
        figures={**judged.verdict.figures, **found.figures},
    )
    told = evidence.readout.experiment
    readout: dict[str, Any] = {
        "sha256": evidence.sha256,
        "experiment_id": told.experiment_id,
        "first_date": told.first_date,
        "last_date": told.last_date,
        "control": told.control,
    }
    return replace(judged, verdict=verdict, grounds={**judged.grounds, "figures": verdict.figures, "readout": readout})


def judge_readout(readout: ReadOut, own: Collection[str], champion: Collection[str] | None) -> GateVerdict:
    """Returns what a read-out says of a version.

    Args:
        readout: of the experiment.
        own: texts that name the version, as `model_version` of an impression.
        champion: texts that name the champion; None where there is none, and any control will do.
    """
    name = f"experiment {readout.experiment.experiment_id}"
    if not readout.is_sound:
        return GateVerdict(tuple(f"{name} is not sound: {fault}" for fault in readout.faults))
    reasons = _control_reasons(readout, name, champion)
    arms = [arm for arm in readout.challengers if _drawn_by(readout, arm) & set(own)]
    if len(arms) != 1:
        drawn = "; ".join(f"{arm}: {_told(_drawn_by(readout, arm))}" for arm in readout.challengers)
        reasons.append(
            f"{name} has {'no arm' if not arms else 'two arms'} beside the control that it drew "
            f"(model_version of the impressions: {drawn})"
        )
        return GateVerdict(tuple(reasons))
    (arm,) = arms
    others = _drawn_by(readout, arm) - set(own)
    if others:
        reasons.append(f"arm {arm} of {name} shows what other versions drew too: {_told(others)}")
    overall = next(one for one in readout.overall if one.arm == arm)
    groups = [one for one in readout.by_group if one.arm == arm]
    return GateVerdict((*reasons, *_lost(overall, groups, name)), _figures(overall, groups))


def _control_reasons(readout: ReadOut, name: str, champion: Collection[str] | None) -> list[str]:
    if champion is None:
        return []
    drawn = _drawn_by(readout, readout.experiment.control)
    if drawn and drawn <= set(champion):
        return []
    return [
        f"the control of {name} shows what {_told(drawn)} drew, and not the champion: test it against the champion, "
        f"model_version {min(champion, key=len)}"
    ]


def _drawn_by(readout: ReadOut, arm: str) -> set[str]:
    """The versions that drew what an arm shows; creatives that no model drew are left out."""
    return set(readout.experiment.model_versions.get(arm, {})) - {""}


def _told(versions: Collection[str]) -> str:
    return ", ".join(sorted(versions)) or "no model"


def _lost(overall: Comparison, groups: list[Comparison], name: str) -> list[str]:
    reasons = []
    if overall.holm_p_value is None:
        reasons.append(f"{name} has too few clicks to tell a lift")
    elif not overall.is_better:
        found = overall.found
        reasons.append(
            f"in {name} it is not above the control by more than chance explains: lift {found.lift:+.2%} "
            f"({found.lift_low:+.2%} to {found.lift_high:+.2%})"
        )
    worse = _worse(groups)
    if worse:
        named = ", ".join(f"{one.scope} {one.group_id} ({one.found.lift:+.1%})" for one in worse[:_MAX_GROUPS_NAMED])
        reasons.append(f"in {name} it is below the control in {len(worse)} of {len(groups)} groups: {named}")
    return reasons


def _worse(groups: list[Comparison]) -> list[Comparison]:
    """The groups that lose by more than chance explains, the largest loss first.

    One-sided, so that a group that wins less cannot hide another that loses.
    """
    told = [(one, one.found.p_value) for one in groups if one.found.p_value is not None]
    chances = holm([p / 2 if one.found.difference < 0 else 1 - p / 2 for one, p in told])
    worse = [one for (one, _), chance in zip(told, chances, strict=True) if chance < ALPHA / 2]
    return sorted(worse, key=lambda one: one.found.difference)


def _figures(overall: Comparison, groups: list[Comparison]) -> dict[str, float]:
    found = overall.found
    told = {"ab_lift": found.lift, "ab_lift_low": found.lift_low, "ab_lift_high": found.lift_high}
    told["ab_p_value"] = overall.holm_p_value
    told["ab_worst_group_lift"] = min((one.found.lift for one in groups if one.found.lift is not None), default=None)
    return {name: value for name, value in told.items() if value is not None}
