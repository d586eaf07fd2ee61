"""From what `osmf ablate` judged to its JSON report and its table.

Running the arms belongs in `run_ablation.py`, the figures in `ablation_figures.py`, plots in `ablation_plots.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from osmf_models.evaluation.contradictions import resampled_accuracy
from osmf_models.evaluation.lift_claims import GroupLift, LiftClaims, group_lifts
from osmf_models.evaluation.resampling import Estimate, over_runs
from osmf_pipelines.bench.ablation_figures import FIGURES, JudgedArm, JudgedMarket, Resampled
from osmf_pipelines.bench.ablation_plan import PRETRAINED

FORMAT = "osmf-ablation/2"
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
    "kernel_distance": ("distance", "{:.2f}"),
    "lift_over_pretrained": ("over pretrained", "{:+.2%}"),
    "groups_lifted_share": ("groups lifted", "{:.0%}"),
    "groups_lowered_share": ("lowered", "{:.0%}"),
    "contradiction_accuracy": ("contradictions", "{:.2f}"),
    "lift_over_recipe": ("over recipe", "{:+.2%}"),
    "agreeing_scopes_lift_over_global": ("over global where tastes agree", "{:+.2%}"),
}
_HELD_OUT_TABLE = {
    "unseen_groups_lift_over_pretrained": ("unseen groups over pretrained", "{:+.2%}"),
    "unseen_groups_lift_over_global": ("unseen groups over global", "{:+.2%}"),
    "unseen_scope_lift_over_pretrained": ("unseen category over pretrained", "{:+.2%}"),
    "unseen_scope_lift_over_global": ("unseen category over global", "{:+.2%}"),
}


def summarise(
    judged: Sequence[JudgedArm],
    markets: Mapping[str, JudgedMarket],
    changes: Mapping[str, dict[str, Any]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Returns the report.

    Args:
        judged: every arm of every run; pretrained and the recipe are among them.
        markets: what each has apart from trainings.
        changes: of each arm, in the order shown.
        settings: what was run.
    """
    resampled = Resampled.of(judged, markets)
    lifts = {arm: group_lifts(resampled.rates, arm, PRETRAINED) for arm in changes if arm != PRETRAINED}
    others = [arm for arm in dict.fromkeys(next(iter(markets.values())).judgements.arm) if arm not in changes]
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
    resampled: Resampled,
    lifts: list[GroupLift] | None,
    judged: Sequence[JudgedArm],
) -> dict[str, Any]:
    figures = resampled.figures(arm)
    accuracy = _contradiction_accuracy(judged)
    row: dict[str, Any] = {"arm": arm, "changes": changes, "num_runs": len(judged)}
    row["num_groups"] = len({(run.market, group) for run, one in resampled.rates.items() for group in one.group_ids})
    for name in FIGURES:
        estimate = Estimate.of(figures[name]) if name in figures else None
        estimate = accuracy if name == "contradiction_accuracy" else estimate
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
    held_out = {key: one for key, one in _HELD_OUT_TABLE.items() if any(arm[key] is not None for arm in report["arms"])}
    columns, rows = {**_TABLE, **held_out}, []
    for arm in report["arms"]:
        changes = ", ".join(f"{name}={value}" for name, value in arm["changes"].items())
        cells = [_cell(arm, name, form) for name, (_, form) in columns.items()]
        rows.append([arm["arm"].replace("_", " "), changes, *cells])
    return ["arm", "changes", *(title for title, _ in columns.values())], rows


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
