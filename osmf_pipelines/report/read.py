"""What the files of a day tell: trainings, the evaluation, an ablation, the registry's trail.

What cannot be read is told on the page, with the reason, in place of its section. Tables of the lake are read by the
asset.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from osmf_models.evaluation.evaluation_record import RECORDS_NAME, EvaluationRecord, read_records
from osmf_models.evaluation.gallery import GALLERY_NAME, read_gallery
from osmf_models.evaluation.lift_claims import group_lifts
from osmf_models.evaluation.resampling import GroupMeans, RunKey, resampled_group_means
from osmf_models.records import RUN_RECORD_NAME
from osmf_pipelines.bench.ablation_report import FORMAT as ABLATION_FORMAT
from osmf_pipelines.bench.ablation_report import table_of
from osmf_pipelines.promotion.audit import Entry
from osmf_pipelines.report.facts import (
    ONE_SIZE,
    OWN,
    START,
    AblationFacts,
    EvaluationFacts,
    GroupLiftFacts,
    ImplicitRewardFacts,
    Missing,
    TrainingLog,
    VerdictFacts,
)
from osmf_pipelines.report.inline_pictures import with_pictures

_CURVES_NAME = "metrics.jsonl"
_REPORT_NAME = "report.json"
_FIRST_ARMS = ("random", "best_single", START, ONE_SIZE)
_LAST_ARMS = (OWN, "oracle")
_RUN = RunKey("evaluation", 0)
_Facts = TypeVar("_Facts")


def unless_broken(read: Callable[[], _Facts], what: str) -> _Facts | Missing:
    """Returns what `read` returns, or that and why it cannot be read; the reason is shown in the section's place."""
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Missing(f"{what} cannot be read: {error}")


def read_training(folders: Mapping[str, Path]) -> Sequence[TrainingLog] | Missing:
    """Returns the curves of trainings, by model; those without a file of curves are left out."""
    logs = [
        TrainingLog(model, _finite_lines(folder / _CURVES_NAME))
        for model, folder in folders.items()
        if (folder / _CURVES_NAME).is_file()
    ]
    return logs or Missing("No model of this day has been trained: run the job train_and_evaluate.")


def read_evaluation(folder: Path) -> EvaluationFacts:
    """Returns how models were judged, from the output of stage evaluate.

    Raises:
        OSError, ValueError, KeyError: when a file is missing or broken.
    """
    record = json.loads((folder / RUN_RECORD_NAME).read_text())
    metrics = record["metrics"]
    records = read_records(folder / RECORDS_NAME)
    cases = [case for one in records.values() for case in one.cases]
    is_truth_known = any(case.true_ctr_rate is not None for case in cases)
    figure = "mean_ctr" if is_truth_known else "predicted_log_lift"
    known = [name.split("/")[0] for name in metrics if name.endswith(f"/{figure}") and "_minus_" not in name]
    between = [arm for arm in known if arm not in (*_FIRST_ARMS, *_LAST_ARMS)]
    return EvaluationFacts(
        is_truth_known=is_truth_known,
        num_products=len({case.product_id for case in cases}),
        metrics=metrics,
        arms=[arm for arm in (*_FIRST_ARMS, *between, *_LAST_ARMS) if arm in known],
        lifts=lifts_of(records, "true_ctr_rate" if is_truth_known else "predicted_log_lift"),
        predicted={
            (arm, case.group_id, case.product_id): case.predicted_log_lift
            for arm, one in records.items()
            for case in one.cases
            if case.predicted_log_lift is not None
        },
        gallery=unless_broken(lambda: with_pictures(read_gallery(folder / GALLERY_NAME)), "The gallery"),
        implicit_rewards=unless_broken(lambda: read_implicit_rewards(folder / _REPORT_NAME), "What pairs say"),
        mlflow_run_id=record.get("mlflow_run_id"),
    )


def read_implicit_rewards(path: Path) -> dict[str, ImplicitRewardFacts | None]:
    """Returns what pairs say of each model, from the report of stage evaluate.

    Raises:
        OSError, ValueError: when the file is missing or broken, or says nothing of pairs.
    """
    report: dict[str, Any] = json.loads(path.read_text())
    if "implicit_reward" not in report:
        raise ValueError(f"{path} says nothing of held-out pairs: materialise the asset evaluation_report again.")
    return {arm: None if one is None else _implicit_reward(one) for arm, one in report["implicit_reward"].items()}


