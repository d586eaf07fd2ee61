"""`osmf bench train`: the speed of a recipe on this machine, by one process and by two, in one JSON file.

What is measured, and what its keys mean, belongs in `osmf_models/stages/bench_train.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_pipelines.bench.measured_stage import run_measurement

FORMAT = "osmf-bench-train/1"
_GIB = 1024**3


def run_train_bench(
    recipe: str, num_steps: int, output: Path, overrides: Sequence[str], num_ranks: int | None, console: Console
) -> dict[str, Any]:
    """Measures, writes `output` and shows a table; returns what was written.

    Returns:
        `format`, `recipe`, and `runs`: one measurement for each number of processes, in rising order.

    Raises:
        ValueError: when there is no such recipe or field.
        RuntimeError: when a measurement fails; the message ends with the last lines of its log.
    """
    apply_overrides(load_recipe(recipe), overrides)
    runs = [_measure(recipe, num_steps, overrides, num_ranks or 1)]
    has_two = runs[0]["device"] == "cpu" or runs[0]["num_devices"] >= 2
    if num_ranks is None and has_two:
        runs.append(_measure(recipe, num_steps, overrides, 2))
    result = {"format": FORMAT, "recipe": recipe, "runs": runs}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1))
    _show(runs, console)
    console.print(f"written to {output}", soft_wrap=True)
    return result


def _measure(recipe: str, num_steps: int, overrides: Sequence[str], num_ranks: int) -> dict[str, Any]:
    arguments = ["--recipe", recipe, "--steps", str(num_steps), *(["--memory"] if num_ranks == 1 else [])]
    arguments += [part for assignment in overrides for part in ("--set", assignment)]
    return run_measurement("bench_train", arguments, num_ranks)


def _show(runs: list[dict[str, Any]], console: Console) -> None:
    """Prints the runs side by side, and the memory of the ZeRO stages where it was measured."""
    first = runs[0]
    title = f"{first['recipe']}: {first['num_parameters'] / 1e6:.1f} million parameters, {first['image_px']} px, batch"
    table = Table(
        "", *[f"{run['num_ranks']} on {run['device']}" for run in runs], title=f"{title} {first['batch_size']}"
    )
    rows = {
        "DeepSpeed, seconds a step": ("deepspeed_seconds_per_step", "{:.3f}"),
        "plain PyTorch, seconds a step": ("plain_seconds_per_step", "{:.3f}"),
        "DeepSpeed : plain": ("deepspeed_over_plain", "{:.2f}"),
        "DeepSpeed, samples a second": ("deepspeed_samples_per_second", "{:.1f}"),
        "DeepSpeed, model FLOP utilisation": ("deepspeed_model_flop_utilisation", "{:.1%}"),
        "plain PyTorch, model FLOP utilisation": ("plain_model_flop_utilisation", "{:.1%}"),
        "Group-DPO of looks, reference cached, seconds a step": ("dpo_look_cached_seconds_per_step", "{:.3f}"),
        "Group-DPO of looks, second forward : cached": ("dpo_look_forward_over_cached", "{:.2f}"),
        "Group-DPO of looks, adapter off : second forward": ("dpo_look_adapter_off_over_forward", "{:.2f}"),
        "Group-DPO of pictures, reference cached, seconds a step": ("dpo_clean_cached_seconds_per_step", "{:.3f}"),
        "Group-DPO of pictures, second forward : cached": ("dpo_clean_forward_over_cached", "{:.2f}"),
        "Group-DPO of pictures, adapter off : second forward": ("dpo_clean_adapter_off_over_forward", "{:.2f}"),
    }
    for label, (key, form) in rows.items():
        table.add_row(label, *["–" if run[key] is None else form.format(run[key]) for run in runs])
    for stage, memory in (first["memory_by_zero_stage"] or {}).items():
        table.add_row(f"ZeRO-{stage}, peak memory", f"{memory['peak_bytes'] / _GIB:.1f} GiB", *[""] * (len(runs) - 1))
    console.print(table)
