from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export
from osmf_models.evaluation.simulated_ctr import FoundGroup, evaluation_set, found_groups, judge, read_group_cells
from osmf_models.simulator.pictures import creative_pixels
from osmf_models.simulator.truth import true_ctr


@pytest.fixture(scope="module")
def export(folders):
    return load_export(folders["export"], DataConfig())


def test_a_group_is_the_impression_weighted_mean_of_its_cells_segments(market, export):
    cell = "age_band=18-24|city_tier=tier1|device=ios|gender={}|membership=none|price_sensitivity=high"
    rows = [("bag:men", "bag", cell.format("male"), 30), ("bag:men", "bag", cell.format("female"), 10)]
    cells = pd.DataFrame(rows, columns=["group_id", "scope", "cell", "num_impressions"])
    (group,) = found_groups(market, export, cells)
    assert group.segment_weights == {"men": 30.0, "metropolitan_women": 10.0}
    images = creative_pixels(market, "bag-000") / 255.0
    rates, quality = judge(market, group, "bag-000", images, date(2026, 3, 7))
    parts = [true_ctr(market, "bag", name, "bag-000", images) for name in ("men", "metropolitan_women")]
    np.testing.assert_allclose(rates, 0.75 * parts[0] + 0.25 * parts[1])
    assert (quality > 0.98).all()


def test_only_held_out_products_are_judged_test_before_validation(market, export, folders):
    groups = found_groups(market, export, read_group_cells(folders["cells"]))
    one = evaluation_set(market, export, groups, 1)
    three = evaluation_set(market, export, groups, 3)
    ids = {scope: list(export.products.product_id[rows]) for scope, rows in three.product_indices.items()}
    assert ids["lamp"] == ["lamp-005", "lamp-004"]
    assert [len(rows) for rows in one.product_indices.values()] == [1, 1, 1, 1]
    assert one.sha256 != three.sha256 == evaluation_set(market, export, groups, 3).sha256


def test_groups_without_a_held_out_product_are_named(market, export, folders):
    groups = found_groups(market, export, read_group_cells(folders["cells"]))
    export.products.loc[export.products.scope == "mug", "split"] = "train"
    cases = evaluation_set(market, export, groups, 2)
    assert cases.unjudged_group_ids == ("mug:everyone",)
    assert "mug" not in cases.product_indices


def test_what_does_not_fit_is_refused(market, export, tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_group_cells(tmp_path / "none.parquet")
    pd.DataFrame({"group_id": ["g"]}).to_parquet(tmp_path / "short.parquet")
    with pytest.raises(ValueError, match="'scope', 'cell', 'num_impressions'"):
        read_group_cells(tmp_path / "short.parquet")
    strange = pd.DataFrame([("g9", "bag", "x", 1)], columns=["group_id", "scope", "cell", "num_impressions"])
    with pytest.raises(ValueError, match="'g9' has cells and is not in the export"):
        found_groups(market, export, strange)
    with pytest.raises(ValueError, match="nothing to judge"):
        evaluation_set(market, export, (FoundGroup("g", "hat", "", {}),), 1)
