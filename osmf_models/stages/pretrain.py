"""Stage `pretrain`: learns to comprehend groups and to draw ad pictures, both at once.

    python -m osmf_models.stages.pretrain --recipe tiny --data EXPORT --output DIR [--resume] [--set a.b=value]

Writes OUTPUT/model (a `GroupAdPipeline`), OUTPUT/sample_grid.png, and OUTPUT/run.json last. Preference optimisation
belongs in `group_dpo.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from osmf_models.config import RunConfig
from osmf_models.data.ahead import DrawnAhead
from osmf_models.data.collate import BatchKey, Dropout, GenerationBatch, draw_generation_batch, pinned, to_device
from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.data.examples import examples_of_split
from osmf_models.model.backbone import TokenBatch, tokenize
from osmf_models.model.execution import prepare_layers
from osmf_models.model.gmllm import GMllm, Prediction, noisy_pictures
from osmf_models.model.path import biased_time
from osmf_models.model.published import build_published
from osmf_models.objectives.comprehension import description_loss
from osmf_models.objectives.generation import generation_loss, scene_errors
from osmf_models.records import ExportManifest
from osmf_models.stages.run_record import StageArguments, run_stage, stage_arguments, stage_parser, write_run_record
from osmf_models.stages.sample_grid import save_model, write_sample_grid
from osmf_models.training import zero
from osmf_models.training.loop import StepLoss, train
from osmf_models.training.memory import check_memory

logger = logging.getLogger(__name__)


def main() -> None:
    """Runs the stage from the command line."""
    arguments = stage_arguments(stage_parser(__doc__.splitlines()[0]).parse_args())
    started = time.monotonic()
    export = load_export(arguments.data, arguments.config.data)
    with zero.process_group():
        pretrain(arguments, export, started)


def pretrain(arguments: StageArguments, export: TrainingExport, started: float) -> None:
    """Trains, saves and records; every process of the group must call it."""
    config = arguments.config
    torch.manual_seed(config.pretraining.training.seed)
    texts = [*export.products.title.fillna(""), *export.groups.description]
    model = build_model(config, export.manifest, texts)
    num_trainable = model.num_trainable_parameters()
    logger.info("trainable parameters: %s", num_trainable)
    logger.info("of parameters: %s", model.num_parameters())
    prepare_layers(model, config.execution, config.zero)
    engine = zero.build_engine(model, config.zero, config.pretraining.training)
    step_loss = pretraining_loss(engine, export, config)
    result = train(engine, step_loss, config.pretraining.training, arguments.output, arguments.is_resumed)
    pipeline = save_model(model, arguments.output / "model")
    device = engine.device
    engine.destroy()
    if pipeline is not None:
        write_sample_grid(pipeline.to(device), export, config.pretraining, arguments.output / "sample_grid.png")
        metrics = {f"train/{name}": value for name, value in result.final_metrics.items()}
        metrics |= {"num_parameters": float(sum(num_trainable.values())), "seconds_per_step": result.seconds_per_step}
        metrics["num_examples_without_picture"] = float(export.num_examples_without_picture)
        write_run_record(arguments, "pretrain", export.manifest, metrics, time.monotonic() - started)


def build_model(config: RunConfig, manifest: ExportManifest, texts: list[str]) -> GMllm:
    """Returns the recipe's model: fresh, or put together from published parts; every process must call it.

    Raises:
        ValueError: when it cannot fit the device's memory, told before published weights are read; or when a published
            part is missing, or is no such part.
    """
    if config.model.published is None:
        model = GMllm.build(config.model, manifest, texts)
        check_memory(model, config)
        return model
    check_memory(build_published(config.model, manifest, has_weights=False), config)
    dtype = torch.bfloat16 if config.zero.precision == "bf16" else torch.float32
    return build_published(config.model, manifest, dtype)


def pretraining_loss(engine: Any, export: TrainingExport, config: RunConfig) -> StepLoss:
    """Returns the loss of a step: flow matching outside the product + weight x cross-entropy of the description.

    Raises:
        ValueError: when the export has no training examples.
    """
    examples = examples_of_split(export, config.pretraining.preference_sharpness, "train")
    training = config.pretraining.training
    dropout = Dropout(config.data.group_dropout, config.data.text_dropout)

    def draw(step: int) -> GenerationBatch:
        key = BatchKey.of_rank(training.seed, step, training.batch_size, zero.rank(), zero.world_size())
        return pinned(draw_generation_batch(export, examples, key, dropout, lambda uniform: biased_time(uniform, 1.0)))

    batch_of = DrawnAhead(draw, config.data.num_batches_ahead, training.num_steps)
    return lambda step: batch_loss(engine, engine.module, to_device(batch_of(step), engine.device), config)


def batch_loss(
    predict: Callable[..., Prediction], model: GMllm, batch: GenerationBatch, config: RunConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss of one batch, and its parts, scalars.

    Args:
        predict: the model, or what wraps it for training.
        model: itself.
        batch: on the model's device.
        config: weights of the parts, length of the description.
    """
    settings, pictures, condition = config.pretraining, batch.pictures, batch.condition
    device = pictures.images.device
    tokens = tokenize(model.tokenizer, batch.descriptions, config.model.num_description_tokens, has_end=True)
    description = TokenBatch(tokens.ids.to(device), tokens.is_token.to(device))
    noisy, clean = noisy_pictures(model, pictures)
    prediction = predict(condition, noisy, description)
    errors = scene_errors(prediction.clean, clean, noisy.masks)
    generation = generation_loss(errors, pictures.time, settings.time_floor)
    assert prediction.description_logits is not None  # a description was given
    comprehension = description_loss(
        prediction.description_logits, description.ids, description.is_token, condition.is_null_group
    )
    loss = generation + settings.comprehension_weight * comprehension
    parts = {"generation_loss": generation, "comprehension_loss": comprehension}
    return loss, {**parts, **_binned(errors, pictures.time)}


def _binned(errors: Tensor, time: Tensor) -> dict[str, Tensor]:
    """Returns the summed error of low, middle and high noise over the batch size, comparable between steps."""
    bins = torch.bucketize(time, torch.tensor([1 / 3, 2 / 3], device=time.device))
    names = ("low", "middle", "high")
    return {f"clean_error_{name}_noise": 3.0 * (errors * (bins == i)).mean() for i, name in enumerate(names)}


if __name__ == "__main__":
    run_stage(main)
