"""Runs stage `pretrain` several times in one process, or its share of several, each under a ZeRO stage of its own.

python zero_runs.py EXPORT OUTPUT NAME=STAGE...   (NAME=STAGE=OTHER goes on from the checkpoint of run OTHER)
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from osmf_models.data.dataset import load_export
from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.stages.pretrain import pretrain
from osmf_models.stages.run_record import StageArguments
from osmf_models.training import zero

NUM_STEPS, SAVED_STEP = 30, 20
FIELDS = [f"training.num_steps={NUM_STEPS}", f"training.checkpoint_every={SAVED_STEP}", "training.log_every=1"]
FIELDS += ["num_grid_rows=1", "num_grid_groups=1", "num_sampling_steps=1"]


def main() -> None:
    data, output = map(Path, sys.argv[1:3])
    export = load_export(data, load_recipe("tiny").data)
    with zero.process_group():
        for name, stage, *other in (case.split("=") for case in sys.argv[3:]):
            if other and zero.rank() == 0:
                shutil.copytree(output / other[0] / "checkpoints", output / name / "checkpoints")
            zero.barrier()
            fields = [f"pretraining.{field}" for field in FIELDS]
            config = apply_overrides(load_recipe("tiny"), [*fields, f"zero.stage={stage}"])
            pretrain(StageArguments(config, data, output / name, bool(other)), export, time.monotonic())


if __name__ == "__main__":
    main()
