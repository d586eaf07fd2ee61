"""Training that is interrupted, damaged or given broken numbers, as processes, against the run that was left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from training_job import BATCH_SIZE, Job, initial_model, restarted, resumed, run, weights_sha256

from osmf_models.config import TrainingConfig, ZeroConfig
from osmf_models.training.checkpoint import PHASES

EVERY_STEP = TrainingConfig(
    num_steps=6, batch_size=BATCH_SIZE, learning_rate=0.01, warmup_steps=2, log_every=1, checkpoint_every=1
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, left alone; checkpoints after steps 2, 4 and 6 of 8, of which two are kept."""
    outcome = run(Job(tmp_path_factory.mktemp("alone")))
    assert outcome.exit_codes == [0], outcome.logs
    assert len(outcome.losses) == 8
    assert outcome.weights[0] != weights_sha256(initial_model())
    return outcome


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two processes under ZeRO-1, left alone."""
    outcome = run(Job(tmp_path_factory.mktemp("pair"), world_size=2))
    assert outcome.exit_codes == [0, 0], outcome.logs
    assert outcome.weights[0] == outcome.weights[1]
    return outcome


@pytest.mark.parametrize("step", [1, 3, 5])
def test_resume_from_any_step_equals_the_uninterrupted_run(tmp_path, tmp_path_factory, step):
    whole = run(Job(tmp_path_factory.mktemp("whole"), config=EVERY_STEP))
    job = Job(tmp_path, config=EVERY_STEP, killed_at=("step", step, 0))
    assert run(job).exit_codes == [-9]
    again = resumed(job)
    assert (again.losses, again.weights) == (whole.losses, whole.weights)
    assert f"going on from {tmp_path}/checkpoints/step-{step:07d}" in again.logs[0]


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("phase", [*PHASES, "step", "report"])
def test_kill_at_any_point_changes_nothing_in_the_end(alone, tmp_path, phase, step):
    """Step 2 is the first save, before which there is nothing to go on from."""
    job = Job(tmp_path, killed_at=(phase, step, 0))
    assert run(job).exit_codes == [-9]
    again = restarted(job)
    assert (again.losses, again.weights) == (alone.losses, alone.weights)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint.json",
        "step-0000004",
        "step-0000006",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "step", "rank"), [("shards", 4, 1), ("shards", 4, 0), ("publish", 4, 0), ("step", 5, 1)]
)
def test_kill_of_one_of_two_processes_changes_nothing_in_the_end(pair, tmp_path, phase, step, rank):
    job = Job(tmp_path, world_size=2, killed_at=(phase, step, rank))
    assert -9 in run(job).exit_codes
    again = restarted(job)
    assert (again.losses, again.weights) == (pair.losses, pair.weights)


def test_damaged_checkpoint_gives_way_to_the_one_before_it(alone, tmp_path):
    job = Job(tmp_path)
    run(job)
    damaged = next((tmp_path / "checkpoints" / "step-0000006").rglob("*.pt"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = resumed(job)
    assert (again.losses, again.weights) == (alone.losses, alone.weights)
    assert f"{damaged} is damaged (size or sha256 differs)" in again.logs[0]
    assert "checkpoint step-0000004 is whole and used instead" in again.logs[0]
    for path in (tmp_path / "checkpoints").rglob("*.pt"):
        path.write_bytes(b"evil")
    lost = resumed(job)
    assert lost.exit_codes == [2]
    assert "holds no whole checkpoint" in lost.errors[0]


def test_checkpoint_of_other_settings_or_another_model_is_refused(tmp_path):
    job = Job(tmp_path)
    run(job)
    other = resumed(replace(job, config=replace(job.config, learning_rate=0.02, log_every=3)))
    assert other.exit_codes == [2]
    assert "step-0000006 is of other settings (learning_rate was 0.01, is 0.02)" in other.errors[0]
    other = resumed(replace(job, zero=ZeroConfig(stage=1, precision="bf16")))
    assert "step-0000006 is of another model" in other.errors[0]


def test_fresh_start_sets_an_earlier_runs_checkpoints_aside(tmp_path):
    job = Job(tmp_path)
    run(job)
    run(replace(job, killed_at=("step", 3, 0)))
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-0000002"]
    assert (tmp_path / "checkpoints-before" / "step-0000006").is_dir()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_broken_step_is_skipped_and_counted(tmp_path, precision, where):
    job = Job(tmp_path, zero=ZeroConfig(stage=1, precision=precision), broken=((3, 0, where),))
    outcome = run(job)
    assert outcome.exit_codes == [0], outcome.errors
    assert outcome.num_skipped_steps == [1]
    assert sorted(outcome.losses) == [1, 2, 3, 5, 6, 7, 8]
    assert "step 3 is skipped: its gradient is no finite number (1 of at most 10 so far)" in outcome.logs[0]
    assert resumed(job).num_skipped_steps == [1]


def test_nothing_is_learned_from_broken_steps_and_too_many_end_the_training(tmp_path):
    every = tuple((step, 0, "loss") for step in range(8))
    outcome = run(Job(tmp_path / "all", broken=every))
    assert (outcome.exit_codes, outcome.num_skipped_steps) == ([0], [8])
    assert outcome.weights == [weights_sha256(initial_model())]
    limited = Job(tmp_path / "limited", broken=every)
    stopped = run(replace(limited, config=replace(limited.config, max_skipped_steps=2)))
    assert stopped.exit_codes == [2]
    assert stopped.errors[0].startswith("3 steps were skipped because their gradients were no finite numbers, the last")


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "where"), [(1, "loss"), (1, "gradient"), (2, "loss"), (3, "gradient")])
def test_step_that_one_process_breaks_is_skipped_by_both(tmp_path, stage, where):
    job = Job(tmp_path, world_size=2, zero=ZeroConfig(stage), broken=((3, 1, where),))
    outcome = run(job)
    assert outcome.num_skipped_steps == [1, 1], outcome.logs
    assert outcome.weights[0] == outcome.weights[1]
    assert sorted(outcome.losses) == [1, 2, 3, 5, 6, 7, 8]
    assert ("step 3 is skipped" in outcome.logs[1]) == (where == "loss")
    stopped = run(replace(job, config=replace(job.config, max_skipped_steps=0)))
    assert stopped.exit_codes == [2, 2]
    assert all("max_skipped_steps is 0" in error for error in stopped.errors)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "stage"), [(1, 1), (4, 1), (2, 2), (3, 3)])
def test_two_processes_resume_from_any_step_bit_for_bit(tmp_path, step, stage):
    job = Job(tmp_path, world_size=2, zero=ZeroConfig(stage), config=EVERY_STEP)
    whole = run(replace(job, output=tmp_path / "whole"))
    assert -9 in run(replace(job, killed_at=("step", step, 1))).exit_codes
    again = resumed(job)
    assert (again.losses, again.weights) == (whole.losses, whole.weights)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "now"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on_with_the_same_losses(tmp_path, before, now):
    """The last two steps are trained again by other processes, from the checkpoint after step 6."""
    job = Job(tmp_path, world_size=before)
    whole = run(job)
    again = resumed(replace(job, world_size=now))
    assert again.exit_codes == [0] * now, again.logs
    assert again.losses == pytest.approx(whole.losses, abs=1e-5)
    stages = {1: "ZeRO-0", 2: "ZeRO-1"}  # one process in fp32 shards nothing
    told = f"was written by {before} processes under {stages[before]}: converting it for {now} under {stages[now]}"
    assert told in again.logs[0]
    assert not (tmp_path / "checkpoints" / "tmp-universal").exists()
