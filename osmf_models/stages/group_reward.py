"""Stage `group_reward`: learns what each group prefers from pairs, to judge new pictures where no truth is known.

    python -m osmf_models.stages.group_reward --recipe tiny --data EXPORT --output DIR [--set a.b=v]

Never sees a truth. Writes OUTPUT/model (a `GroupReward`), OUTPUT/calibration.json and .png (how well its probabilities
hold on split test, by bins), and OUTPUT/run.json last, with its figures on pairs of held-out products. It takes
seconds, so that `--resume` begins anew. Fitting belongs in `training/fit_reward.py`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.objectives.group_reward import CalibrationBin
from osmf_models.stages.run_record import StageArguments, run_stage, stage_arguments, stage_parser, write_run_record
from osmf_models.training.fit_reward import FittedReward, RewardPairs, fit_reward, held_out_margins, reward_pairs
from osmf_models.training.reward_figures import reward_figures


def main() -> None:
    """Runs the stage from the command line."""
    arguments = stage_arguments(stage_parser((__doc__ or "").splitlines()[0]).parse_args())
    started = time.monotonic()
    torch.set_num_threads(1)  # products of small matrices: two threads would wait for one another
    export = load_export(arguments.data, arguments.config.data)
    fitted = fit_reward(export, arguments.config.reward, arguments.output)
    metrics, bins = held_out_figures(fitted, export, arguments)
    fitted.model.save_pretrained(arguments.output / "model", safe_serialization=True)
    (arguments.output / "calibration.json").write_text(json.dumps([asdict(one) for one in bins], indent=1))
    draw_calibration(bins, arguments.output / "calibration.png")
    metrics["num_pairs_without_picture"] = float(export.num_pairs_without_picture)
    write_run_record(arguments, "group_reward", export.manifest, metrics, time.monotonic() - started)


def held_out_figures(
    fitted: FittedReward, export: TrainingExport, arguments: StageArguments
) -> tuple[dict[str, float], list[CalibrationBin]]:
    """Returns the metrics of both held-out splits, and the calibration on split test.

    The best step and the temperature were chosen on validation: test alone is unseen. It may hold no pairs, which is
    told by a number of 0 and no other figure.
    """
    metrics = dict(fitted.metrics)
    bins: list[CalibrationBin] = []
    for split in ("validation", "test"):
        bins = []
        if not _has_pairs(export, split):
            metrics[f"{split}/num_pairs"] = 0.0
            continue
        pairs = reward_pairs(export, arguments.config.reward, split)
        margins = held_out_margins(fitted.model, fitted.data, RewardPairs.of(pairs))
        figures, bins = reward_figures(pairs, margins, metrics["temperature"])
        metrics |= {f"{split}/{name}": value for name, value in figures.items()}
    return metrics, bins


def draw_calibration(bins: list[CalibrationBin], path: Path) -> None:
    """Writes a PNG: the evidence that the model's order of a pair is right, against how sure it is of it."""
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot([0.5, 1.0], [0.5, 1.0], color="black", linewidth=0.8)
    axis.plot([one.mean_claimed for one in bins], [one.mean_right for one in bins], marker="o")
    for one in bins:
        axis.annotate(f"{one.num_pairs}", (one.mean_claimed, one.mean_right), (4, -10), textcoords="offset points")
    axis.set_xlabel("probability that the model gives to its order")
    axis.set_ylabel("evidence for it, mean over pairs")
    axis.set_title("pairs of unseen products, and how many", fontsize=9)
    figure.savefig(path, dpi=120)


def _has_pairs(export: TrainingExport, split: str) -> bool:
    return bool(((export.pairs.split == split) & ~export.pairs.is_scope_root).any())


if __name__ == "__main__":
    run_stage(main)
