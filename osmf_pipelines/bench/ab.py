"""Simulated experiments, again and again: does a read-out hold what the arms exactly earn, and does its check alarm?

Each replication draws users, puts them in arms by hash, draws what they click, and reads out as `osmf ab` does. Beside
the experiment itself: the control against itself (A/A), where whatever is found is false; and users lost from one arm,
which the sample-ratio check must see. The experiment is in `ab_market.py`, what is made of it in `ab_report.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy.special import ndtr

from osmf_models.evaluation.ab import CONFIDENCE, POWER, ArmDifference, sample_ratio_p_value
from osmf_models.evaluation.ab_readout import ALPHA, MIN_SAMPLE_RATIO_P_VALUE, ReadOut
from osmf_pipelines.bench.ab_market import Arm, Crowd, assign_arms, exact_rates, run_experiment

AGAIN = "the same again"
LOST_SHARE = 0.1
_WHERE = ("replication", "arm", "scope", "group_id")
_FIGURES = (*(field.name for field in fields(ArmDifference)), "true_difference", "true_lift")
_Z, _Z_POWER = (NormalDist().inv_cdf(chance) for chance in (0.5 + CONFIDENCE / 2, POWER))


@dataclass(frozen=True)
class Design:
    """What is run.

    Attributes:
        num_users: of an experiment.
        impressions: of its users, on average.
        num_replications: R.
        seed: of the first; each replication has its own key.
        min_users: privacy floor of a group.
    """

    num_users: int
    impressions: int
    num_replications: int
    seed: int
    min_users: int


def run_once(crowd: Crowd, arms: list[Arm], shares: Mapping[str, float], design: Design, number: int) -> ReadOut:
    """Returns the read-out of one replication, the first arm its control."""
    counts = run_experiment(
        crowd,
        arms,
        shares,
        num_users=design.num_users,
        impressions=design.impressions,
        key=design.seed * 1_000_003 + number,
        min_users=design.min_users,
    )
    return ReadOut(counts)


def replicate(
    crowd: Crowd,
    arms: list[Arm],
    shares: Mapping[str, float],
    design: Design,
    progress: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Returns one row per replication and comparison: what was found, and what is exactly so.

    A replication whose sample-ratio check alarms has one row without a finding for each arm.
    """
    true: dict[tuple[str, str | None, str | None], float] = {}
    for arm in arms:
        true |= exact_rates(crowd, arm)
    control = arms[0].name
    rows: list[dict[str, object]] = []
    for number in range(design.num_replications):
        readout = run_once(crowd, arms, shares, design, number)
        if not readout.is_sound:
            rows += [{"replication": number, "arm": arm.name} for arm in arms[1:]]
        for one in (*readout.overall, *readout.by_group):
            base, own = (true[name, one.scope, one.group_id] for name in (control, one.arm))
            where: dict[str, object] = {
                "replication": number,
                "arm": one.arm,
                "scope": one.scope,
                "group_id": one.group_id,
            }
            rows.append(where | vars(one.found) | {"true_difference": own - base, "true_lift": own / base - 1})
        progress()
    return pd.DataFrame(rows, columns=[*_WHERE, *_FIGURES]).astype(dict.fromkeys(_FIGURES, float))


def replicate_same(
    crowd: Crowd, control: Arm, design: Design, progress: Callable[[], None] = lambda: None
) -> pd.DataFrame:
    """Returns the rows of the control against itself, half the users each."""
    again = replace(control, name=AGAIN)
    return replicate(crowd, [control, again], {control.name: 0.5, AGAIN: 0.5}, design, progress)


def sample_ratio_alarms(
    shares: Mapping[str, float], design: Design, lost_share: float = LOST_SHARE
) -> dict[str, float]:
    """Returns how often the sample-ratio check alarms, where nothing is wrong and where an arm loses users.

    Args:
        shares: planned, by arm, together 1.
        design: of the experiment.
        lost_share: of the last arm's users, whose impressions are not logged.
    """
    alarms = np.zeros(2)
    for number in range(design.num_replications):
        key = design.seed * 1_000_003 + number
        users = np.bincount(assign_arms(design.num_users, shares, key), minlength=len(shares))
        lost = users.copy()
        lost[-1] -= np.random.default_rng((key, 2)).binomial(users[-1], lost_share)
        for place, found in enumerate((users, lost)):
            alarms[place] += sample_ratio_p_value(found.tolist(), list(shares.values())) < MIN_SAMPLE_RATIO_P_VALUE
    sound, broken = alarms / design.num_replications
    return {"lost_share": lost_share, "alarm_share": float(sound), "alarm_share_when_lost": float(broken)}


def judge(part: pd.DataFrame) -> dict[str, float | int | None]:
    """Returns what read-outs of one comparison, or of several alike, are worth over their replications.

    Args:
        part: rows of `replicate`.
    """
    told = part.dropna(subset=["difference_low"])
    covered = (told.difference_low <= told.true_difference) & (told.true_difference <= told.difference_high)
    lift_covered = (told.lift_low <= told.true_lift) & (told.true_lift <= told.lift_high)
    error = told.detectable_difference / (_Z + _Z_POWER)
    away = told.true_difference.abs() / error
    figures = {
        "covered_share": covered.mean(),
        "lift_covered_share": lift_covered.mean(),
        "significant_share": (told.p_value < ALPHA).mean(),
        "expected_significant_share": (ndtr(away - _Z) + ndtr(-away - _Z)).mean() if len(told) else np.nan,
        "true_difference": told.true_difference.mean(),
        "true_lift": told.true_lift.mean(),
        "error_mean": (told.difference - told.true_difference).mean(),
        "width_mean": (told.difference_high - told.difference_low).mean(),
        "detectable_lift_mean": told.detectable_lift.mean(),
    }
    return {
        "num_read_outs": len(part),
        "num_without_interval": len(part) - len(told),
        **{name: float(value) if np.isfinite(value) else None for name, value in figures.items()},
    }
