"""Runs stage `group_dpo` several times in one process, so that libraries load once; prints what it saw as JSON.

python preference_runs.py EXPORT PRETRAINED OUTPUT CASE...   (cases are keys of `CASES`)
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

from osmf_models.data.dataset import load_export
from osmf_models.model.denoiser import ProductDenoiser
from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.stages import group_dpo as stage
from osmf_models.stages.run_record import StageArguments
from osmf_models.training import loop, zero
from osmf_models.training.reference import ReferenceKey, verified_pretrained

EVERY_STEP = ["dpo.training.log_every=1"]
CHOOSY = [*EVERY_STEP, "dpo.evaluate_every=1", "dpo.training.num_steps=5", "dpo.training.checkpoint_every=2"]
CASES: dict[str, list[str]] = {
    "cached": EVERY_STEP,
    "forward": [*EVERY_STEP, "dpo.reference=forward"],
    "other_beta": [*EVERY_STEP, "dpo.beta=20"],
    "switches": [*EVERY_STEP, "dpo.rejected_safeguard=0.6", "dpo.contrast_weight=1.0"],
    "switches_forward": [
        *EVERY_STEP,
        "dpo.rejected_safeguard=0.6",
        "dpo.contrast_weight=1.0",
        "dpo.reference=forward",
    ],
    # A learning rate of 0 makes all judgements equal: the first is the best, and patience ends after two more.
    "patient": [*CHOOSY, "dpo.patience=2", "dpo.training.learning_rate=0.0"],
    "choosy": CHOOSY,
}
NUM_COPIES: list[int] = []


def counting_train(*arguments, **named):
    """Counts the models in memory where training starts, and trains."""
    gc.collect()
    NUM_COPIES.append(sum(isinstance(one, ProductDenoiser) for one in gc.get_objects()))
    return loop.train(*arguments, **named)


def run_case(case: str, export, data: Path, pretrained: Path, output: Path, is_resumed: bool = False) -> None:
    config = apply_overrides(load_recipe("tiny"), CASES[case])
    arguments = StageArguments(config, data, output / case, is_resumed)
    key = ReferenceKey.of(config, verified_pretrained(pretrained), export.manifest.data_hash)
    inputs = stage.Inputs(export, pretrained / "model", key, output / "references")
    stage.group_dpo(arguments, inputs, time.monotonic())


def main() -> None:
    data, pretrained, output = map(Path, sys.argv[1:4])
    export = load_export(data, load_recipe("tiny").data)
    stage.train = counting_train
    with zero.process_group():
        for name in sys.argv[4:]:
            case, _, suffix = name.partition(":")
            run_case(case, export, data, pretrained, output, is_resumed=suffix == "resume")
            if zero.rank() == 0:
                files = sorted((output / "references").glob("*"))
                told = {"case": name, "num_copies": NUM_COPIES[-1], "files": [f.name for f in files]}
                print(json.dumps({**told, "written": [f.stat().st_mtime_ns for f in files]}), flush=True)


if __name__ == "__main__":
    main()