def _implicit_reward(told: dict[str, Any]) -> ImplicitRewardFacts:
    bins = [(one["mean_claimed"], one["mean_right"], one["num_pairs"]) for one in told["calibration"]]
    return ImplicitRewardFacts({name: value for name, value in told.items() if name != "calibration"}, bins)


def lifts_of(records: Mapping[str, EvaluationRecord], figure: str) -> dict[str, Sequence[GroupLiftFacts]]:
    """Returns what Group-DPO adds in each group over the arms that it was judged beside, by arm.

    Args:
        records: by arm.
        figure: field of a case; products without it are left out.
    """
    arms = [arm for arm in (OWN, ONE_SIZE, START, "champion") if arm in records]
    if OWN not in arms or len(arms) == 1:
        return {}
    rows = [
        (arm, case.scope, case.group_id, case.product_id, getattr(case, figure))
        for arm in arms
        for case in records[arm].cases
    ]
    frame = pd.DataFrame(rows, columns=["arm", "scope", "group_id", "product_id", figure]).dropna(subset=[figure])
    if frame.empty:
        return {}
    means = resampled_group_means(frame, _RUN.market, figure)
    return {arm: _lifts_over(means, arm) for arm in arms[1:]}


def _lifts_over(means: GroupMeans, other: str) -> list[GroupLiftFacts]:
    own, others = means.values[OWN][0], means.values[other][0]
    return [
        GroupLiftFacts(
            scope=one.scope,
            group_id=one.group_id,
            own=float(own[place]),
            other=float(others[place]),
            value=one.lift.value,
            low=one.lift.low,
            high=one.lift.high,
            is_lifted=one.is_lifted,
            is_lowered=one.is_lowered,
        )
        for place, one in enumerate(group_lifts({_RUN: means}, OWN, other))  # in the order of the means
    ]


def read_ablation(path: Path) -> AblationFacts | Missing:
    """Returns what the report of `osmf ablate` says.

    Raises:
        OSError, ValueError, KeyError: when the file is of another format, or broken.
    """
    if not path.is_file():
        return Missing("No ablation has been run here: `osmf ablate` turns the switches of Group-DPO one by one.")
    report: dict[str, Any] = json.loads(path.read_text())
    if report["format"] != ABLATION_FORMAT:
        raise ValueError(f"{path} is of format {report['format']!r}, this version reads {ABLATION_FORMAT!r}.")
    settings, (header, rows) = report["settings"], table_of(report)
    markets = [f"{one['market']} as of {one.get('day', 'an unknown day')}" for one in settings["markets"]]
    seeds = ", ".join(map(str, settings["seeds"]))
    return AblationFacts(settings["recipe"], seeds, ", ".join(markets), header, rows)


def verdict_of(registered: Mapping[str, Any], trail: Sequence[Entry]) -> VerdictFacts:
    """Returns what became of a version when it was registered.

    Args:
        registered: row of the table `registered_model`.
        trail: of that model, oldest first.
    """
    version = int(registered["model_version"])
    told = VerdictFacts(str(registered["model_name"]), version, str(registered["alias"]))
    own = [one for one in trail if one.version == version and one.action == "register" and one.state != "intended"]
    if not own:
        return told
    grounds = own[-1].grounds or {}
    figures = {name: float(value) for name, value in grounds.get("figures", {}).items()}
    before = own[-1].before.champion
    return VerdictFacts(told.model_name, version, told.alias, own[-1].reasons, figures, before)


def calibration_of(rows: Sequence[Mapping[str, Any]]) -> tuple[float | None, list[tuple[float, float, int]]]:
    """Returns the share of wrong pairs by the truth, and (claimed, right, comparisons) by bin, over all scopes.

    Args:
        rows: of the table `truth_report`, of one day.
    """
    wrong = _pooled([row for row in rows if row["measure"] == "wrong_share"])
    bins = []
    for start in sorted({row["probability_from"] for row in rows} - {None}):
        own = [row for row in rows if row["probability_from"] == start]
        claimed, right = (
            _pooled([row for row in own if row["measure"] == name]) for name in ("claimed_right_share", "right_share")
        )
        if claimed and right:
            bins.append((claimed[0], right[0], right[1]))
    return (wrong[0] if wrong else None), bins


def _pooled(rows: Sequence[Mapping[str, Any]]) -> tuple[float, int] | None:
    """The mean over the cases behind it, and their number."""
    total = sum(row["num_cases"] for row in rows)
    return (sum(row["value"] * row["num_cases"] for row in rows) / total, total) if total else None


def _finite_lines(path: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if math.isfinite(value)} for line in lines]
