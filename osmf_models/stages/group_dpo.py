"""Stage `group_dpo`: makes a pretrained model draw what each group prefers.

    python -m osmf_models.stages.group_dpo --recipe tiny --data EXPORT --pretrained DIR --output DIR
        [--global-pairs] [--reference-cache DIR] [--resume] [--set a.b=value]

`--global-pairs` trains the control: the scope roots' pairs under the null group, one size for all. Writes OUTPUT/model
(a `GroupAdPipeline`), OUTPUT/sample_grid.png, OUTPUT/samples (pictures of each group by steps),
OUTPUT/held_out_groups.json (judged pairs, group by group), and OUTPUT/run.json last. The reference's errors lie in
OUTPUT, or in the folder of `--reference-cache` that runs share. The loss belongs in `objectives/group_preference.py`, a
step in `training/preference_step.py`, judging pairs in `training/pair_errors.py`, what is kept in `training/best.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from osmf_models.config import DpoConfig, RunConfig
from osmf_models.data.ahead import DrawnAhead
from osmf_models.data.collate import PairBatch, to_device
from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.data.pairs import pairs_of_split
from osmf_models.model.execution import prepare_layers
from osmf_models.model.gmllm import GMllm
from osmf_models.model.lora import check_additions, choose_trained, train_additions_alone
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.objectives.group_preference import PairErrors, accuracy_by_group, statistics_by_group
from osmf_models.records import HELD_OUT_GROUPS_NAME
from osmf_models.stages.group_samples import SampledTraining, refused_share, write_group_samples
from osmf_models.stages.run_record import StageArguments, run_stage, stage_arguments, stage_parser, write_run_record
from osmf_models.stages.sample_grid import mean_scene_distance, write_sample_grid
from osmf_models.training import zero
from osmf_models.training.best import BestWeights, Judgement, StoppingRule
from osmf_models.training.course import course_of
from osmf_models.training.hand_over import HandOver
from osmf_models.training.load_model import load_gmllm
from osmf_models.training.loop import train
from osmf_models.training.memory import check_memory
from osmf_models.training.pair_errors import EvaluatedPairs, held_out_pairs, judge_pairs
from osmf_models.training.preference_step import (
    DrawPairs,
    ReferenceOf,
    errors_without_additions,
    num_reference_errors,
    preference_step,
    reference_errors,
    training_pairs,
)
from osmf_models.training.reference import (
    ReferenceErrors,
    ReferenceKey,
    check_same_reference,
    errors_of_steps,
    read_or_compute,
    verified_pretrained,
)


@dataclass(frozen=True)
class Inputs:
    """What a run starts from.

    Attributes:
        export: pairs and pictures.
        pretrained: folder of the pretrained model.
        key: what the reference's errors depend on.
        reference_cache: folder of their file.
    """

    export: TrainingExport
    pretrained: Path
    key: ReferenceKey
    reference_cache: Path


def main() -> None:
    """Runs the stage from the command line."""
    parser = stage_parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--pretrained", required=True, type=Path, help="output folder of stage pretrain")
    parser.add_argument("--global-pairs", action="store_true", help="the control: one size for all")
    parser.add_argument("--reference-cache", type=Path, help="folder of reference errors that runs share (OUTPUT)")
    options = parser.parse_args()
    arguments = stage_arguments(options)
    if options.global_pairs:
        dpo = replace(arguments.config.dpo, pair_groups="null")
        arguments = replace(arguments, config=replace(arguments.config, dpo=dpo))
    arguments.config.dpo.check()
    check_additions(arguments.config)
    started = time.monotonic()
    export = load_export(arguments.data, arguments.config.data)
    key = ReferenceKey.of(arguments.config, verified_pretrained(options.pretrained), export.manifest.data_hash)
    inputs = Inputs(export, options.pretrained / "model", key, options.reference_cache or arguments.output)
    with zero.process_group():
        group_dpo(arguments, inputs, started)


def group_dpo(arguments: StageArguments, inputs: Inputs, started: float) -> None:
    """Trains, judges held-out pairs, saves and records; every process of the group must call it."""
    config, dpo, export, output = arguments.config, arguments.config.dpo, inputs.export, arguments.output
    held_out = held_out_pairs(pairs_of_split(export, dpo, "validation"), dpo)
    draw = training_pairs(export, config)
    check_same_reference(output, inputs.key, arguments.is_resumed)
    engine = zero.build_engine(load_policy(inputs, config), config.zero, dpo.training)
    known = known_reference(engine, inputs, draw, held_out, config)
    step_loss = preference_step(engine, ahead(draw, config), reference_of_steps(engine, inputs, known, config), dpo)
    hand_over = HandOver(engine, dpo.training, config.model.published)

    def judged_now() -> PairErrors:
        with hand_over.average.swapped_in():
            return judged_by(engine, export, held_out, dpo)

    watch = best_weights(judged_now, hand_over, held_out, known, arguments, inputs) if dpo.evaluate_every else None
    stage = "global_dpo" if dpo.pair_groups == "null" else "group_dpo"
    num_samplings = config.pretraining.num_samplings if stage == "group_dpo" else 0  # one size has no groups to show
    shown = SampledTraining(hand_over, export, num_samplings, dpo.training.num_steps, output, watch)
    course = course_of(config, "dpo", export.manifest.data_hash)
    result = train(
        engine, step_loss, dpo.training, output, arguments.is_resumed, shown, companion=hand_over, course=course
    )
    if watch is None:
        errors = judged_now()
        hand_over.save_model(output / "model")
    device = engine.device
    engine.destroy()
    if zero.rank() != 0:
        return
    metrics = {f"train/{name}": value for name, value in result.final_metrics.items()}
    if watch is not None:
        errors = watch.hand_over(output / "model")
        metrics |= watch.metrics(result.last_step)
    pipeline = GroupAdPipeline.from_pretrained(output / "model", local_files_only=True)
    drawn = write_sample_grid(pipeline.to(device), export, config.pretraining, output / "sample_grid.png")
    judged = judged_pairs(errors, known, held_out)
    write_groups(judged, export, dpo, output / HELD_OUT_GROUPS_NAME)
    metrics |= held_out_metrics(judged, dpo) | {"seconds_per_step": result.seconds_per_step}
    metrics["sample_grid/scene_distance"] = mean_scene_distance(drawn, export)
    metrics["num_pairs_without_picture"] = float(export.num_pairs_without_picture)
    if num_samplings:
        write_group_samples(pipeline, export, output, result.last_step)
    write_run_record(arguments, stage, export.manifest, metrics, time.monotonic() - started)


def load_policy(inputs: Inputs, config: RunConfig) -> GMllm:
    """Returns the pretrained model with its layers as the run wants them.

    Raises:
        ValueError: when it cannot fit the device's memory.
    """
    model = load_gmllm(inputs.pretrained, inputs.export)
    if config.model.published is not None:
        torch.manual_seed(config.dpo.training.seed)  # of what additions start with
        choose_trained(model, config.model.published)
    if config.dpo.is_adapters_only:
        train_additions_alone(model)
    check_memory(model, config, config.dpo.training, has_copy=config.dpo.reference == "forward")
    return prepare_layers(model, config.execution, config.zero)


def ahead(draw: DrawPairs, config: RunConfig) -> DrawnAhead[PairBatch]:
    """Returns the draws with coming steps drawn by threads, as the recipe says."""
    return DrawnAhead(draw, config.data.num_batches_ahead, config.dpo.training.num_steps)


def known_reference(
    engine: Any, inputs: Inputs, draw: DrawPairs, held_out: pd.DataFrame, config: RunConfig
) -> ReferenceErrors:
    """Returns the errors of the untrained policy, which is the reference; of held-out pairs alone without a cache.

    Call it before the first step: the weights that are trained are the only ones in memory.
    """
    dpo = config.dpo

    def judged() -> Tensor:
        return judged_by(engine, inputs.export, held_out, dpo).columns()

    def computed() -> ReferenceErrors:
        batch_of = ahead(draw, config)

        def errors_of(step: int) -> Tensor:
            return reference_errors(engine, to_device(batch_of(step), engine.device), dpo)

        engine.eval()
        steps = errors_of_steps(errors_of, dpo.training.num_steps)
        engine.train()
        return ReferenceErrors(steps, judged())

    num_errors = num_reference_errors(dpo)
    if dpo.reference != "cached":
        return ReferenceErrors(torch.empty(0, dpo.training.batch_size, num_errors), judged())
    return read_or_compute(
        inputs.reference_cache, inputs.key, dpo.training.num_steps, len(held_out), num_errors, computed
    )


def reference_of_steps(engine: Any, inputs: Inputs, known: ReferenceErrors, config: RunConfig) -> ReferenceOf:
    """Returns whence a step takes the reference's errors."""
    if config.dpo.reference == "adapter_off":
        return lambda _, batch: errors_without_additions(engine, batch, config.dpo)
    return frozen_copy(engine, inputs, config) if config.dpo.reference == "forward" else noted(engine, known)


