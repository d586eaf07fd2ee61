"""Whether pictures follow preferences: planted pictures, whose correlation is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export
from osmf_models.evaluation.style import STYLE_COLUMNS, style_correlations
from osmf_models.image_features import FEATURE_NAMES


@pytest.fixture(scope="module")
def export(folders):
    return load_export(folders["export"], DataConfig())


def planted(export, style_of_group):
    """Two products of each scope: a feature of a picture is style_of_group(preferences) and the product's own."""
    columns = [export.manifest.group_feature_names.index(f"preference_z:{name}") for name in FEATURE_NAMES]
    groups, rows = export.groups[~export.groups.is_scope_root], []
    for index, group in groups.iterrows():
        for number in range(2):
            style = style_of_group(export.raw_group_features[index, columns]) + 5.0 * number
            rows.append(("model", group.scope, group.group_id, f"{group.scope}-{number}", *style))
    return pd.DataFrame(rows, columns=["arm", "scope", "group_id", "product_id", *STYLE_COLUMNS])


@pytest.fixture
def varied(export):
    """The export with preferences drawn by chance, so that no two groups are alike."""
    features = np.random.default_rng(0).normal(size=export.raw_group_features.shape)
    return replace(export, raw_group_features=features)


def test_pictures_that_follow_preferences_correlate_and_with_others_preferences_do_not(varied):
    metrics = style_correlations(planted(varied, lambda liked: 0.1 * liked), varied, ["model"])
    for name in FEATURE_NAMES:
        assert metrics[f"model/style_correlation:{name}"] == pytest.approx(1.0)
    assert metrics["model/style_correlation"] == pytest.approx(1.0)
    assert metrics["model/style_correlation_shuffled"] < 0.3


def test_pictures_of_the_opposite_style_have_minus_one(varied):
    metrics = style_correlations(planted(varied, lambda liked: -liked), varied, ["model"])
    assert metrics["model/style_correlation"] == pytest.approx(-1.0)


def test_one_picture_for_all_has_no_correlation(varied):
    metrics = style_correlations(planted(varied, lambda liked: np.zeros(len(liked))), varied, ["model"])
    assert set(metrics.values()) == {0.0}


def test_scopes_of_one_group_tell_nothing(varied):
    judgements = planted(varied, lambda liked: liked)
    single = judgements[judgements.group_id == judgements.groupby("scope").group_id.transform("first")]
    assert style_correlations(single, varied, ["model"]) == {}
