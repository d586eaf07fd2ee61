"""The running average of the weights, under real DeepSpeed engines, against its recursion in numpy."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from training_job import BATCH_SIZE, Averaged, Job, resumed, run

from osmf_models.config import TrainingConfig, ZeroConfig
from osmf_models.training.averages import WeightAverage, decay_at, read_pieces, write_pieces
from osmf_models.training.manifest import verified_origin, write_manifest
from osmf_models.training.masters import Piece

DECAY = 0.3
TRAINING = TrainingConfig(
    num_steps=6,
    batch_size=BATCH_SIZE,
    learning_rate=0.01,
    warmup_steps=2,
    log_every=1,
    checkpoint_every=2,
    ema_decay=DECAY,
)


def recursion(weights: list[list[float]], steps: list[int]) -> np.ndarray:
    """The average behind the weights before the first step, taking in those after each of `steps`, in float64."""
    average = np.array(weights[0])
    for num_before, step in enumerate(steps):
        share = min(DECAY, (1 + num_before) / (10 + num_before))
        average = share * average + (1 - share) * np.array(weights[step + 1])
    return average


def check(averaged: Averaged | None, steps: list[int], precision: str) -> None:
    """Compares the last average with the recursion, and the model inside with it, rounded to its precision."""
    assert averaged is not None
    assert averaged.num_updates == len(steps)
    expected = recursion(averaged.weights, steps)
    np.testing.assert_allclose(averaged.averages[-1], expected, rtol=1e-5, atol=1e-7)
    assert np.abs(expected - averaged.weights[-1]).max() > 1e-4
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert averaged.swapped_in == torch.tensor(averaged.averages[-1]).to(dtype).tolist()
    assert averaged.is_given_back


def test_average_of_one_two_four_eight(monkeypatch):
    """d = 1/10, 2/11, 3/12 and then 0.3 at most: 1.9, then 2/11 of it and 9/11 of 4, then 1/4 of that and 3/4 of 8."""
    monkeypatch.setattr("osmf_models.training.zero.rank", lambda: 0)
    monkeypatch.setattr("osmf_models.training.zero.world_size", lambda: 1)
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = WeightAverage(SimpleNamespace(module=model, optimizer=None), DECAY)
    for value, expected in ((2.0, 1.9), (4.0, 39.8 / 11), (8.0, 9.95 / 11 + 6.0)):
        model.weight.data.fill_(value)
        average.after_update()
        assert float(average.pieces[0].values) == pytest.approx(expected)
    assert [decay_at(count, DECAY) for count in (0, 1, 2, 3, 1000)] == pytest.approx([0.1, 2 / 11, 0.25, 0.3, 0.3])


def test_without_a_decay_nothing_is_kept_and_a_wrong_one_is_refused(tmp_path):
    engine = SimpleNamespace(module=nn.Linear(1, 1))
    off = WeightAverage(engine, 0.0)
    off.after_update()
    off.save(tmp_path)
    assert (off.pieces, off.num_updates, list(tmp_path.iterdir())) == ([], 0, [])
    with pytest.raises(ValueError, match=r"training.ema_decay 1.0 must lie in \[0, 1\)"):
        WeightAverage(engine, 1.0)


def test_pieces_are_read_whatever_the_layout_and_gaps_are_refused(tmp_path):
    """10 values of one parameter in pieces of 4, 5 and 1, read in pieces of 3 and 7."""
    values = torch.arange(10.0)
    for number, (low, high) in enumerate(((0, 4), (4, 9), (9, 10))):
        write_pieces(tmp_path / f"average-{number:04d}.safetensors", [Piece("w", low, values[low:high])], 7)
    parts = [Piece("w", 0, torch.zeros(3)), Piece("w", 3, torch.zeros(7))]
    for part in parts:
        assert read_pieces(tmp_path, [part]) == 7
    assert torch.equal(torch.cat([part.values for part in parts]), values)
    (tmp_path / "average-0001.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks part of the average of w"):
        read_pieces(tmp_path, [parts[1]])
    (tmp_path / "average-0000.safetensors").write_bytes(b"evil")
    with pytest.raises(ValueError, match="is damaged"):
        read_pieces(tmp_path, parts)
    with pytest.raises(ValueError, match=r"trained with training\.ema_decay=0"):
        read_pieces(tmp_path / "none", parts)


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (0, "bf16"), (2, "bf16"), (3, "fp32"), (3, "bf16")])
def test_average_follows_the_recursion_and_skipped_steps_do_not_count(tmp_path, stage, precision):
    """Step 2 of 6 is broken, as far as the engine finds that out."""
    outcome = run(Job(tmp_path, zero=ZeroConfig(stage, precision), config=TRAINING, broken=((2, 0, "loss"),)))
    assert (outcome.exit_codes, outcome.num_skipped_steps) == ([0], [1]), outcome.logs
    check(outcome.averaged, [0, 1, 3, 4, 5], precision)


def test_resumed_average_equals_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole = run(Job(tmp_path / "whole", config=TRAINING))
    job = Job(tmp_path / "killed", config=TRAINING, killed_at=("step", 5, 0))
    assert run(job).exit_codes == [-9]
    again = resumed(job)
    assert again.exit_codes == [0], again.errors
    assert again.averaged.num_updates == 6
    assert again.averaged.averages == whole.averaged.averages[4:]
    changed = resumed(replace(job, config=replace(TRAINING, ema_decay=0.5)))
    assert "of other settings (ema_decay was 0.3, is 0.5)" in changed.errors[0]


def test_checkpoint_that_names_no_decay_had_none(tmp_path):
    job = Job(tmp_path, config=replace(TRAINING, ema_decay=0.0))
    run(job)
    for folder in (tmp_path / "checkpoints").glob("step-*"):
        origin = verified_origin(folder)
        del origin.settings["ema_decay"]
        write_manifest(folder, origin)
    assert resumed(job).exit_codes == [0]
    averaging = resumed(replace(job, config=TRAINING))
    assert "of other settings (ema_decay was 0.0, is 0.3)" in averaging.errors[0]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "fp32"), (3, "bf16")])
def test_two_processes_average_as_one_and_others_go_on_from_them(tmp_path, stage, precision):
    zero = ZeroConfig(stage, precision)
    pair = run(Job(tmp_path / "pair", world_size=2, zero=zero, config=TRAINING))
    assert pair.exit_codes == [0, 0], pair.logs
    check(pair.averaged, list(range(6)), precision)
    alone = run(Job(tmp_path / "alone", zero=zero, config=TRAINING))
    tolerance = 1e-5 if precision == "fp32" else 0.01
    np.testing.assert_allclose(pair.averaged.averages[-1], alone.averaged.averages[-1], atol=tolerance)
    going_on = resumed(Job(tmp_path / "pair", world_size=1, zero=zero, config=TRAINING))
    assert going_on.exit_codes == [0], going_on.logs
    assert going_on.averaged.averages[0] == pair.averaged.averages[4]
    np.testing.assert_allclose(going_on.averaged.averages[-1], pair.averaged.averages[-1], atol=tolerance)
