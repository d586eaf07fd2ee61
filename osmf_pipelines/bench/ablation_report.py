"""From what `osmf ablate` judged to its JSON report and its table.

Running the arms belongs in `run_ablation.py`, plots in `ablation_plots.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from osmf_models.evaluation.contradictions import resampled_accuracy
from osmf_models.evaluation.lift_claims import GroupLift, LiftClaims, group_lifts
from osmf_models.evaluation.resampling import Array, Estimate, GroupMeans, RunKey, over_runs, resampled_group_means
from osmf_pipelines.bench.ablation_plan import PRETRAINED, RECIPE

FORMAT = "osmf-ablation/1"
FIGURES = {
    "mean_ctr": "true click rate at position 1, mean over products inside a group, then over groups",
    "worst_group_ctr": "the same in the group where it is lowest",
    "headroom_share": "0 is the logged pictures at random, 1 the oracle",
    "picture_quality": "the simulator's quality term, in [0, 1]",
    "lift_over_pretrained": "mean_ctr minus the pretrained model's, paired",
    "lift_over_recipe": "mean_ctr minus that of the recipe as it is, paired",
    "worst_group_over_recipe": "worst_group_ctr minus that of the recipe as it is, paired",
    "contradiction_accuracy": "share of held-out contradictions' pairs that the implicit reward orders rightly",
}
ARM_KEYS = {
    "arm": "its name",
    "changes": "settings that differ from the recipe's",
    "num_runs": "trainings: markets times seeds",
    "num_groups": "groups judged, over all markets",
    "groups_lifted_share": "groups whose lift over pretrained has an interval above 0, Holm over all groups",
    "groups_lowered_share": "groups whose lift has an interval below 0, without correction",
    "is_every_group_lifted": "95% of the groups lifted and none lowered",
    "pair_accuracy": "held-out pairs that the implicit reward orders rightly, mean over groups",
    "calibration_error": "mean distance of the implicit reward's probabilities from the label",
    "chosen_error_change": "share by which the error on held-out chosen pictures rose (below 0: fell)",
    "training_seconds": "wall time of a training, mean",
}
_PLAIN = {"pair_accuracy": "pair_accuracy", "calibration_error": "calibration_error"}
_TABLE = {
    "mean_ctr": ("mean CTR", "{:.2%}"),
    "worst_group_ctr": ("worst group", "{:.2%}"),
    "headroom_share": ("head-room", "{:.0%}"),
    "picture_quality": ("quality", "{:.2f}"),
    "lift_over_pretrained": ("over pretrained", "{:+.2%}"),
    "groups_lifted_share": ("groups lifted", "{:.0%}"),
    "groups_lowered_share": ("lowered", "{:.0%}"),
    "contradiction_accuracy": ("contradictions", "{:.2f}"),
    "lift_over_recipe": ("over recipe", "{:+.2%}"),
}


@dataclass(frozen=True)
class JudgedArm:
    """One trained arm of one run, judged.

    Attributes:
        run: market and seed.
        arm: its name.
        judgements: one row per product and group: arm, scope, group_id, product_id, true_ctr_rate, picture_quality.
        contradictions: one row each (scope, product_id, right_share); None without an implicit reward.
        calibration: bins of the implicit reward; none without one.
        figures: metrics of its judgement.
        training: record of its training.
    """

    run: RunKey
    arm: str
    judgements: pd.DataFrame
    contradictions: pd.DataFrame | None
    calibration: Sequence[dict[str, Any]]
    figures: Mapping[str, float]
    training: Mapping[str, Any]


@dataclass(frozen=True)
class _Resampled:
    """Click rates and qualities of every run, products resampled."""

    rates: dict[RunKey, GroupMeans]
    qualities: dict[RunKey, GroupMeans]

    def figures(self, arm: str) -> dict[str, Array]:
        """Returns the figures of an arm that every arm has, (R + 1,) each."""
        by_run: dict[str, dict[RunKey, Array]] = {}
        for run, means in self.rates.items():
            average = {name: values.mean(1) for name, values in means.values.items()}
            worst = {name: values.min(1) for name, values in means.values.items()}
            of_run = {
                "mean_ctr": average[arm],
                "worst_group_ctr": worst[arm],
                "headroom_share": (average[arm] - average["random"]) / (average["oracle"] - average["random"]),
                "picture_quality": self.qualities[run].values[arm].mean(1),
                "lift_over_pretrained": average[arm] - average[PRETRAINED],
                "lift_over_recipe": average[arm] - average[RECIPE],
                "worst_group_over_recipe": worst[arm] - worst[RECIPE],
            }
            for name, values in of_run.items():
                by_run.setdefault(name, {})[run] = values
        return {name: over_runs(values) for name, values in by_run.items()}


def summarise(
    judged: Sequence[JudgedArm],
    baselines: Mapping[str, pd.DataFrame],
    changes: Mapping[str, dict[str, Any]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Returns the report.

    Args:
        judged: every arm of every run; pretrained and the recipe are among them.
        baselines: by market, judgements of the arms that are no model.
        changes: of each arm, in the order shown.
        settings: what was run.
    """
    runs = sorted({one.run for one in judged})
    frames = {
        run: pd.concat([*(one.judgements for one in judged if one.run == run), baselines[run.market]]) for run in runs
    }
    resampled = _Resampled(
        {run: resampled_group_means(frame, run.market, "true_ctr_rate") for run, frame in frames.items()},
        {run: resampled_group_means(frame, run.market, "picture_quality") for run, frame in frames.items()},
    )
    lifts = {arm: group_lifts(resampled.rates, arm, PRETRAINED) for arm in changes if arm != PRETRAINED}
    others = [arm for arm in dict.fromkeys(next(iter(baselines.values())).arm) if arm not in changes]
    arms = [
        _arm_row(arm, changes.get(arm, {}), resampled, lifts.get(arm), [one for one in judged if one.arm == arm])
        for arm in (*changes, *others)
    ]
    return {
        "format": FORMAT,
        "settings": settings,
        "arms": arms,
        "groups": [_group_row(arm, one) for arm, found in lifts.items() for one in found],
        "calibration": [
            {"arm": one.arm, **asdict(one.run), **calibration_bin}
            for one in judged
            for calibration_bin in one.calibration
        ],
    }


