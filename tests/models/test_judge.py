"""What an implicit reward says of contradictions: nothing, exactly, where the model does not see the group."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict

import pytest
import torch

from osmf_models.config import DpoConfig
from osmf_models.evaluation.contradictions import contradictions
from osmf_models.recipes import load_recipe
from osmf_models.stages.judge import (
    check_reference,
    dpo_of_run,
    held_out_rows,
    implicit_margins,
    judge_contradictions,
)
from osmf_models.training import zero

NULL, OWN = (
    DpoConfig(pair_groups=name, num_evaluation_draws=1, contrast_weight=0.0, beta=200.0) for name in ("null", "own")
)


@pytest.fixture(scope="module", autouse=True)
def _processes():
    with zero.process_group():
        yield


@pytest.fixture
def models(gmllm):
    """A policy that has moved away from its reference, at random."""
    policy = copy.deepcopy(gmllm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy, gmllm


def couples_of(export):
    pairs = held_out_rows(export, OWN)
    couples = contradictions(pairs)
    assert len(couples) >= 2
    return [pairs.iloc[couples[name]].head(3) for name in ("first", "second")]


def test_margins_under_the_null_group_are_each_other_s_negative(models, export):
    first, second = (implicit_margins(models, export, rows, NULL) for rows in couples_of(export))
    assert first.abs().min() > 1e-3
    torch.testing.assert_close(first, -second, rtol=1e-3, atol=1e-4)
    assert (judge_contradictions(models, export, NULL, 3).right_share == 0.5).all()


def test_margins_under_the_own_group_are_not(models, export):
    first, second = (implicit_margins(models, export, rows, OWN) for rows in couples_of(export))
    assert (first + second).abs().max() > 1e-3


def test_a_policy_that_is_its_reference_prefers_nothing(models, export):
    _, reference = models
    judged = judge_contradictions((reference, reference), export, OWN, 1)
    assert judged.right_share.tolist() == [0.5]


def test_held_out_pairs_are_of_unseen_products_and_of_whom_the_run_learns_from(export):
    for dpo in (NULL, OWN):
        rows = held_out_rows(export, dpo)
        assert set(rows.split) == {"test", "validation"}
        assert set(rows.is_scope_root) == {dpo.pair_groups == "null"}
        assert rows.target.between(0.5, 1.0).all()


def test_only_the_run_s_own_reference_is_taken(tmp_path):
    pretrained, run = tmp_path / "pretrained", tmp_path / "run"
    (pretrained / "model").mkdir(parents=True)
    (pretrained / "model" / "model_index.json").write_text("{}")
    (pretrained / "run.json").write_text('{"artifacts": {}, "artifact_sha256": "a"}')
    run.mkdir()
    with pytest.raises(ValueError, match="no run of stage group_dpo"):
        check_reference(run, pretrained)
    (run / "reference.json").write_text('{"pretrained_sha256": "b"}')
    with pytest.raises(ValueError, match="name the pretrained model that it began with"):
        check_reference(run, pretrained)
    (run / "reference.json").write_text('{"pretrained_sha256": "a"}')
    check_reference(run, pretrained)


def test_the_objective_of_a_run_is_read_from_its_record(tmp_path):
    dpo = load_recipe("demo").dpo
    (tmp_path / "run.json").write_text(json.dumps({"config": {"dpo": asdict(dpo)}}))
    assert dpo_of_run(tmp_path) == dpo
