"""What held-out pairs say of an implicit reward: of contradictions nothing where it does not see the group."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from planted_export import write_export

from osmf_models.config import DataConfig, DpoConfig
from osmf_models.data.dataset import load_export
from osmf_models.evaluation.arms import ModelArm
from osmf_models.evaluation.contradictions import contradictions
from osmf_models.evaluation.implicit_reward import (
    AskedPairs,
    ImplicitReward,
    dpo_of_run,
    held_out_rows,
    judge_contradictions,
    judge_reward,
    judge_rewards,
    pair_accuracy,
)
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.recipes import load_recipe
from osmf_models.stages.judge import check_reference
from osmf_models.training import zero

NULL, OWN = (
    DpoConfig(pair_groups=name, num_evaluation_draws=1, contrast_weight=0.0, beta=200.0) for name in ("null", "own")
)
ALL = AskedPairs(10_000, 10_000)


class Known:
    """An implicit reward that gives each pair the margin of `margin_of`, and remembers what it was asked about."""

    def __init__(self, margin_of, dpo=OWN):
        self.margin_of, self.dpo, self.asked = margin_of, dpo, []

    def margins(self, export, pairs):
        self.asked.append(pairs)
        return torch.tensor([self.margin_of(row) for row in pairs.itertuples()], dtype=torch.float64)


def listener(export):
    """Orders pictures as the group that it is told of does."""
    orders = {
        (row.group_index, row.chosen_index, row.rejected_index) for row in held_out_rows(export, OWN).itertuples()
    }

    def margin_of(row):
        order = (row.group_index, row.chosen_index, row.rejected_index)
        flipped = (row.group_index, row.rejected_index, row.chosen_index)
        return float(order in orders) - float(flipped in orders)

    return margin_of


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
    reward = ImplicitReward(*models, NULL)
    first, second = (reward.margins(export, rows) for rows in couples_of(export))
    assert first.abs().min() > 1e-3
    torch.testing.assert_close(first, -second, rtol=1e-3, atol=1e-4)
    judged = judge_contradictions(reward, export, held_out_rows(export, OWN), 3)
    assert (judged.right_share == 0.5).all()
    assert (judged.shuffled_right_share == 0.5).all()


def test_margins_under_the_own_group_are_not(models, export):
    first, second = (ImplicitReward(*models, OWN).margins(export, rows) for rows in couples_of(export))
    assert (first + second).abs().max() > 1e-3


def test_a_policy_that_is_its_reference_prefers_nothing(models, export):
    _, reference = models
    judged = judge_contradictions(ImplicitReward(reference, reference, OWN), export, held_out_rows(export, OWN), 1)
    assert (judged.right_share.tolist(), judged.shuffled_right_share.tolist()) == ([0.5], [0.5])


def test_pair_accuracy_is_a_mean_over_groups():
    """Group 0: one right, one wrong, one tied; group 1: one right. (1/2 + 1) / 2, where pairs alone would say 5/8."""
    pairs = pd.DataFrame({"scope": "s", "product_index": [0, 1, 2, 0], "group_index": [0, 0, 0, 1]})
    metrics = pair_accuracy(pairs, torch.tensor([0.1, -2.0, 0.0, 3.0]))
    assert (metrics["num_pairs"], metrics["pair_accuracy"]) == (4.0, 0.75)
    assert metrics["pair_accuracy_low"] < 0.75 < metrics["pair_accuracy_high"] <= 1.0
    assert pair_accuracy(pairs.head(0), torch.zeros(0)) == {"num_pairs": 0.0}


def test_who_listens_is_right_and_who_confuses_the_groups_is_wrong(export):
    listens = listener(export)
    right = judge_reward(Known(listens), export, ALL).metrics
    wrong = judge_reward(Known(lambda row: -listens(row)), export, ALL).metrics
    for name in ("pair_accuracy", "contradiction_accuracy"):
        assert [right[f"{name}{end}"] for end in ("", "_low", "_high")] == pytest.approx([1.0, 1.0, 1.0])
        assert wrong[name] == 0.0
    assert right["shuffled_contradiction_accuracy"] == pytest.approx(1.0 - wrong["shuffled_contradiction_accuracy"])


def test_told_of_a_shuffled_group_a_listener_is_right_where_the_draw_is(tmp_path):
    write_export(tmp_path, num_products=60)
    export = load_export(tmp_path, DataConfig())
    reward = Known(listener(export))
    judged = judge_contradictions(reward, export, held_out_rows(export, OWN), 10_000)
    first, second, *drawn = reward.asked
    kept = [
        (sides.group_index.to_numpy() == own.group_index.to_numpy()).astype(float)
        for own, sides in zip((first, second), drawn, strict=True)
    ]
    # Each scope has two groups: the one that is not the pair's own has it the other way round.
    np.testing.assert_allclose(judged.shuffled_right_share, (kept[0] + kept[1]) / 2)
    assert all(0.2 < one.mean() < 0.8 for one in kept)
    for sides in drawn:
        assert (export.groups.scope.to_numpy()[sides.group_index] == sides.scope.to_numpy()).all()


@pytest.mark.parametrize("dpo", [OWN, NULL])
def test_who_is_as_sure_as_its_own_label_is_calibrated(export, dpo):
    """Labels are the pairs' that it was trained on; one that is always sure is off by what they lack to 1."""
    sure, labels = Known(lambda row: 50.0, dpo), held_out_rows(export, dpo).target
    fitting = Known(lambda row: float(torch.logit(torch.tensor(row.target, dtype=torch.float64))), dpo)
    assert judge_reward(fitting, export, ALL).metrics["calibration_error"] == pytest.approx(0.0, abs=1e-9)
    judged = judge_reward(sure, export, ALL)
    assert judged.metrics["calibration_error"] == pytest.approx(1.0 - labels.mean())
    assert [one.num_pairs for one in judged.calibration] == [len(labels)]
    assert judged.metrics["num_pairs"] == len(held_out_rows(export, OWN))