def noted(engine: Any, known: ReferenceErrors) -> ReferenceOf:
    """Returns the errors that were noted before training."""
    errors = known.of_rank(zero.rank(), zero.world_size()).to(engine.device)
    return lambda step, _: errors[step]


def frozen_copy(engine: Any, inputs: Inputs, config: RunConfig) -> ReferenceOf:
    """Returns the errors of a second, frozen model, whole on every process."""
    model = prepare_layers(load_gmllm(inputs.pretrained, inputs.export), config.execution, config.zero)
    model.to(engine.device, engine.module.denoiser.dtype).requires_grad_(False).eval()
    return lambda _, batch: reference_errors(model, batch, config.dpo)


def best_weights(
    judged_now: Callable[[], PairErrors],
    hand_over: HandOver,
    held_out: pd.DataFrame,
    known: ReferenceErrors,
    arguments: StageArguments,
    inputs: Inputs,
) -> BestWeights:
    """Returns what judges held-out pairs and pictures during training and keeps the best of what could be handed over.

    Of looks the chosen error is no criterion: a plan that narrows on a taste leaves the average chosen picture behind.
    """
    dpo, training = arguments.config.dpo, arguments.config.dpo.training
    slack = None if dpo.error_space == "look" else dpo.chosen_error_slack
    rule = StoppingRule(dpo.evaluate_every, dpo.patience, slack, training.num_steps, training.checkpoint_every)
    reference_refused = zero.from_first_rank(lambda: refused_share(inputs.pretrained, inputs.export))

    def judge(step: int, folder: Path) -> tuple[Judgement, PairErrors]:
        errors = judged_now()
        judged = judged_pairs(errors, known, held_out)
        chosen = (float(errors.chosen.mean()), float(judged.reference.chosen.mean()))
        refused = (zero.from_first_rank(lambda: refused_share(folder, inputs.export)), reference_refused)
        return Judgement(step, judged.loss(dpo.beta), judged.accuracy(dpo.beta), *chosen, *refused), errors

    return BestWeights(arguments.output / "best", rule, judge, hand_over.save_model)


