"""A page's facts, small enough to check by hand: two groups of shoes, two products, pictures of one colour."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
from PIL import Image

from osmf_models.evaluation.gallery import GALLERY_COLUMNS
from osmf_pipelines.report.facts import (
    EvaluationFacts,
    GroupFacts,
    GroupLiftFacts,
    ImplicitRewardFacts,
    MarketFacts,
    Missing,
    PairFacts,
    ReportFacts,
    ScopeFacts,
    ScopePairs,
    TrainingLog,
    VerdictFacts,
)
from osmf_pipelines.report.inline_pictures import with_pictures

RATES = {"pretrained": 0.03, "global_dpo": 0.04, "group_dpo": 0.05, "oracle": 0.09, "random": 0.02}


def png(color: tuple[int, int, int] = (200, 120, 40), side_px: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side_px, side_px), color).save(buffer, "PNG")
    return buffer.getvalue()


def gallery(
    title: str = "red shoe", scope: str = "shoe", description: str = "mostly young; prefers red"
) -> pd.DataFrame:
    rows = [
        (arm, scope, product, title, group, description, rate, png())
        for arm, rate in RATES.items()
        for product in ("p1", "p2")
        for group in ("g1", "g2")
    ]
    return with_pictures(pd.DataFrame(rows, columns=list(GALLERY_COLUMNS)))


def evaluation() -> EvaluationFacts:
    metrics = {f"{arm}/mean_ctr": rate for arm, rate in RATES.items()}
    for arm in RATES:
        metrics |= {f"{arm}/worst_group_ctr": 0.01, f"{arm}/picture_quality": 0.9, f"{arm}/share_of_headroom": 0.5}
    pair = "group_dpo_minus_global_dpo"
    metrics |= {f"{pair}/mean_ctr": 0.0123, f"{pair}/ctr_low": -0.0012, f"{pair}/ctr_high": 0.0234}
    lifts = [
        GroupLiftFacts("shoe", "g1", 0.05, 0.04, 0.01, 0.005, 0.015, True, False),
        GroupLiftFacts("shoe", "g2", 0.04, 0.06, -0.02, -0.03, -0.01, False, True),
    ]
    arms = ["random", "pretrained", "global_dpo", "group_dpo", "oracle"]
    return EvaluationFacts(True, 2, metrics, arms, {"global_dpo": lifts}, {}, gallery(), implicit_rewards())


def implicit_rewards() -> dict[str, ImplicitRewardFacts | None]:
    figures = {"pair_accuracy": 0.8, "contradiction_accuracy": 0.9, "shuffled_contradiction_accuracy": 0.45}
    ends = {
        f"{name}{end}": value + by for name, value in figures.items() for end, by in (("_low", -0.1), ("_high", 0.05))
    }
    own = ImplicitRewardFacts({**figures, **ends, "calibration_error": 0.0625}, [(0.6, 0.7, 5), (0.95, 0.9, 4)])
    without_pairs = ImplicitRewardFacts({"num_pairs": 0.0, "num_contradictions": 0.0}, [])
    return {"pretrained": None, "global_dpo": without_pairs, "group_dpo": own}


def sample(name: str = "shoe", words: str = "mostly young; prefers red", rule: str = "age in {18-24}") -> ReportFacts:
    """Returns the facts of a full page.

    Args:
        name: of the category, and title of its products.
        words: that describe the groups.
        rule: who belongs to them.
    """
    groups = [
        GroupFacts(group, name, words, rule, 120, 4000, 100, [("warmth", 3.21), ("texture", -2.5)])
        for group in ("g1", "g2")
    ]
    events = {("impression", "kept"): 1000, ("impression", "quarantined"): 7, ("click", "kept"): 50}
    pairs = PairFacts(0.9, [(0.9, 30, 4), (0.99, 10, 0)], [ScopePairs(name, 40, 4, 0.05)], 0.06, [(0.6, 0.61, 500)])
    logs = [TrainingLog("pretrained", [{"step": step, "train/generation_loss": 1 / step} for step in (1, 2, 4)])]
    judged = evaluation()
    shown = gallery(title=name, scope=name, description=words)
    return ReportFacts(
        as_of_date="2026-03-04",
        market=MarketFacts("2026-03-02", "2026-03-04", events, [ScopeFacts(name, 2, 8, 240, 8000, 200, 2)]),
        groups=groups,
        pairs=pairs,
        training=logs,
        evaluation=replace(judged, gallery=shown),
        ablation=Missing("No ablation has been run here."),
        verdict=VerdictFacts(name, 3, "none", (words,), {"picture_quality": 0.61}, 2),
    )
