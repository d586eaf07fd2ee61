"""Stage `pretrain`: learns to comprehend groups (to describe them, and to choose for them) and to draw, all at once.

    python -m osmf_models.stages.pretrain --recipe tiny --data EXPORT --output DIR [--resume] [--set a.b=value]

Writes OUTPUT/model (a `GroupAdPipeline`), OUTPUT/sample_grid.png, OUTPUT/samples (pictures of each group by steps), and
OUTPUT/run.json last. Preference optimisation belongs in `group_dpo.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osmf_models.config import RunConfig
from osmf_models.data.ahead import DrawnAhead
from osmf_models.data.choice import CHOICE_STREAM, LooksScale, PretrainingBatch, choice_pairs, draw_choice_batch
from osmf_models.data.collate import BatchKey, Dropout, draw_generation_batch, images_and_masks, pinned, to_device
from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.data.examples import examples_of_split
from osmf_models.model.backbone import tokenize
from osmf_models.model.execution import prepare_layers
from osmf_models.model.gmllm import GMllm, Prediction, noisy_pictures
from osmf_models.model.path import biased_time
from osmf_models.model.published import build_published
from osmf_models.objectives.comprehension import choice_loss, description_loss, looks_loss
from osmf_models.objectives.generation import generation_loss, scene_errors, warmth_errors
from osmf_models.records import ExportManifest
from osmf_models.stages.group_samples import SampledTraining, write_group_samples
from osmf_models.stages.run_record import StageArguments, run_stage, stage_arguments, stage_parser, write_run_record
from osmf_models.stages.sample_grid import mean_scene_distance, write_sample_grid
from osmf_models.training import zero
from osmf_models.training.choice_figures import choice_figures
from osmf_models.training.course import course_of
from osmf_models.training.hand_over import HandOver
from osmf_models.training.loop import StepLoss, train
from osmf_models.training.memory import check_memory

logger = logging.getLogger(__name__)

_NUM_STANDARD = 1000
_NUM_JUDGEMENTS = 10  # of held-out products, in a training
_NUM_JUDGED = 64  # pictures each time, or one batch where that is more
_HELD_OUT, _HELD_OUT_STREAM = ("validation", "test"), 2


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
    config.pretraining.check()
    torch.manual_seed(config.pretraining.training.seed)
    texts = [*export.products.title.fillna(""), *export.groups.description]
    model = build_model(config, export.manifest, texts)
    model.planner.standardise_by(*training_pictures(export))
    num_trainable = model.num_trainable_parameters()
    logger.info("trainable parameters: %s", num_trainable)
    logger.info("of parameters: %s", model.num_parameters())
    prepare_layers(model, config.execution, config.zero)
    engine = zero.build_engine(model, config.zero, config.pretraining.training)
    step_loss = pretraining_loss(engine, export, config)
    training, output = config.pretraining.training, arguments.output
    hand_over = HandOver(engine, training, config.model.published)
    course = course_of(config, "pretraining", export.manifest.data_hash)
    held_out = HeldOutLosses(engine, export, config)
    num_samplings, num_steps = config.pretraining.num_samplings, training.num_steps
    samples = SampledTraining(hand_over, export, num_samplings, num_steps, output, held_out)
    result = train(
        engine, step_loss, training, output, arguments.is_resumed, samples, companion=hand_over, course=course
    )
    pipeline = hand_over.save_model(output / "model")
    device = engine.device
    engine.destroy()
    if pipeline is not None:
        drawn = write_sample_grid(pipeline.to(device), export, config.pretraining, output / "sample_grid.png")
        write_group_samples(pipeline, export, output, result.last_step)
        metrics = {f"train/{name}": value for name, value in result.final_metrics.items()} | held_out.latest
        metrics |= {"num_parameters": float(sum(num_trainable.values())), "seconds_per_step": result.seconds_per_step}
        metrics |= {f"num_trainable/{part}": float(count) for part, count in num_trainable.items()}
        metrics["sample_grid/scene_distance"] = mean_scene_distance(drawn, export)
        metrics["num_examples_without_picture"] = float(export.num_examples_without_picture)
        if config.pretraining.choice_batch_size:
            metrics |= choice_figures(pipeline, export)
        write_run_record(arguments, "pretrain", export.manifest, metrics, time.monotonic() - started)


def build_model(config: RunConfig, manifest: ExportManifest, texts: list[str]) -> GMllm:
    """Returns the recipe's model: fresh, or put together from published parts; every process must call it.

    Raises:
        ValueError: when it cannot fit the device's memory, told before published weights are read; when a published
            part is missing, or is no such part; or when published parts are to choose between pictures.
    """
    if config.model.published is None:
        # Sizes alone, by a tokenizer of some texts, so that no weight is made of a model that cannot fit.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            sizes = GMllm.build(config.model, manifest, texts[:_NUM_STANDARD])
        check_memory(sizes, config, config.pretraining.training)
        model = GMllm.build(config.model, manifest, texts)
        check_memory(model, config, config.pretraining.training)
        return model
    if config.pretraining.choice_batch_size:
        raise ValueError("pretraining.choice_batch_size must be 0: published parts are not asked about pictures.")
    if config.pretraining.warmth_weight != 1.0:
        raise ValueError("pretraining.warmth_weight must be 1: published parts draw in latents, not in red and blue.")
    check_memory(build_published(config.model, manifest, has_weights=False), config, config.pretraining.training)
    dtype = torch.bfloat16 if config.zero.precision == "bf16" else torch.float32
    return build_published(config.model, manifest, dtype)


def training_pictures(export: TrainingExport) -> tuple[Tensor, Tensor]:
    """Returns pictures of split train, the first thousand, with masks, (B, 3, H, W) and (B, 1, H, W)."""
    rows = export.examples.loc[export.examples.split == "train", "creative_index"]
    return images_and_masks(export, np.sort(rows.unique())[:_NUM_STANDARD])


def pretraining_loss(engine: Any, export: TrainingExport, config: RunConfig) -> StepLoss:
    """Returns the loss of a step, of examples and pairs that are functions of (seed, step, index) alone.

    Without pairs to choose from, which the log tells, choosing is not learned.

    Raises:
        ValueError: when the export has no training examples, or a batch cannot be shared by the processes.
    """
    settings, training = config.pretraining, config.pretraining.training
    examples, pairs = examples_of_split(export, settings.preference_sharpness, "train"), choice_pairs(export, "train")
    dropout = Dropout(config.data.group_dropout, config.data.text_dropout)
    if settings.choice_batch_size % zero.world_size():
        told = f"pretraining.choice_batch_size {settings.choice_batch_size} cannot be shared equally by"
        raise ValueError(f"{told} {zero.world_size()} processes.")
    if pairs.empty and settings.choice_batch_size:
        logger.warning("no pairs of split train with pictures: the model does not learn to choose between pictures")

    scale = LooksScale.of(export, pairs) if len(pairs) and settings.choice_batch_size else None

    def draw(step: int) -> PretrainingBatch:
        ranks = (zero.rank(), zero.world_size())
        key = BatchKey.of_rank(training.seed, step, training.batch_size, *ranks)
        generation = draw_generation_batch(export, examples, key, dropout, _time_of)
        if scale is None:
            return pinned(PretrainingBatch(generation))
        key = BatchKey.of_rank(training.seed, step, settings.choice_batch_size, *ranks, stream=CHOICE_STREAM)
        choice = draw_choice_batch(export, pairs, key, dropout, settings.num_choice_pictures, scale)
        return pinned(PretrainingBatch(generation, choice))

    batch_of = DrawnAhead(draw, config.data.num_batches_ahead, training.num_steps)
    return lambda step: batch_loss(engine, engine.module, to_device(batch_of(step), engine.device), config)


class HeldOutLosses:
    """Watches a training, see `loop.train`: what its losses are on products that it does not learn from, ten times.

    Pictures, noise and times are the same each time, so that a curve tells of learning alone. Every process must call
    its methods.

    Attributes:
        latest: `held_out/NAME` of the parts of `batch_loss`; empty before the first time, and without such products.
    """

    def __init__(self, engine: Any, export: TrainingExport, config: RunConfig):
        num_steps, sharpness = config.pretraining.training.num_steps, config.pretraining.preference_sharpness
        self.latest: dict[str, float] = {}
        self._engine, self._export, self._config = engine, export, config
        self._due_steps: set[int] = set()
        if export.examples.split.isin(_HELD_OUT).any():
            self._examples = examples_of_split(export, sharpness, *_HELD_OUT)
            self._due_steps = {number * num_steps // _NUM_JUDGEMENTS for number in range(1, _NUM_JUDGEMENTS + 1)}
        else:
            logger.warning("no pictures of held-out products: losses are told of products of training alone")

    def begin(self, first_step: int) -> None:
        """Does nothing: it is the same wherever training starts."""

    @torch.no_grad()
    def after_step(self, done: int) -> dict[str, float]:
        """Returns the losses when they are due, means over processes."""
        if done not in self._due_steps:
            return {}
        self._engine.eval()
        parts = [batch_loss(self._engine, self._engine.module, batch, self._config)[1] for batch in self._batches()]
        self._engine.train()
        values = torch.stack([torch.stack([value.float() for value in part.values()]) for part in parts])
        means = zero.mean_over_ranks(values).mean(0).tolist()
        self.latest = {f"held_out/{name}": value for name, value in zip(parts[0], means, strict=True)}
        return self.latest

    def is_over(self) -> bool:
        """Returns that training goes on."""
        return False

    def _batches(self) -> Iterator[PretrainingBatch]:
        settings, ranks = self._config.pretraining, (zero.rank(), zero.world_size())
        size, seed = settings.training.batch_size, settings.training.seed
        for number in range(max(1, _NUM_JUDGED // size)):
            key = BatchKey.of_rank(seed, number, size, *ranks, stream=_HELD_OUT_STREAM)
            drawn = draw_generation_batch(self._export, self._examples, key, Dropout(), _time_of)
            yield to_device(PretrainingBatch(drawn), self._engine.device)


def batch_loss(
    predict: Callable[..., Prediction], model: GMllm, batch: PretrainingBatch, config: RunConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss of one batch, and its parts, scalars.

    It is the flow matching error outside the product, and weighted the cross-entropies of description and choice, the
    latter with the error of what the pictures are taken to look like.

    Args:
        predict: the model, or what wraps it for training.
        model: itself.
        batch: on the model's device.
        config: weights of the parts, length of the description.
    """
    settings, pictures, condition = config.pretraining, batch.generation.pictures, batch.generation.condition
    device, length = pictures.images.device, config.model.num_description_tokens
    description = tokenize(model.tokenizer, batch.generation.descriptions, length, has_end=True).to(device)
    noisy, clean = noisy_pictures(model, pictures)
    looks = model.planner.looks(pictures.images, pictures.masks)
    prediction = predict(condition, noisy, description, batch.choice, looks)
    assert prediction.clean is not None  # pictures were given
    errors = scene_errors(prediction.clean, clean, noisy.masks)
    weighted = errors
    if settings.warmth_weight != 1.0:
        weighted = errors + (settings.warmth_weight - 1.0) * warmth_errors(prediction.clean, clean, noisy.masks)
    generation = generation_loss(weighted, pictures.time, settings.time_floor)
    assert prediction.description_logits is not None  # a description was given
    comprehension = description_loss(
        prediction.description_logits, description.ids, description.is_token, condition.is_null_group
    )
    plan = prediction.plan.deviances(looks).mean()
    loss = generation + settings.comprehension_weight * comprehension + settings.plan_weight * plan
    parts = {"generation_loss": generation, "comprehension_loss": comprehension, "plan_loss": plan}
    if batch.choice is not None:
        read = prediction.pictures_read
        assert read is not None  # pictures were given
        parts["choice_loss"] = choice_loss(read.likings, batch.choice.target, batch.choice.is_known)
        parts["looks_loss"] = looks_loss(read.looks, batch.choice.looks)
        loss = loss + settings.choice_weight * (parts["choice_loss"] + parts["looks_loss"])
    return loss, {**parts, **_binned(errors, pictures.time)}


def _time_of(uniform: float) -> float:
    """Returns the time of a uniform draw: every level of noise as often."""
    return biased_time(uniform, 1.0)


def _binned(errors: Tensor, time: Tensor) -> dict[str, Tensor]:
    """Returns the summed error of low, middle and high noise over the batch size, comparable between steps."""
    bins = torch.bucketize(time, torch.tensor([1 / 3, 2 / 3], device=time.device))
    names = ("low", "middle", "high")
    return {f"clean_error_{name}_noise": 3.0 * (errors * (bins == i)).mean() for i, name in enumerate(names)}


if __name__ == "__main__":
    run_stage(main)
