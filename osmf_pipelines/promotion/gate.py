"""The gate before an alias: two evaluation records in, a verdict with its reasons out. Pure.

Where a simulator tells the truth, true click rates are compared and picture quality has a floor. Without one, predicted
lifts are compared, and held-out pairs and the product's own pixels have floors. A challenger passes when nothing speaks
against it: it may not be below the champion by more than chance explains, overall or in the worst group. Making any of
its figures worse never turns a refusal into a pass. Moving aliases belongs in `promote.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from osmf_models.evaluation.evaluation_record import EvaluationRecord, JudgedPairs
from osmf_pipelines.promotion.comparison import Case, compare, is_complete, wilson_interval

Figure = Literal["true_ctr_rate", "predicted_log_lift"]
_FIGURES = ("true_ctr_rate", "picture_quality", "predicted_log_lift", "product_fidelity")
_COIN = 0.5
_SHOWN_CHARS = 12
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Floors:
    """What a model must reach by itself.

    Attributes:
        picture_quality: mean over the cases, where there is a truth.
        product_fidelity: mean over the cases.
    """

    picture_quality: float = 0.8
    product_fidelity: float = 0.99


@dataclass(frozen=True)
class GateVerdict:
    """What the gate says of a challenger.

    Attributes:
        reasons: what speaks against it; it has passed where nothing does.
        figures: what was looked at, by name.
        is_truth_known: true click rates were judged: else passing makes a challenger and no champion.
    """

    reasons: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    is_truth_known: bool = False

    @property
    def is_passed(self) -> bool:
        """Whether nothing speaks against the challenger."""
        return not self.reasons


def judge_promotion(
    challenger: EvaluationRecord, champion: EvaluationRecord | None, *, found_sha256: str, floors: Floors
) -> GateVerdict:
    """Returns whether a challenger may have an alias, and why not.

    Args:
        challenger: what was evaluated.
        champion: the record of the model that it would replace; None where there is none.
        found_sha256: hash over the challenger's registered files as they are now.
        floors: what any model must reach.
    """
    is_truth_known = any(case.true_ctr_rate is not None for case in challenger.cases)
    reasons = [*_changed(challenger, found_sha256), *_unsound(challenger, "challenger", is_truth_known=is_truth_known)]
    if champion is not None:
        reasons += _not_comparable(challenger, champion)
        reasons += _unsound(champion, "champion", is_truth_known=is_truth_known)
    if reasons:
        return GateVerdict(tuple(reasons), {}, is_truth_known)
    figures: dict[str, float] = {}
    reasons += _below_floors(challenger, floors, figures, is_truth_known=is_truth_known)
    if champion is not None:
        figure: Figure = "true_ctr_rate" if is_truth_known else "predicted_log_lift"
        reasons += _below_champion(_values(challenger, figure), _values(champion, figure), figure, figures)
    return GateVerdict(tuple(reasons), figures, is_truth_known)


def _changed(challenger: EvaluationRecord, found_sha256: str) -> list[str]:
    if challenger.artifact_sha256 == found_sha256:
        return []
    evaluated, found = challenger.artifact_sha256[:_SHOWN_CHARS], found_sha256[:_SHOWN_CHARS]
    return [f"its files are not the ones that were evaluated (sha256 {evaluated} evaluated, {found} found)"]


def _unsound(record: EvaluationRecord, who: str, *, is_truth_known: bool) -> list[str]:
    """What of a record cannot be judged at all."""
    reasons = [] if record.cases else [f"the {who}'s evaluation holds no case"]
    keys = Counter((case.scope, case.group_id, case.product_id) for case in record.cases)
    if any(count > 1 for count in keys.values()):
        reasons.append(f"the {who}'s evaluation holds a case twice")
    lifted = [(one.scope, one.group_id, one.product_id) for one in record.cases if one.predicted_log_lift is not None]
    if not (is_complete(keys) and is_complete(lifted)):
        reasons.append(f"the {who}'s evaluation lacks products for some groups")
    needed = ("true_ctr_rate", "picture_quality", "product_fidelity") if is_truth_known else ("product_fidelity",)
    for name in _FIGURES:
        values = [getattr(case, name) for case in record.cases]
        num_broken = sum(value is not None and not math.isfinite(value) for value in values)
        if num_broken:
            reasons.append(f"the {who}'s {name} is no finite number in {num_broken} of {len(values)} cases")
        if name in needed and None in values:
            reasons.append(f"the {who}'s {name} is missing in {values.count(None)} of {len(values)} cases")
    num_broken = sum(not (math.isfinite(one.accuracy) and one.num_pairs > 0) for one in record.pairs)
    if num_broken:
        reasons.append(f"the {who}'s pair accuracy is no finite number in {num_broken} of {len(record.pairs)} groups")
    return reasons


def _not_comparable(challenger: EvaluationRecord, champion: EvaluationRecord) -> list[str]:
    if challenger.evaluation_set_sha256 != champion.evaluation_set_sha256:
        ours, theirs = (one.evaluation_set_sha256[:_SHOWN_CHARS] for one in (challenger, champion))
        return [f"it was evaluated on other data than the champion (evaluation set {ours}, champion {theirs})"]
    reasons = []
    if challenger.sampling != champion.sampling:
        reasons.append("its pictures were drawn otherwise than the champion's (sampling differs)")
    if challenger.reward_sha256 != champion.reward_sha256:
        reasons.append("its lifts were predicted by another reward model than the champion's")
    keys = [
        {(case.scope, case.group_id, case.product_id, case.predicted_log_lift is None) for case in one.cases}
        for one in (challenger, champion)
    ]
    if keys[0] != keys[1]:
        reasons.append("its cases are not the champion's")
    return reasons


def _below_floors(
    challenger: EvaluationRecord, floors: Floors, figures: dict[str, float], *, is_truth_known: bool
) -> list[str]:
    reasons = []
    for name, floor in (("picture_quality", floors.picture_quality), ("product_fidelity", floors.product_fidelity)):
        values = [getattr(case, name) for case in challenger.cases]
        if None in values:
            continue  # without a truth nobody knows the quality
        figures[name] = sum(values) / len(values)
        if figures[name] < floor - _ROUNDING:
            reasons.append(f"{name} {figures[name]:.3f} is below the floor {floor:g}")
    if not is_truth_known:
        reasons += _misordered(challenger.pairs, figures)
        if all(case.predicted_log_lift is None for case in challenger.cases):
            reasons.append("neither a truth nor a reward model has judged its pictures: evaluate with --reward")
    return reasons


def _misordered(pairs: tuple[JudgedPairs, ...], figures: dict[str, float]) -> list[str]:
    """Held-out pairs: better than a coin overall, no group worse than one; intervals corrected for their number."""
    if not pairs:
        return ["no held-out pairs were judged"]
    num_pairs = sum(one.num_pairs for one in pairs)
    share = sum(one.accuracy * one.num_pairs for one in pairs) / num_pairs
    low, high = wilson_interval(share, num_pairs)
    worst = min(wilson_interval(one.accuracy, one.num_pairs, 1 - 0.05 / len(pairs))[1] for one in pairs)
    figures |= {"pair_accuracy": share, "pair_accuracy_low": low, "pair_accuracy_high": high}
    figures["worst_group_pair_accuracy_high"] = worst
    reasons = []
    if low <= _COIN:
        reasons.append(f"pair accuracy {share:.3f} ({low:.3f} to {high:.3f}) is not above a coin's")
    if worst < _COIN:
        reasons.append(f"in the worst group pair accuracy is below a coin's (at most {worst:.3f})")
    return reasons


def _values(record: EvaluationRecord, figure: Figure) -> dict[Case, float]:
    cases = {(case.scope, case.group_id, case.product_id): getattr(case, figure) for case in record.cases}
    return {case: float(value) for case, value in cases.items() if value is not None}


def _below_champion(
    challenger: dict[Case, float], champion: dict[Case, float], figure: Figure, figures: dict[str, float]
) -> list[str]:
    if not challenger:
        return []  # told by the floors
    compared = compare(challenger, champion)
    reasons = []
    for where, difference in (("overall", compared.overall), ("worst_group", compared.worst_group)):
        name = f"{figure}_minus_champion/{where}"
        figures |= {name: difference.value, f"{name}_low": difference.low, f"{name}_high": difference.high}
        if difference.high < -_ROUNDING:
            told = f"{difference.value:+.5f} ({difference.low:+.5f} to {difference.high:+.5f})"
            reasons.append(f"it is below the champion {where.replace('_', ' ')}: {figure} {told}")
    return reasons
