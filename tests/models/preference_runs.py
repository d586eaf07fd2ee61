"""Runs stage `group_dpo` several times in one process, so that libraries load once; prints what it saw as JSON.

python preference_runs.py EXPORT PRETRAINED OUTPUT CASE...   (cases are keys of `CASES` or of `LORA_CASES`)
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

from torch.nn import Parameter

from osmf_models.data.dataset import load_export
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
# Of published parts, by LoRA: recipe `qwen3_vl_sana` made small.
LORA = [
    *EVERY_STEP,
    "model.num_heads=2",
    "model.published.lora_rank=4",
    "dpo.training.num_steps=4",
    "dpo.training.batch_size=4",
    "dpo.training.warmup_steps=1",
    "dpo.training.learning_rate=0.005",
    "dpo.training.checkpoint_every=2",
    "dpo.num_evaluation_pairs=4",
    "dpo.num_evaluation_draws=2",
    "pretraining.num_sampling_steps=2",
    "pretraining.num_grid_rows=1",
    "zero.precision=fp32",
]
LORA_CASES: dict[str, list[str]] = {
    "off": LORA,
    "off_cached": [*LORA, "dpo.reference=cached"],
    "off_forward": [*LORA, "dpo.reference=forward"],
    "off_clean": [*LORA, "dpo.error_space=clean"],
    "off_clean_forward": [*LORA, "dpo.error_space=clean", "dpo.reference=forward"],
    **{f"off_zero_{stage}": [*LORA, f"zero.stage={stage}"] for stage in (1, 2, 3)},
}
NUM_COPIES: list[float] = []


def counting_train(engine, *arguments, **named):
    """Counts the weights in memory where training starts, in the policy's own, and trains."""
    gc.collect()
    model = engine.module
    own = [*model.parameters(), *(model.autoencoder.parameters() if model.autoencoder is not None else ())]
    alive = [one for one in gc.get_objects() if isinstance(one, Parameter)]
    NUM_COPIES.append(num_weights(alive) / num_weights(own))
    return loop.train(engine, *arguments, **named)


def num_weights(parameters: list[Parameter]) -> int:
    return sum(getattr(one, "ds_numel", one.numel()) for one in parameters)  # under ZeRO-3 those of all processes


def run_case(case: str, export, data: Path, pretrained: Path, output: Path, is_resumed: bool = False) -> None:
    recipe, overrides = ("tiny", CASES[case]) if case in CASES else ("qwen3_vl_sana", LORA_CASES[case])
    config = apply_overrides(load_recipe(recipe), overrides)
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
                told["written"] = [f.stat().st_mtime_ns for f in files]
                told["artifact_sha256"] = json.loads((output / case / "run.json").read_text())["artifact_sha256"]
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
