"""The losses of stage `pretrain` by two processes under ZeRO-1 to 3, and by one: the same global batches, in fp32.

`pytest tests/models/test_zero_equality.py -rP` also tells how far apart they were.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from test_stages import launched
from zero_runs import NUM_STEPS, SAVED_STEP

pytestmark = pytest.mark.slow

RUNS = Path(__file__).with_name("zero_runs.py")
STAGES = (1, 2, 3)
AT_FIRST, LATER = 1e-5, 1e-4  # relative; "at first" is 20 steps
Losses = dict[int, float]


def run_cases(export_folder: Path, output: Path, *cases: str, num_processes: int) -> None:
    program = [*launched(num_processes), str(RUNS), str(export_folder), str(output), *cases]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_RUN_ID", None)
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def losses(export_folder, tmp_path_factory) -> dict[str, Losses]:
    """The loss of each step by the run's name; in fp32 one process is ZeRO-0 where stage 1 or 2 is asked for."""
    output = tmp_path_factory.mktemp("zero")
    run_cases(export_folder, output, "one=1", "one_3=3", num_processes=1)
    began = [f"two_{stage}={stage}" for stage in STAGES]
    went_on = [f"one_to_two_{stage}={stage}={'one_3' if stage == 3 else 'one'}" for stage in STAGES]
    run_cases(export_folder, output, *began, *went_on, num_processes=2)
    run_cases(export_folder, output, *[f"two_to_one_{stage}={stage}=two_{stage}" for stage in STAGES], num_processes=1)
    found = {}
    for path in output.glob("*/metrics.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = {record["step"]: record["train/loss"] for record in records if "train/loss" in record}
    return found


def furthest(some: Losses, others: Losses, steps: range) -> float:
    """The largest relative difference over steps, which both must have taken."""
    return max(abs(some[step] - others[step]) / abs(others[step]) for step in steps)


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_have_the_losses_of_one(losses, stage):
    two, one = losses[f"two_{stage}"], losses["one"]
    first, later = (
        furthest(two, one, steps) for steps in (range(1, SAVED_STEP + 1), range(SAVED_STEP + 1, NUM_STEPS + 1))
    )
    print(f"ZeRO-{stage}, 2 processes : 1: {first:.1e} in {SAVED_STEP} steps, then {later:.1e}")
    assert first < AT_FIRST
    assert later < LATER


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("name", "began"), [("two_to_one", "two"), ("one_to_two", "one")])
def test_another_number_of_processes_goes_on_with_the_same_losses(losses, name, began, stage):
    went_on = losses[f"{name}_{stage}"]
    stayed = losses[f"two_{stage}" if began == "two" else "one_3" if stage == 3 else "one"]
    assert min(went_on) == SAVED_STEP + 1
    apart = furthest(went_on, stayed, range(SAVED_STEP + 1, NUM_STEPS + 1))
    print(f"ZeRO-{stage}, {name.replace('_', ' ')} after step {SAVED_STEP}: {apart:.1e} in {NUM_STEPS - SAVED_STEP}")
    assert apart < AT_FIRST
