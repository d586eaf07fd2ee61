"""The grid of an evaluation where products have no logged pictures."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image

from osmf_models.evaluation.report import ShownPicture, grid_rows
from osmf_models.evaluation.simulated_ctr import EvaluationSet, FoundGroup
from osmf_models.evaluation.summary import JUDGEMENT_COLUMNS
from osmf_models.stages.evaluate import draw_pictures

RED, BLUE, GREEN = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)
TITLES = ["first shoe", "second shoe", "only bag"]
COLORS = (RED, BLUE, GREEN)
ARMS = ("random", "group_dpo", "oracle")
LOGGED = (1,)  # the first shoe and the bag have no logged pictures


def evaluation() -> tuple[EvaluationSet, dict[tuple[str, int, str], ShownPicture]]:
    groups = tuple(FoundGroup(f"{scope}{n}", scope, "words", {}) for scope in ("shoe", "bag") for n in range(2))
    cases = EvaluationSet(groups, {"shoe": [0, 1], "bag": [2]}, (), "sha", date(2026, 3, 4))
    shown = {
        (arm, index, group.group_id): ShownPicture(np.full((4, 4, 3), COLORS[index]), 0.05)
        for arm in ARMS
        for scope, indices in cases.product_indices.items()
        for index in indices
        for group in cases.groups_of(scope)
        if arm != "random" or index in LOGGED
    }
    return cases, shown


def share_of(color: tuple[float, ...], pixels: np.ndarray) -> float:
    return float((pixels == np.round(255 * np.asarray(color))).all(-1).mean())


def test_a_product_of_which_every_arm_has_pictures_is_taken_if_there_is_one() -> None:
    cases, shown = evaluation()
    rows = grid_rows(TITLES, cases, shown, list(ARMS))
    assert [row.title for row in rows] == ["second shoe", "only bag"]
    assert [len(row.pictures) for row in rows] == [6, 4]
    assert [row.title for row in grid_rows(TITLES, cases, shown, ["group_dpo", "oracle"])] == ["first shoe", "only bag"]


def test_a_cell_without_a_picture_stays_white(tmp_path: Path) -> None:
    cases, shown = evaluation()
    rows = [
        (arm, next(group.scope for group in cases.groups if group.group_id == group_id), group_id, index, 1, 0.05, 1, 0)
        for arm, index, group_id in shown
    ]
    judgements = pd.DataFrame(rows, columns=list(JUDGEMENT_COLUMNS))
    export = SimpleNamespace(products=pd.DataFrame({"title": TITLES}))
    draw_pictures(tmp_path, export, cases, judgements, shown, ["group_dpo"])
    with Image.open(tmp_path / "grid.png") as picture:
        random, *others = np.array_split(np.asarray(picture.convert("RGB")), len(ARMS), axis=1)
    assert (share_of(RED, random), share_of(GREEN, random)) == (0, 0)
    assert share_of(BLUE, random) > 0.1
    lower = random[len(random) // 2 + 20 :]
    assert (lower == 255).all()
    for other in others:
        assert share_of(RED, other) == 0
        assert min(share_of(BLUE, other), share_of(GREEN, other)) > 0.1
    assert (tmp_path / "lifts.png").exists()
