"""Stage `bench_train`: how fast a recipe trains on this machine, and what it costs over a plain PyTorch loop.

    python -m osmf_models.stages.bench_train --recipe demo --output FILE.json [--steps N] [--set a.b=value]

One process, or as many as torch's launcher starts; no data is needed, nothing is learned. Both ways train the same
model on the same random batches, which lie on the device already: the DeepSpeed engine by the training loop's own step,
and a plain loop of AdamW and clipping (several processes: DistributedDataParallel) that holds its weights in the
recipe's precision, in bf16 without a master copy, so that it does less than the engine. Then steps of Group-DPO with
each kind of reference (`bench_preference.py`). Rank 0 writes the keys of `MEASUREMENT_KEYS`; with `--memory`, on a GPU,
also the memory of every ZeRO stage. `osmf bench train` runs it.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import statistics
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from osmf_models.config import RunConfig
from osmf_models.data.choice import PretrainingBatch
from osmf_models.data.collate import to_device
from osmf_models.data.synthetic import synthetic_batch, synthetic_manifest, synthetic_texts
from osmf_models.model.execution import prepare_layers
from osmf_models.model.gmllm import GMllm
from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.stages.bench_preference import PREFERENCE_KEYS, measure_preference
from osmf_models.stages.pretrain import batch_loss
from osmf_models.stages.run_record import run_stage
from osmf_models.training import zero
from osmf_models.training.flops import count_flops, peak_flops_per_second
from osmf_models.training.loop import learning_rate_at, read_metrics, train_step
from osmf_models.training.step_time import RunSteps, block_seconds, median_ratio, synchronize

logger = logging.getLogger(__name__)

MEASUREMENT_KEYS = {
    "recipe": "name of the recipe",
    "num_ranks": "processes that shared the batch",
    "device": "the GPU's name, or cpu",
    "num_devices": "GPUs of the machine; 0 without",
    "num_threads": "CPU threads of each process",
    "num_parameters": "of the model",
    "image_px": "side of the pictures",
    "batch_size": "examples of one step, over all ranks",
    "precision": "of weights and activations",
    "zero_stage": "of the engine",
    "is_compiled": "whether the layers were compiled",
    "is_checkpointed": "whether activations were computed again",
    "num_steps": "timed steps of each way",
    "deepspeed_seconds_per_step": "median over blocks, the project's training path",
    "plain_seconds_per_step": "median over blocks, the plain loop",
    "deepspeed_over_plain": "median of the ratios of neighbouring blocks; 1.1 is 10% slower",
    "deepspeed_samples_per_second": "examples per second, all ranks",
    "plain_samples_per_second": "examples per second, all ranks",
    "flops_per_step": "of forward and backward of the whole batch, without what is computed again",
    "deepspeed_model_flop_utilisation": "flops_per_step per second over the GPUs' peak; null without a known peak",
    "plain_model_flop_utilisation": "the same of the plain loop",
    **PREFERENCE_KEYS,
    "memory_by_zero_stage": "on a GPU, by stage: peak_bytes of a step, state_bytes between steps, is_compiled; or null",
    "torch_version": "of PyTorch",
    "deepspeed_version": "of DeepSpeed",
}

_NUM_BATCHES = 4  # in turn, so that no step sees the batch of the one before
_STEPS_PER_BLOCK = 3
_NUM_WARMUP_STEPS = 4


def main() -> None:
    """Runs the stage from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", required=True, help="name of a run in osmf_models/recipes.py")
    parser.add_argument("--output", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each way, rounded up to whole blocks")
    parser.add_argument("--memory", action="store_true", help="on a GPU, also the memory of every ZeRO stage")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="replaces a field")
    options = parser.parse_args()
    if options.steps < 1:
        raise ValueError(f"--steps {options.steps}: at least 1 step must be timed.")
    config = apply_overrides(load_recipe(options.recipe), options.set)
    with zero.process_group():
        measurement = measure(config, options.steps)
        gc.collect()
        num_blocks = -(-options.steps // _STEPS_PER_BLOCK)
        build = partial(build_model, config)
        measurement |= measure_preference(config, build, num_blocks, _STEPS_PER_BLOCK, _NUM_WARMUP_STEPS)
        measurement = {key: measurement[key] for key in MEASUREMENT_KEYS}
        if options.memory and torch.cuda.is_available():
            measurement["memory_by_zero_stage"] = {str(stage): stage_memory(config, stage) for stage in range(4)}
        if zero.rank() == 0:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(measurement, indent=1))


