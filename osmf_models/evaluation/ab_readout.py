"""The read-out of an experiment: what was counted in each arm, and everything that follows from it; its JSON file.

A file holds the counts, and what it tells beside them is computed anew whenever it is read: nobody promotes a model by
an edited lift. How sums become figures belongs in `ab.py`, what a promotion makes of them in
`osmf_pipelines/promotion/`. Keys of the file are documented in docs/ab.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from osmf_models.evaluation.ab import ArmDifference, ArmSums, compare_arms, holm, sample_ratio_p_value, users_for_lift

FORMAT = "osmf-ab-readout/1"
# Below, users did not split as planned: something other than the arm decides who is in which, and no lift is told.
MIN_SAMPLE_RATIO_P_VALUE = 0.001
MAX_CROSSED_SHARE = 0.01
ALPHA = 0.05


@dataclass(frozen=True)
class ArmCounts:
    """What was counted of one arm, among everyone or in one group.

    Attributes:
        arm: its name.
        scope: product category; None for everyone.
        group_id: of that scope; None for everyone.
        sums: over its users.
    """

    arm: str
    scope: str | None
    group_id: str | None
    sums: ArmSums


@dataclass(frozen=True)
class ExperimentCounts:
    """What was counted in an experiment; users of two arms are in no sum.

    Attributes:
        experiment_id: as the logs name it.
        first_date: first day counted, ISO.
        last_date: last day counted, ISO.
        groups_as_of: day whose groups these are, ISO; None where there are none.
        control: the arm that others are held against.
        planned_shares: of users, by arm; they add up to 1.
        counts: of every arm among everyone, and in every group where the privacy floor lets it be told.
        model_versions: by arm, impressions by the model that drew the creative; "" for none.
        num_crossed_users: users who were shown more than one arm.
        num_left_out_impressions: of the experiment, that name no arm or no user.
    """

    experiment_id: str
    first_date: str
    last_date: str
    groups_as_of: str | None
    control: str
    planned_shares: dict[str, float]
    counts: tuple[ArmCounts, ...]
    model_versions: dict[str, dict[str, int]]
    num_crossed_users: int = 0
    num_left_out_impressions: int = 0


@dataclass(frozen=True)
class Comparison:
    """An arm against the control, among everyone or in one group.

    Attributes:
        arm: its name.
        scope: product category; None for everyone.
        group_id: of that scope; None for everyone.
        found: the difference.
        holm_p_value: adjusted for the number of arms, in groups for that of arms and groups; None without a p-value.
    """

    arm: str
    scope: str | None
    group_id: str | None
    found: ArmDifference
    holm_p_value: float | None

    @property
    def is_better(self) -> bool:
        """Whether the arm wins by more than chance explains."""
        return self.holm_p_value is not None and self.holm_p_value < ALPHA and self.found.difference > 0


@dataclass(frozen=True)
class ReadOut:
    """What follows from the counts of an experiment.

    Raises:
        ValueError: when there are not two arms, the control is none of them, or the planned split is of other arms.
    """

    experiment: ExperimentCounts

    def __post_init__(self) -> None:
        told, arms = self.experiment, self.arms
        name = f"experiment {told.experiment_id!r}"
        if len(arms) < 2:
            raise ValueError(f"{name} has one arm only ({', '.join(arms) or 'none'}): there is nothing to compare.")
        if told.control not in arms:
            raise ValueError(f"{name} has no arm {told.control!r} to hold others against: it has {', '.join(arms)}.")
        planned = told.planned_shares
        if set(planned) != set(arms) or min(planned.values()) <= 0 or abs(sum(planned.values()) - 1) > 1e-6:
            raise ValueError(
                f"the planned split of {name} is {planned}: a positive share for each of {', '.join(arms)} is needed, "
                "together 1."
            )
        keys = [(one.arm, one.scope, one.group_id) for one in told.counts]
        if len(set(keys)) < len(keys):
            raise ValueError(f"{name} counts an arm of a group twice.")

    @property
    def arms(self) -> list[str]:
        """The arms, control first."""
        names = sorted({one.arm for one in self.experiment.counts if one.group_id is None})
        return sorted(names, key=lambda name: name != self.experiment.control)

    @property
    def challengers(self) -> list[str]:
        """The arms but the control."""
        return [arm for arm in self.arms if arm != self.experiment.control]

    def sums_of(self, arm: str, scope: str | None = None, group_id: str | None = None) -> ArmSums | None:
        """Returns the sums of an arm, of everyone or of a group; None where the floor keeps them back."""
        return self._sums.get((arm, scope, group_id))

    @property
    def groups(self) -> list[tuple[str, str]]:
        """Scope and id of each group that is told of, in this order."""
        told = {(one.scope, one.group_id) for one in self.experiment.counts}
        return sorted((scope, group_id) for scope, group_id in told if scope is not None and group_id is not None)

    @cached_property
    def sample_ratio_p_value(self) -> float:
        """The probability that chance alone makes users split so unevenly."""
        users = [self._whole(arm).num_users for arm in self.arms]
        return sample_ratio_p_value(users, [self.experiment.planned_shares[arm] for arm in self.arms])

    @property
    def crossed_share(self) -> float:
        """The share of users who were shown more than one arm."""
        crossed = self.experiment.num_crossed_users
        return crossed / (crossed + sum(self._whole(arm).num_users for arm in self.arms))

    @property
    def faults(self) -> tuple[str, ...]:
        """Why no lift is told; none where the experiment is sound."""
        found = []
        if self.sample_ratio_p_value < MIN_SAMPLE_RATIO_P_VALUE:
            shares = self.experiment.planned_shares
            split = ", ".join(f"{arm} {self._whole(arm).num_users:,} ({shares[arm]:.3g} planned)" for arm in self.arms)
            found.append(
                f"users do not split as planned: {split}; p = {self.sample_ratio_p_value:.2g}. Find what loses or adds "
                "users in one arm (redirects, bots, logging), or name the split that was planned"
            )
        if self.crossed_share > MAX_CROSSED_SHARE:
            found.append(
                f"{self.experiment.num_crossed_users:,} users ({self.crossed_share:.1%}) were shown more than one arm: "
                "find out why their arm changes"
            )
        return tuple(found)

    @property
    def is_sound(self) -> bool:
        """Whether lifts can be told."""
        return not self.faults

    @cached_property
    def overall(self) -> tuple[Comparison, ...]:
        """Each arm against the control, among everyone; none where there is a fault."""
        return self._compared([(arm, None, None) for arm in self.challengers])

    @cached_property
    def by_group(self) -> tuple[Comparison, ...]:
        """Each arm against the control in each group where both are told of; none where there is a fault."""
        control = self.experiment.control
        cases = [
            (arm, scope, group_id)
            for arm in self.challengers
            for scope, group_id in self.groups
            if (arm, scope, group_id) in self._sums and (control, scope, group_id) in self._sums
        ]
        return self._compared(cases)

    def users_for_lift(self, lift: float) -> int | None:
        """Returns how many users each of two arms needs to find a lift; None with too few clicks to tell."""
        return users_for_lift(self._whole(self.experiment.control), lift)

    @cached_property
    def _sums(self) -> dict[tuple[str, str | None, str | None], ArmSums]:
        return {(one.arm, one.scope, one.group_id): one.sums for one in self.experiment.counts}

    def _whole(self, arm: str) -> ArmSums:
        return self._sums[arm, None, None]

    def _compared(self, cases: Sequence[tuple[str, str | None, str | None]]) -> tuple[Comparison, ...]:
        if not self.is_sound:
            return ()
        control = self.experiment.control
        found = [compare_arms(self._sums[case], self._sums[control, case[1], case[2]]) for case in cases]
        adjusted = iter(holm([one.p_value for one in found if one.p_value is not None]))
        p_values = [None if one.p_value is None else next(adjusted) for one in found]
        return tuple(
            Comparison(arm, scope, group_id, one, p_value)
            for (arm, scope, group_id), one, p_value in zip(cases, found, p_values, strict=True)
        )


def write_readout(path: Path, readout: ReadOut, *, lift: float) -> None:
    """Writes a read-out as JSON.

    Args:
        path: to write.
        readout: what was found.
        lift: whose sample size is told.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(readout, lift=lift), indent=1, allow_nan=False))


