"""Stage `group_dpo`: makes a pretrained model draw what each group prefers.

    python -m osmf_models.stages.group_dpo --recipe tiny --data EXPORT --pretrained DIR --output DIR
        [--global-pairs] [--resume] [--set a.b=value]

`--global-pairs` trains the control: the scope roots' pairs under the null group, one size for all. Writes OUTPUT/model
(a `GroupAdPipeline`), OUTPUT/sample_grid.png, and OUTPUT/run.json last. The loss belongs in
`objectives/group_preference.py`, judging pairs in `training/pair_errors.py`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osmf_models.config import DpoConfig, RunConfig
from osmf_models.data.ahead import DrawnAhead
from osmf_models.data.collate import BatchKey, Dropout, PairBatch, draw_pair_batch, pinned, to_device
from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.data.pairs import pairs_of_split
from osmf_models.model.execution import prepare_layers
from osmf_models.model.gmllm import GMllm
from osmf_models.model.path import biased_time
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.objectives.group_preference import accuracy_by_group, group_preference_loss
from osmf_models.stages.run_record import StageArguments, run_stage, stage_arguments, stage_parser, write_run_record
from osmf_models.stages.sample_grid import save_model, write_sample_grid
from osmf_models.training import zero
from osmf_models.training.loop import StepLoss, train
from osmf_models.training.pair_errors import EvaluatedPairs, evaluate_pairs, pair_errors


@dataclass(frozen=True)
class Models:
    """The policy's engine, and the frozen reference, whole on every process."""

    engine: Any
    reference: GMllm


def main() -> None:
    """Runs the stage from the command line."""
    parser = stage_parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--pretrained", required=True, type=Path, help="output folder of stage pretrain")
    parser.add_argument("--global-pairs", action="store_true", help="the control: one size for all")
    options = parser.parse_args()
    arguments = stage_arguments(options)
    if options.global_pairs:
        dpo = replace(arguments.config.dpo, pair_groups="null")
        arguments = replace(arguments, config=replace(arguments.config, dpo=dpo))
    started = time.monotonic()
    export = load_export(arguments.data, arguments.config.data)
    with zero.process_group():
        group_dpo(arguments, export, options.pretrained / "model", started)


def group_dpo(arguments: StageArguments, export: TrainingExport, pretrained: Path, started: float) -> None:
    """Trains, judges held-out pairs, saves and records; every process of the group must call it."""
    config, dpo = arguments.config, arguments.config.dpo
    policy = prepare_layers(load_gmllm(pretrained, export), config.execution, config.zero)
    engine = zero.build_engine(policy, config.zero, dpo.training)
    reference = prepare_layers(load_gmllm(pretrained, export), config.execution, config.zero)
    reference = reference.to(engine.device, engine.module.denoiser.dtype)
    models = Models(engine, reference.requires_grad_(False).eval())
    step_loss = preference_step(models, export, config)
    result = train(engine, step_loss, dpo.training, arguments.output, arguments.is_resumed)
    judged = evaluate_pairs(models.engine, models.reference, export, pairs_of_split(export, dpo, "validation"), dpo)
    pipeline = save_model(engine.module, arguments.output / "model")
    device = engine.device
    engine.destroy()
    if pipeline is not None:
        write_sample_grid(pipeline.to(device), export, config.pretraining, arguments.output / "sample_grid.png")
        metrics = {f"train/{name}": value for name, value in result.final_metrics.items()}
        metrics |= held_out_metrics(judged, dpo)
        metrics |= {"seconds_per_step": result.seconds_per_step}
        metrics["num_pairs_without_picture"] = float(export.num_pairs_without_picture)
        stage = "global_dpo" if dpo.pair_groups == "null" else "group_dpo"
        write_run_record(arguments, stage, export.manifest, metrics, time.monotonic() - started)


def load_gmllm(folder: Path, export: TrainingExport) -> GMllm:
    """Returns the pretrained model's parts as one module.

    Raises:
        ValueError: when there is none, or when it was trained for other group features or another picture size.
    """
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} holds no pretrained model: run stage pretrain first.")
    pipeline = GroupAdPipeline.from_pretrained(folder, local_files_only=True)
    if list(pipeline.group_encoder.config["feature_names"]) != list(export.manifest.group_feature_names):
        raise ValueError(f"{folder} was trained for other group features than the export's: pretrain again.")
    if pipeline.image_px != export.manifest.image_px:
        raise ValueError(f"{folder} draws {pipeline.image_px} px, the export holds {export.manifest.image_px} px.")
    return pipeline.gmllm.train()


def preference_step(models: Models, export: TrainingExport, config: RunConfig) -> StepLoss:
    """Returns the loss of a step on pairs of split train."""
    dpo, training = config.dpo, config.dpo.training
    pairs = pairs_of_split(export, dpo, "train")
    dropout = Dropout(group=1.0 if dpo.pair_groups == "null" else 0.0)

    def draw(step: int) -> PairBatch:
        key = BatchKey.of_rank(training.seed, step, training.batch_size, zero.rank(), zero.world_size())
        time_of = lambda uniform: biased_time(uniform, dpo.time_power)  # noqa: E731
        return pinned(draw_pair_batch(export, pairs, key, dropout, time_of, dpo.is_group_balanced))

    batch_of = DrawnAhead(draw, config.data.num_batches_ahead, training.num_steps)

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = to_device(batch_of(step), models.engine.device)
        policy = pair_errors(models.engine, batch, dpo.error_space)
        with torch.no_grad():
            reference = pair_errors(models.reference, batch, dpo.error_space)
        result = group_preference_loss(
            policy, reference, batch.target, dpo.beta, dpo.preference_weight, dpo.anchor_weight
        )
        return result.loss, {
            "preference_loss": result.preference,
            "accuracy": (result.reward_margin > 0).float().mean(),
            "reward_margin": result.reward_margin.mean(),
            "chosen_error": result.chosen_error,
            "rejected_error": result.rejected_error,
            "reference_chosen_error": reference.chosen.mean(),
        }

    return loss_of


def held_out_metrics(judged: EvaluatedPairs, dpo: DpoConfig) -> dict[str, float]:
    """Returns what the policy makes of pairs of unseen products, against the reference."""
    by_group = accuracy_by_group(judged.margins(dpo.beta), judged.group_index)
    return {
        "validation/num_pairs": float(len(judged.group_index)),
        "validation/pair_accuracy": sum(by_group.values()) / len(by_group),
        "validation/worst_group_pair_accuracy": min(by_group.values()),
        "validation/chosen_error_before": float(judged.reference.chosen.mean()),
        "validation/chosen_error_after": float(judged.policy.chosen.mean()),
        "validation/rejected_error_before": float(judged.reference.rejected.mean()),
        "validation/rejected_error_after": float(judged.policy.rejected.mean()),
    }


if __name__ == "__main__":
    run_stage(main)
