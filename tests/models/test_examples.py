"""How often each example of pretraining is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from osmf_models.data.examples import examples_of_split


def shares(examples):
    return examples.groupby(["group_index", "product_index"]).sampling_weight


def test_every_group_and_product_is_drawn_as_often(export):
    for sharpness in (0.0, 1.0, 6.0):
        np.testing.assert_allclose(shares(examples_of_split(export, sharpness, "train")).sum(), 1.0)


def test_a_creative_is_drawn_by_its_rate_to_the_power_of_the_sharpness(export):
    two = export.examples.groupby(["group_index", "product_index"]).head(2)
    two = two[two.split == "train"].head(2).assign(log_rate_lift=[np.log(2) / 2, -np.log(2) / 2])
    weights = examples_of_split(replace(export, examples=two), 3.0, "train").sampling_weight
    assert weights.tolist() == pytest.approx([8 / 9, 1 / 9])
    assert examples_of_split(replace(export, examples=two), 0.0, "train").sampling_weight.tolist() == [0.5, 0.5]


def test_only_the_split_is_drawn_and_an_empty_one_is_refused(export):
    assert set(examples_of_split(export, 1.0, "train").split) == {"train"}
    assert set(examples_of_split(export, 1.0, "validation", "test").split) == {"validation", "test"}
    without = replace(export, examples=export.examples[export.examples.split != "train"])
    with pytest.raises(ValueError, match="no generation examples of split train"):
        examples_of_split(without, 1.0, "train")
