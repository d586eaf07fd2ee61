"""The pictures of an evaluation in a table, by hand: what fits, in which order, and how large."""

from __future__ import annotations

import io
import math
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from osmf_models.evaluation.gallery import GALLERY_COLUMNS, read_gallery, write_gallery
from osmf_models.evaluation.report import ShownPicture
from osmf_models.evaluation.simulated_ctr import EvaluationSet, FoundGroup


def evaluation_of(num_groups: dict[str, int]) -> tuple[SimpleNamespace, EvaluationSet]:
    """Two products of each scope, the titles hostile or missing."""
    groups = tuple(
        FoundGroup(f"{scope}{n}", scope, "words", {}) for scope, count in num_groups.items() for n in range(count)
    )
    indices = {scope: [2 * place, 2 * place + 1] for place, scope in enumerate(num_groups)}
    titles = ["../../<b>x</b>", None] * len(num_groups)
    products = pd.DataFrame({"product_id": [f"../p{n}" for n in range(len(titles))], "title": titles})
    return SimpleNamespace(products=products), EvaluationSet(groups, indices, (), "sha", date(2026, 3, 4))


def shown_by(cases: EvaluationSet, arms: tuple[str, ...], side_px: int = 4, rate: float = 0.05) -> dict:
    image = np.full((side_px, side_px, 3), 0.5)
    return {
        (arm, index, group.group_id): ShownPicture(image, rate)
        for arm in arms
        for scope, indices in cases.product_indices.items()
        for index in indices
        for group in cases.groups_of(scope)
    }


def test_rows_come_arm_by_arm_in_the_order_of_the_evaluation(tmp_path: Path) -> None:
    export, cases = evaluation_of({"shoe": 2, "bag": 1})
    shown = shown_by(cases, ("random", "group_dpo"))
    del shown["random", 0, "shoe0"]  # a product without logged pictures
    write_gallery(tmp_path / "gallery.parquet", export, cases, shown)
    table = read_gallery(tmp_path / "gallery.parquet")
    assert tuple(table.columns) == GALLERY_COLUMNS
    own = table[table.arm == "group_dpo"]
    assert list(own.group_id) == ["shoe0", "shoe1", "shoe0", "shoe1", "bag0", "bag0"]
    assert list(own.title) == ["../../<b>x</b>"] * 2 + [""] * 2 + ["../../<b>x</b>", ""]
    assert (table.arm == "random").sum() == 5
    assert set(table.true_ctr_rate) == {0.05}
    with Image.open(io.BytesIO(table.image_png[0])) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((4, 4), (128, 128, 128))
    assert [path.name for path in tmp_path.iterdir()] == ["gallery.parquet"]


def test_whole_scopes_are_written_until_a_hundred_cases(tmp_path: Path) -> None:
    export, cases = evaluation_of({"shoe": 30, "bag": 20, "hat": 1})
    write_gallery(tmp_path / "g", export, cases, shown_by(cases, ("a",), side_px=2))
    assert read_gallery(tmp_path / "g").groupby("scope").size().to_dict() == {"shoe": 60, "bag": 40}
    export, cases = evaluation_of({"shoe": 80})
    write_gallery(tmp_path / "g", export, cases, shown_by(cases, ("a",), side_px=2))
    assert len(read_gallery(tmp_path / "g")) == 100


def test_large_pictures_are_made_smaller_and_no_truth_is_no_rate(tmp_path: Path) -> None:
    export, cases = evaluation_of({"shoe": 1})
    write_gallery(tmp_path / "g", export, cases, shown_by(cases, ("a",), side_px=512, rate=math.nan))
    table = read_gallery(tmp_path / "g")
    assert table.true_ctr_rate.isna().all()
    with Image.open(io.BytesIO(table.image_png[0])) as picture:
        assert picture.size == (192, 192)


def test_a_gallery_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no gallery"):
        read_gallery(tmp_path / "gallery.parquet")
    (tmp_path / "broken").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="holds no gallery"):
        read_gallery(tmp_path / "broken")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other")
    with pytest.raises(ValueError, match="has columns"):
        read_gallery(tmp_path / "other")