def test_no_more_pairs_are_asked_about_than_wanted_and_none_are_told(export):
    reward = Known(lambda row: 1.0)
    metrics = judge_reward(reward, export, AskedPairs(5, 2)).metrics
    assert (metrics["num_pairs"], metrics["num_contradictions"]) == (5.0, 2.0)
    assert [len(rows) for rows in reward.asked] == [5, 2, 2, 2, 2]
    empty = judge_reward(Known(lambda row: 1.0), replace(export, pairs=export.pairs.head(0)), ALL)
    assert empty.told() == {"num_pairs": 0.0, "num_contradictions": 0.0, "calibration": []}


def test_arms_that_began_with_another_arm_are_judged_alike(models, export, tmp_path):
    policy, reference = models
    started = {"group_dpo": "a", "again": "a", "lost": "elsewhere"}
    for name, model in (("pretrained", reference), *((name, policy) for name in started)):
        GroupAdPipeline.of(model).save_pretrained(tmp_path / name / "model", safe_serialization=True)
        (tmp_path / name / "run.json").write_text(json.dumps({"config": {"dpo": asdict(OWN)}}))
    for name, sha256 in started.items():
        (tmp_path / name / "reference.json").write_text(json.dumps({"pretrained_sha256": sha256}))
    hashes = {"pretrained": "a", "group_dpo": "b", "again": "c", "lost": "d"}
    arms = [ModelArm(name, tmp_path / name, False, sha256) for name, sha256 in hashes.items()]
    judged = judge_rewards(arms, export, AskedPairs(4, 2))
    assert (judged["pretrained"], judged["lost"]) == (None, None)
    own = judge_reward(ImplicitReward(policy, reference, OWN), export, AskedPairs(4, 2))
    for name in ("group_dpo", "again"):
        assert judged[name] is not None
        assert judged[name].metrics == pytest.approx(own.metrics)


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