def judged_by(engine: Any, export: TrainingExport, held_out: pd.DataFrame, dpo: DpoConfig) -> PairErrors:
    """Returns the errors of the model as it is now on held-out pairs, without whatever it does in training alone."""
    engine.eval()
    errors = judge_pairs(engine, export, held_out, dpo)
    engine.train()
    return errors


def judged_pairs(policy: PairErrors, known: ReferenceErrors, held_out: pd.DataFrame) -> EvaluatedPairs:
    """Returns a policy's errors on held-out pairs beside the reference's."""
    group_index, target = (torch.tensor(held_out[name].to_numpy()) for name in ("group_index", "target"))
    return EvaluatedPairs(policy, PairErrors.from_columns(known.held_out), group_index, target.float())


def held_out_metrics(judged: EvaluatedPairs, dpo: DpoConfig) -> dict[str, float]:
    """Returns what the policy makes of pairs of unseen products, against the reference."""
    by_group = accuracy_by_group(judged.margins(dpo.beta), judged.group_index)
    return {
        "validation/num_pairs": float(len(judged.group_index)),
        "validation/preference_loss": judged.loss(dpo.beta),
        "validation/pair_accuracy": judged.accuracy(dpo.beta),
        "validation/worst_group_pair_accuracy": min(by_group.values()),
        "validation/chosen_error_before": float(judged.reference.chosen.mean()),
        "validation/chosen_error_after": float(judged.policy.chosen.mean()),
        "validation/rejected_error_before": float(judged.reference.rejected.mean()),
        "validation/rejected_error_after": float(judged.policy.rejected.mean()),
    }


def write_groups(judged: EvaluatedPairs, export: TrainingExport, dpo: DpoConfig, path: Path) -> None:
    """Writes the statistics of each judged group, by its id."""
    statistics = statistics_by_group(judged.policy, judged.reference, judged.group_index, dpo.beta)
    by_id = {str(export.groups.group_id.iloc[group]): asdict(one) for group, one in statistics.items()}
    path.write_text(json.dumps(by_id, indent=1))


if __name__ == "__main__":
    run_stage(main)
