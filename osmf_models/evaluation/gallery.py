"""The single pictures that an evaluation judged, in one table beside its figures, for a page to lay out.

Ids and titles are cells of the table and never names of files. The grid as one picture belongs in `report.py`, a page
in `osmf_pipelines/report/`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

if TYPE_CHECKING:
    from osmf_models.data.dataset import TrainingExport
    from osmf_models.evaluation.report import ShownPicture
    from osmf_models.evaluation.simulated_ctr import EvaluationSet

GALLERY_NAME = "gallery.parquet"
GALLERY_COLUMNS = ("arm", "scope", "product_id", "title", "group_id", "description", "true_ctr_rate", "image_png")
_MAX_CASES = 100
_MAX_SIDE_PX = 192


def write_gallery(
    path: Path, export: TrainingExport, cases: EvaluationSet, shown: Mapping[tuple[str, int, str], ShownPicture]
) -> None:
    """Writes the table, scope by scope, products and groups in the order of the evaluation.

    Whole scopes are written until 100 cases (product, group) are there, the first scope in any case, and at most 100 of
    it. Pictures larger than 192 px are made smaller.

    Args:
        path: file to write.
        export: holds the products' titles.
        cases: what was judged.
        shown: the first picture of each (arm, product row, group), as `judge_arms` returns them.
    """
    keys = [
        (scope, index, group)
        for scope, indices in _scopes_that_fit(cases).items()
        for index in indices
        for group in cases.groups_of(scope)
    ][:_MAX_CASES]
    arms = list(dict.fromkeys(arm for arm, _, _ in shown))
    rows = []
    for arm in arms:
        for scope, index, group in keys:
            picture = shown.get((arm, index, group.group_id))
            if picture is None:
                continue  # a product without logged pictures
            rate = None if math.isnan(picture.true_ctr_rate) else picture.true_ctr_rate
            product_id, title = (str(export.products[name][index] or "") for name in ("product_id", "title"))
            named = (arm, scope, product_id, title, group.group_id, group.description)
            rows.append((*named, rate, _png(picture.image)))
    frame = pd.DataFrame(rows, columns=list(GALLERY_COLUMNS)).astype({"true_ctr_rate": "float64"})
    frame.to_parquet(path, index=False)


def read_gallery(path: Path) -> pd.DataFrame:
    """Returns the table that `write_gallery` wrote; `true_ctr_rate` is NaN where there is no truth.

    Raises:
        ValueError: when there is none, or it is broken.
    """
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no gallery ({error}): evaluate again.") from error
    if tuple(table.column_names) != GALLERY_COLUMNS:
        raise ValueError(f"{path} has columns {table.column_names}, a gallery {list(GALLERY_COLUMNS)}: evaluate again.")
    return table.to_pandas()


def _scopes_that_fit(cases: EvaluationSet) -> dict[str, list[int]]:
    fitting: dict[str, list[int]] = {}
    left = _MAX_CASES
    for scope, indices in cases.product_indices.items():
        left -= len(indices) * len(cases.groups_of(scope))
        if left < 0 and fitting:
            break
        fitting[scope] = indices
    return fitting


def _png(image: np.ndarray) -> bytes:
    """A picture, (H, W, 3) in [0, 1], as PNG."""
    picture = Image.fromarray(np.round(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8))
    picture.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
