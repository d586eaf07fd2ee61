"""What an evaluation says of one model, case by case, in numbers alone: all that a decision on promotion reads.

A file of records holds every model of one evaluation, so that each can be compared with the others on the same cases.
Deciding belongs in `osmf_pipelines/promotion/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

RECORDS_NAME = "evaluation_records.json"
_FORMAT = "osmf-evaluation-records/1"


@dataclass(frozen=True)
class JudgedCase:
    """The pictures of one product for one group.

    Attributes:
        scope: product category.
        group_id: for whom.
        product_id: product held out of training.
        true_ctr_rate: mean true click rate at position 1; None where there is no truth.
        picture_quality: mean quality, in [0, 1]; None where there is no truth.
        predicted_log_lift: log of the click rate over that of the product's logged pictures, by the group reward model;
            None without one, or where the product has no logged pictures.
        product_fidelity: 1 minus the mean difference from the product's own pixels, in [0, 1]; 1 is untouched.
    """

    scope: str
    group_id: str
    product_id: str
    true_ctr_rate: float | None
    picture_quality: float | None
    predicted_log_lift: float | None
    product_fidelity: float


@dataclass(frozen=True)
class JudgedPairs:
    """How a model orders a group's pairs of held-out products: their number, and the share that is right."""

    group_id: str
    num_pairs: int
    accuracy: float


@dataclass(frozen=True)
class EvaluationRecord:
    """What an evaluation says of one model.

    Attributes:
        artifact_sha256: hash over the model's files as they were judged.
        evaluation_set_sha256: of the cases; figures compare only where it agrees.
        reward_sha256: hash over the reward model that predicted lifts; None without one.
        sampling: how pictures were drawn; figures compare only where it agrees.
        cases: judged pictures, at least one.
        pairs: judged pairs, by group; none where the model was not trained on pairs of these days.
    """

    artifact_sha256: str
    evaluation_set_sha256: str
    reward_sha256: str | None
    sampling: dict[str, float]
    cases: tuple[JudgedCase, ...]
    pairs: tuple[JudgedPairs, ...] = ()


def judged_cases(judgements: pd.DataFrame, lifts: pd.DataFrame | None, arm: str) -> tuple[JudgedCase, ...]:
    """Returns the cases of one arm.

    Args:
        judgements: one row per (arm, product, group) as `summary.py` describes them, and product_fidelity.
        lifts: `predicted_lift.with_log_rates` of them; None without a reward model.
        arm: a model's.
    """
    keys = ["scope", "group_id", "product_id"]
    rows = judgements[judgements.arm == arm]
    has_truth = judgements.true_ctr_rate.notna().any()  # one that is missing among others is broken, and told as NaN
    lift_of: dict[Any, float] = {}
    if lifts is not None:
        lift_of = lifts[lifts.arm == arm].set_index(keys).predicted_log_lift.astype(float).to_dict()
    return tuple(
        JudgedCase(
            scope=str(row["scope"]),
            group_id=str(row["group_id"]),
            product_id=str(row["product_id"]),
            true_ctr_rate=float(row["true_ctr_rate"]) if has_truth else None,
            picture_quality=float(row["picture_quality"]) if has_truth else None,
            predicted_log_lift=lift_of.get((row["scope"], row["group_id"], row["product_id"])),
            product_fidelity=float(row["product_fidelity"]),
        )
        for row in rows.to_dict("records")
    )


def read_judged_pairs(path: Path) -> tuple[JudgedPairs, ...]:
    """Returns what stage `group_dpo` wrote of held-out pairs; none where there is no such file."""
    if not path.is_file():
        return ()
    return tuple(
        JudgedPairs(group_id, int(one["num_pairs"]), float(one["accuracy"]))
        for group_id, one in sorted(json.loads(path.read_text()).items())
    )


def write_records(path: Path, records: Mapping[str, EvaluationRecord]) -> None:
    """Writes the records of the models of one evaluation, by arm."""
    arms = {arm: asdict(record) for arm, record in records.items()}
    path.write_text(json.dumps({"format": _FORMAT, "arms": arms}, indent=1))


def read_records(path: Path) -> dict[str, EvaluationRecord]:
    """Returns the records of a file, by arm.

    Raises:
        ValueError: when the file is missing, of another format, or broken.
    """
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}, this version reads {_FORMAT!r}")
        return {arm: _record(fields) for arm, fields in content["arms"].items()}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no evaluation records ({error}): evaluate again.") from error


def _record(fields: dict[str, Any]) -> EvaluationRecord:
    cases = tuple(JudgedCase(**case) for case in fields.pop("cases"))
    pairs = tuple(JudgedPairs(**one) for one in fields.pop("pairs"))
    return EvaluationRecord(**fields, cases=cases, pairs=pairs)