def _arm_row(
    arm: str,
    changes: dict[str, Any],
    resampled: _Resampled,
    lifts: list[GroupLift] | None,
    judged: Sequence[JudgedArm],
) -> dict[str, Any]:
    figures = resampled.figures(arm)
    accuracy = _contradiction_accuracy(judged)
    row: dict[str, Any] = {"arm": arm, "changes": changes, "num_runs": len(judged)}
    row["num_groups"] = len({(run.market, group) for run, one in resampled.rates.items() for group in one.group_ids})
    for name in FIGURES:
        estimate = Estimate.of(figures[name]) if name in figures else accuracy
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), _plain(estimate), strict=True))
    claims = asdict(LiftClaims.of(lifts)) if lifts else {}
    for key, name in (("lifted", "lifted_share"), ("lowered", "lowered_share")):
        row[f"groups_{key}_share"] = claims.get(name)
    row["is_every_group_lifted"] = claims.get("is_every_group_lifted")
    row |= {name: _mean([one.figures.get(key) for one in judged]) for name, key in _PLAIN.items()}
    row["chosen_error_change"] = _mean([_chosen_error_change(one.training.get("metrics", {})) for one in judged])
    row["training_seconds"] = _mean([one.training.get("wall_seconds") for one in judged])
    return row


def _contradiction_accuracy(judged: Sequence[JudgedArm]) -> Estimate | None:
    """Returns the accuracy over the runs that have contradictions to judge; None without any."""
    known = {
        one.run: resampled_accuracy(one.contradictions, one.run.market)
        for one in judged
        if one.contradictions is not None and len(one.contradictions)
    }
    return Estimate.of(over_runs(known)) if known else None


def _chosen_error_change(metrics: Mapping[str, float]) -> float | None:
    before, after = (metrics.get(f"validation/chosen_error_{when}") for when in ("before", "after"))
    return None if before is None or after is None else after / before - 1.0


def _group_row(arm: str, one: GroupLift) -> dict[str, Any]:
    value, low, high = _plain(one.lift)
    return {
        "arm": arm,
        "market": one.market,
        "scope": one.scope,
        "group_id": one.group_id,
        "lift": value,
        "lift_low": low,
        "lift_high": high,
        "p_value": one.p_value,
        "holm_p_value": one.holm_p_value,
        "is_lifted": one.is_lifted,
        "is_lowered": one.is_lowered,
    }


def _plain(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def table_of(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of the table that a reader sees; intervals in parentheses."""
    rows = []
    for arm in report["arms"]:
        changes = ", ".join(f"{name}={value}" for name, value in arm["changes"].items())
        cells = [_cell(arm, name, form) for name, (_, form) in _TABLE.items()]
        rows.append([arm["arm"].replace("_", " "), changes, *cells])
    return ["arm", "changes", *(title for title, _ in _TABLE.values())], rows


def _cell(arm: dict[str, Any], name: str, form: str) -> str:
    if arm[name] is None:
        return ""
    told = form.format(arm[name])
    if arm.get(f"{name}_low") is None:
        return told
    return f"{told} ({form.format(arm[f'{name}_low'])} to {form.format(arm[f'{name}_high'])})"


def as_markdown(report: dict[str, Any]) -> str:
    """Returns the table as Markdown, with what was run above it."""
    header, rows = table_of(report)
    settings = report["settings"]
    markets = ", ".join(market["market"] for market in settings["markets"])
    seeds = ", ".join(map(str, settings["seeds"]))
    lines = [
        f"Recipe {settings['recipe']}, markets {markets}, seeds {seeds}; 95% intervals by bootstrap over products, and "
        "over seeds and markets where there are several.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"
