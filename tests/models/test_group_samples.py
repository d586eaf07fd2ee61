"""A picture for each group at each sampled step: what is in it, and what a resumed run keeps."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from osmf_models.stages.group_samples import SampledTraining, write_group_samples
from osmf_models.training import zero


@pytest.mark.parametrize(("num_samplings", "due"), [(1, set()), (2, {5}), (3, {3, 6}), (20, set(range(1, 10)))])
def test_sampled_steps_are_spread_evenly_and_the_end_is_the_stage_s(num_samplings, due, export, tmp_path):
    assert SampledTraining(None, export, num_samplings, 10, tmp_path).due_steps == due


def test_every_group_has_a_picture_of_the_same_product_from_the_same_noise(pipeline, export, tmp_path):
    for step in (3, 6):
        write_group_samples(pipeline, export, tmp_path, step)
    own = export.groups[~export.groups.is_scope_root]
    expected = {f"{scope}/{group_id}.png" for scope, group_id in zip(own.scope, own.group_id, strict=True)}
    first, second = (tmp_path / "samples" / f"step-{step:07d}" for step in (3, 6))
    assert {path.relative_to(first).as_posix() for path in first.glob("*/*.png")} == expected
    for name in expected:
        pictures = [np.asarray(Image.open(folder / name)) for folder in (first, second)]
        assert pictures[0].shape == (128, 128, 3)  # 32 px, four times as large
        np.testing.assert_array_equal(*pictures)


def test_what_a_run_drew_past_its_checkpoint_is_removed(export, tmp_path, monkeypatch):
    monkeypatch.setattr(zero, "rank", lambda: 0)
    folders = [tmp_path / "samples" / f"step-{step:07d}" for step in (2, 4)]
    for folder in folders:
        folder.mkdir(parents=True)
    SampledTraining(None, export, 1, 10, tmp_path).begin(2)
    assert [folder.exists() for folder in folders] == [True, False]
