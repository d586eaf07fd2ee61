"""The file of reference errors: what it is keyed by, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.training.manifest import file_sha256
from osmf_models.training.reference import (
    ReferenceErrors,
    ReferenceKey,
    check_same_reference,
    read_errors,
    verified_pretrained,
    write_errors,
)

CONFIG = load_recipe("tiny")
KEY = ReferenceKey.of(CONFIG, "pretrained", "data")
ERRORS = ReferenceErrors(torch.arange(24.0).reshape(3, 4, 2), torch.ones(5, 2))


@pytest.fixture
def path(tmp_path):
    write_errors(KEY.path(tmp_path), KEY, ERRORS)
    return KEY.path(tmp_path)


@pytest.mark.parametrize(
    "override",
    [
        "dpo.training.seed=1",
        "dpo.training.batch_size=8",
        "dpo.error_space=velocity",
        "dpo.time_power=1.0",
        "dpo.pair_groups=null",
        "dpo.is_group_balanced=true",
        "dpo.contrast_weight=1.0",
        "dpo.num_evaluation_pairs=5",
        "dpo.num_evaluation_draws=3",
        'data.held_out_groups=["g"]',
        "zero.precision=bf16",
    ],
)
def test_whatever_draws_depend_on_changes_the_file(tmp_path, override):
    other = ReferenceKey.of(apply_overrides(CONFIG, [override]), "pretrained", "data")
    assert other.path(tmp_path) != KEY.path(tmp_path)


def test_other_models_and_other_data_have_other_files(tmp_path):
    others = [ReferenceKey.of(CONFIG, "another", "data"), ReferenceKey.of(CONFIG, "pretrained", "another")]
    assert len({key.path(tmp_path) for key in (KEY, *others)}) == 3


@pytest.mark.parametrize("override", ["dpo.beta=9", "dpo.anchor_weight=9", "dpo.label=strength", "zero.stage=3"])
def test_ablations_share_the_file(tmp_path, override):
    assert ReferenceKey.of(apply_overrides(CONFIG, [override]), "pretrained", "data") == KEY


def test_file_gives_back_what_was_written_and_serves_a_shorter_run(path):
    found = read_errors(path, KEY, num_steps=3)
    assert torch.equal(found.steps, ERRORS.steps)
    assert torch.equal(found.held_out, ERRORS.held_out)
    assert torch.equal(read_errors(path, KEY, num_steps=2).steps, ERRORS.steps[:2])
    assert read_errors(path, KEY, num_steps=4) is None


def test_ranks_share_the_global_batch_in_order():
    parts = [ERRORS.of_rank(rank, 2) for rank in range(2)]
    assert parts[1][0].tolist() == [[4.0, 5.0], [6.0, 7.0]]  # pairs 2 and 3 of step 0
    assert torch.equal(torch.cat(parts, dim=1), ERRORS.steps)


def test_damaged_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="is damaged"):
        read_errors(path, KEY, 3)


def test_file_of_numbers_that_are_none_is_refused(path):
    write_errors(path, KEY, replace(ERRORS, steps=ERRORS.steps.log()))
    with pytest.raises(ValueError, match="a number is not finite"):
        read_errors(path, KEY, 3)


def test_file_of_another_reference_is_refused(path):
    save_file({"steps": ERRORS.steps, "held_out": ERRORS.held_out}, path, metadata={"key": "another"})
    with pytest.raises(ValueError, match="another reference"):
        read_errors(path, KEY, 3)


def test_resuming_from_another_reference_names_what_differs(tmp_path):
    (tmp_path / "reference.json").write_text(KEY.text)
    check_same_reference(tmp_path, KEY, is_resumed=True)
    other = ReferenceKey.of(apply_overrides(CONFIG, ["dpo.training.seed=1"]), "another", "data")
    with pytest.raises(ValueError, match="started with another pretrained_sha256, seed"):
        check_same_reference(tmp_path, other, is_resumed=True)
    with pytest.raises(ValueError, match=r"reference\.json is missing"):
        check_same_reference(tmp_path / "elsewhere", KEY, is_resumed=True)


@pytest.fixture
def pretrained(tmp_path):
    (tmp_path / "model").mkdir()
    index = tmp_path / "model" / "model_index.json"
    index.write_text("{}")
    record = {"artifacts": {"model/model_index.json": file_sha256(index)}, "artifact_sha256": "whole"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    return tmp_path


def test_pretrained_model_is_the_one_that_its_run_names(pretrained):
    assert verified_pretrained(pretrained) == "whole"
    (pretrained / "model" / "model_index.json").write_text("[]")
    with pytest.raises(ValueError, match=r"is not the file that .*run\.json names"):
        verified_pretrained(pretrained)


def test_unfinished_and_missing_pretraining_are_refused(pretrained, tmp_path_factory):
    (pretrained / "run.json").unlink()
    with pytest.raises(ValueError, match="its pretraining has not finished"):
        verified_pretrained(pretrained)
    with pytest.raises(ValueError, match="holds no pretrained model"):
        verified_pretrained(tmp_path_factory.mktemp("empty"))
