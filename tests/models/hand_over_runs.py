"""Runs stage `pretrain` in one process or its share of several, to the end after two steps and past a checkpoint there.

python hand_over_runs.py EXPORT OUTPUT A.B=VALUE...   (fields that replace the recipe's)
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from osmf_models.data.dataset import load_export
from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.stages.pretrain import pretrain
from osmf_models.stages.run_record import StageArguments
from osmf_models.training import zero

# With a constant rate the first two steps are the same, however many follow.
SMALL = ["training.final_learning_rate_share=1.0", "training.checkpoint_every=2", "choice_batch_size=0"]
SMALL += ["num_grid_rows=1", "num_grid_groups=1", "num_sampling_steps=1"]
CASES = {
    "ended": ["training.num_steps=2", "training.ema_decay=0.5"],
    "ended_without_average": ["training.num_steps=2"],
    "going_on": ["training.num_steps=4", "training.ema_decay=0.5"],
}


def main() -> None:
    data, output = map(Path, sys.argv[1:3])
    export = load_export(data, load_recipe("tiny").data)
    with zero.process_group():
        for case, changes in CASES.items():
            fields = [f"pretraining.{change}" for change in (*SMALL, *changes)]
            config = apply_overrides(load_recipe("tiny"), [*fields, *sys.argv[3:]])
            pretrain(StageArguments(config, data, output / case, False), export, time.monotonic())


if __name__ == "__main__":
    main()