def as_json(readout: ReadOut, *, lift: float) -> dict[str, Any]:
    """Returns what a file of a read-out holds: the counts, and what follows from them."""
    told = asdict(readout.experiment)
    told["counts"] = [
        _where(one) | asdict(one.sums) | _rate(one.sums)
        for one in sorted(readout.experiment.counts, key=lambda one: (one.scope or "", one.group_id or "", one.arm))
    ]
    return {
        "format": FORMAT,
        "experiment": told,
        "faults": list(readout.faults),
        "sample_ratio_p_value": readout.sample_ratio_p_value,
        "crossed_share": readout.crossed_share,
        "overall": [_compared_json(one) for one in readout.overall],
        "by_group": [_compared_json(one) for one in readout.by_group],
        "sample_size": {"lift": lift, "users_of_each_arm": readout.users_for_lift(lift)},
    }


def read_readout(path: Path) -> ReadOut:
    """Returns the read-out of a file, its figures computed anew from the counts.

    Raises:
        ValueError: when the file is missing, of another format, or broken.
    """
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, this version reads {FORMAT!r}")
        told = dict(content["experiment"])
        counts = tuple(_counts(row) for row in told.pop("counts"))
        return ReadOut(ExperimentCounts(**told, counts=counts))
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} holds no read-out ({error}): write one, osmf ab --output FILE.json.") from error


def _counts(row: Mapping[str, Any]) -> ArmCounts:
    sums = ArmSums(**{name: int(row[name]) for name in ArmSums.__dataclass_fields__})
    return ArmCounts(row["arm"], row["scope"], row["group_id"], sums)


def _where(one: ArmCounts | Comparison) -> dict[str, Any]:
    return {"arm": one.arm, "scope": one.scope, "group_id": one.group_id}


def _rate(sums: ArmSums) -> dict[str, Any]:
    low, high = sums.rate_interval or (None, None)
    return {"click_rate": sums.click_rate, "click_rate_low": low, "click_rate_high": high}


def _compared_json(one: Comparison) -> dict[str, Any]:
    return _where(one) | asdict(one.found) | {"holm_p_value": one.holm_p_value}