def measure(config: RunConfig, num_steps: int) -> dict[str, Any]:
    """Returns the keys of `MEASUREMENT_KEYS` that tell of pretraining; every process of the group must call it."""
    training, num_ranks = config.pretraining.training, zero.world_size()
    engine = build_engine(config)
    batches = device_batches(config, training.batch_size // num_ranks, engine.device)
    flops = training.batch_size * flops_per_example(config, engine.device)
    num_blocks = -(-num_steps // _STEPS_PER_BLOCK)
    ways = {"deepspeed": deepspeed_way(engine, batches, config), "plain": plain_way(engine.device, batches, config)}
    blocks = block_seconds(ways, num_blocks, _STEPS_PER_BLOCK, _NUM_WARMUP_STEPS)
    seconds = {name: statistics.median(values) for name, values in blocks.items()}
    num_parameters = sum(engine.module.num_trainable_parameters().values())
    peak = peak_flops_per_second(engine.device, config.zero.precision)
    has_gpu, zero_stage = engine.device.type == "cuda", engine.zero_optimization_stage()
    engine.destroy()
    return {
        "recipe": config.recipe,
        "num_ranks": num_ranks,
        "device": torch.cuda.get_device_name(engine.device) if has_gpu else "cpu",
        "num_devices": torch.cuda.device_count(),
        "num_threads": torch.get_num_threads(),
        "num_parameters": num_parameters,
        "image_px": config.data.image_px,
        "batch_size": training.batch_size,
        "precision": config.zero.precision,
        "zero_stage": zero_stage,
        "is_compiled": config.execution.is_compiled,
        "is_checkpointed": config.execution.is_checkpointed,
        "num_steps": num_blocks * _STEPS_PER_BLOCK,
        **{f"{name}_seconds_per_step": value for name, value in seconds.items()},
        "deepspeed_over_plain": median_ratio(blocks["deepspeed"], blocks["plain"]),
        **{f"{name}_samples_per_second": training.batch_size / value for name, value in seconds.items()},
        "flops_per_step": flops,
        **{
            f"{name}_model_flop_utilisation": flops / value / (peak * num_ranks) if peak else None
            for name, value in seconds.items()
        },
        "memory_by_zero_stage": None,
        "torch_version": torch.__version__,
        "deepspeed_version": version("deepspeed"),
    }


def build_model(config: RunConfig, *, is_prepared: bool = True) -> GMllm:
    """Returns the recipe's model with the same fresh weights each time."""
    torch.manual_seed(config.pretraining.training.seed)
    manifest = synthetic_manifest(config.data.image_px)
    texts = synthetic_texts(num_texts=1000, num_words=20, seed=0)
    with zero.device():
        model = GMllm.build(config.model, manifest, texts)
    return prepare_layers(model, config.execution, config.zero) if is_prepared else model


def build_engine(config: RunConfig) -> Any:
    """Returns the DeepSpeed engine around a fresh model."""
    return zero.build_engine(build_model(config), config.zero, config.pretraining.training)


def device_batches(config: RunConfig, size: int, device: torch.device) -> list[PretrainingBatch]:
    """Returns a few batches of `size` examples, with the recipe's share of choices, on the device; others each rank."""
    manifest, settings = synthetic_manifest(config.data.image_px), config.pretraining
    num_choices = round(size * settings.choice_batch_size / settings.training.batch_size)
    seeds = [1 + zero.rank() + zero.world_size() * number for number in range(_NUM_BATCHES)]
    return [
        to_device(synthetic_batch(manifest, size, seed, num_choices, settings.num_choice_pictures), device)
        for seed in seeds
    ]


def flops_per_example(config: RunConfig, device: torch.device) -> float:
    """Returns the operations of forward and backward for one example, of the layers as they were built.

    As few examples are counted as come with a whole row of pictures to choose from.
    """
    model = build_model(config, is_prepared=False).to(_dtype(config))
    size = config.pretraining.training.batch_size
    num_examples = size // math.gcd(size, config.pretraining.choice_batch_size)
    batch = device_batches(config, num_examples, device)[0]
    return count_flops(lambda: batch_loss(model, model, batch, config)[0].backward()) / num_examples


def deepspeed_way(engine: Any, batches: list[PretrainingBatch], config: RunConfig) -> RunSteps:
    """Returns the training loop's own steps, with its one reading of metrics at their end."""

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return batch_loss(engine, engine.module, batches[step % len(batches)], config)

    def run(first_step: int, num_steps: int) -> None:
        steps = range(first_step, first_step + num_steps)
        training = config.pretraining.training
        # Past the recipe's length the learning rate starts anew: below 0 the model would climb.
        read_metrics({step: train_step(engine, step_loss, step % training.num_steps, training) for step in steps})

    return run


def plain_way(device: torch.device, batches: list[PretrainingBatch], config: RunConfig) -> RunSteps:
    """Returns the steps of a plain PyTorch loop."""
    training = config.pretraining.training
    model = build_model(config).to(_dtype(config))
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.99), weight_decay=training.weight_decay, fused=device.type == "cuda"
    )
    wrapped: nn.Module = DistributedDataParallel(model, static_graph=True) if zero.world_size() > 1 else model

    def run(first_step: int, num_steps: int) -> None:
        for step in range(first_step, first_step + num_steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step % training.num_steps, training)
            loss, _ = batch_loss(wrapped, model, batches[step % len(batches)], config)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()

    return run


def stage_memory(config: RunConfig, stage: int) -> dict[str, Any]:
    """Returns what a step takes of the GPU's memory under a ZeRO stage; layers are not compiled under stage 3."""
    execution = replace(config.execution, is_compiled=config.execution.is_compiled and stage < 3)
    config = replace(config, zero=replace(config.zero, stage=stage), execution=execution)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    engine = build_engine(config)
    batches = device_batches(config, config.pretraining.training.batch_size // zero.world_size(), engine.device)
    torch.cuda.reset_peak_memory_stats()
    deepspeed_way(engine, batches[:1], config)(0, 2)
    synchronize()
    memory = {
        "peak_bytes": torch.cuda.max_memory_allocated() - before,
        "state_bytes": torch.cuda.memory_allocated() - before,
        "is_compiled": execution.is_compiled,
    }
    logger.info("ZeRO-%d: %s, %d bytes before", stage, memory, before)
    engine.destroy()
    return memory


def _dtype(config: RunConfig) -> torch.dtype:
    return torch.bfloat16 if config.zero.precision == "bf16" else torch.float32


if __name__ == "__main__":
    run_stage(main)
