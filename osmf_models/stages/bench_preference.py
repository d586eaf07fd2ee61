"""The speed of Group-DPO by where the reference's errors come from, in each space that errors are taken in.

All ways of one comparison train the same model by the same engine on the same pairs, in turns. Of a model trained
whole: errors noted before training, and a frozen copy beside the policy. Of LoRA's additions trained alone: these two,
and the policy itself with the additions off. Noting errors takes a forward pass of each step beforehand, which is part
of no way. `bench_train.py` writes what is measured here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from osmf_models.config import DpoConfig, PublishedConfig, RunConfig
from osmf_models.data.collate import PairBatch, PictureBatch, to_device
from osmf_models.data.synthetic import synthetic_batch, synthetic_manifest
from osmf_models.model.gmllm import GMllm
from osmf_models.model.lora import put_additions_on
from osmf_models.training import zero
from osmf_models.training.loop import read_metrics, train_step
from osmf_models.training.preference_step import (
    ReferenceOf,
    errors_without_additions,
    preference_step,
    reference_errors,
)
from osmf_models.training.step_time import RunSteps, block_seconds, median_ratio

Blocks = dict[str, list[float]]
"""Seconds per step, block by block, by way."""
Timing = Callable[[Mapping[str, RunSteps]], Blocks]

_SPACES = {
    "look": "errors of planned looks, for which nothing is drawn",
    "clean": "errors of drawn pictures",
}
_BY_SPACE = {
    "cached_seconds_per_step": "median over blocks, all weights trained, the reference's errors noted before",
    "forward_seconds_per_step": "median over blocks, all weights trained, a frozen copy beside the policy",
    "forward_over_cached": "median of the ratios of neighbouring blocks",
    "adapters_cached_seconds_per_step": "median over blocks, LoRA alone trained, the reference's errors noted before",
    "adapters_forward_seconds_per_step": "median over blocks, LoRA alone trained, a frozen copy beside the policy",
    "adapter_off_seconds_per_step": "median over blocks, LoRA alone trained, the policy without it as reference",
    "adapter_off_over_forward": "median of the ratios of neighbouring blocks, LoRA alone trained",
}
PREFERENCE_KEYS = {
    "dpo_batch_size": "pairs of one step of Group-DPO, over all ranks",
    **{
        f"dpo_{space}_{key}": f"{told}; {space}: {kind}"
        for space, kind in _SPACES.items()
        for key, told in _BY_SPACE.items()
    },
    "dpo_frozen_copy_bytes": "of the frozen copy's weights, which each process holds whole",
    "dpo_adapter_bytes": "of LoRA's additions, which the policy holds beside its frozen weights",
}

_NUM_BATCHES = 4
_WIDTHS_PER_RANK = 32  # additions of rank width / 32: a few percent of the weights, as with published models


def measure_preference(
    config: RunConfig, build_model: Callable[[], GMllm], num_blocks: int, steps_per_block: int, num_warmup_steps: int
) -> dict[str, Any]:
    """Returns the keys of `PREFERENCE_KEYS`; every process of the group must call it.

    Args:
        config: of the run; a contrast between groups is left out.
        build_model: makes the model with the same fresh weights each time.
        num_blocks: of each way.
        steps_per_block: steps of a block.
        num_warmup_steps: of each way, before the clock runs.
    """
    config = replace(config, dpo=replace(config.dpo, contrast_weight=0.0))
    timing = partial(
        block_seconds, num_blocks=num_blocks, steps_per_block=steps_per_block, num_warmup_steps=num_warmup_steps
    )
    size = config.dpo.training.batch_size // zero.world_size()
    batches = [to_device(synthetic_pairs(config, size, seed), zero.device()) for seed in range(_NUM_BATCHES)]
    dtype = torch.bfloat16 if config.zero.precision == "bf16" else torch.float32
    copy = build_model().to(zero.device(), dtype).requires_grad_(False).eval()
    measure = partial(_blocks_by_space, copy=copy, batches=batches, config=config, timing=timing)
    whole = measure(build_model(), ("cached", "forward"))
    model = build_model()
    put_additions_on(model, PublishedConfig(lora_rank=max(1, config.model.width // _WIDTHS_PER_RANK)))
    num_added = sum(model.num_trainable_parameters().values())
    additions = measure(model, ("cached", "forward", "adapter_off"))
    return {
        "dpo_batch_size": config.dpo.training.batch_size,
        **{
            f"dpo_{space}_{name}": value
            for space in _SPACES
            for name, value in _figures(whole[space], additions[space]).items()
        },
        "dpo_frozen_copy_bytes": sum(one.numel() for one in copy.parameters()) * dtype.itemsize,
        "dpo_adapter_bytes": num_added * dtype.itemsize,
    }


def _blocks_by_space(
    model: GMllm, names: Sequence[str], copy: nn.Module, batches: list[PairBatch], config: RunConfig, timing: Timing
) -> dict[str, Blocks]:
    """Returns what training `model` takes in each space with the references of `names`, in turns."""
    engine = zero.build_engine(model, config.zero, config.dpo.training)
    blocks = {}
    for space in _SPACES:
        in_space = replace(config, dpo=replace(config.dpo, error_space=space))
        references = _references(engine, copy, batches, in_space.dpo)
        blocks[space] = timing({name: _way(engine, batches, references[name], in_space) for name in names})
    engine.destroy()
    return blocks


def _references(engine: Any, copy: nn.Module, batches: list[PairBatch], dpo: DpoConfig) -> dict[str, ReferenceOf]:
    """Returns whence errors come, by the names that `DpoConfig.reference` gives it."""
    noted = [reference_errors(copy, batch, dpo) for batch in batches]
    return {
        "cached": lambda step, _: noted[step % len(batches)],
        "forward": lambda _, batch: reference_errors(copy, batch, dpo),
        "adapter_off": lambda _, batch: errors_without_additions(engine, batch, dpo),
    }


def _figures(whole: Blocks, additions: Blocks) -> dict[str, float]:
    """Returns the keys of `_BY_SPACE` from blocks of a model trained whole, and of additions trained alone."""
    return {
        "cached_seconds_per_step": statistics.median(whole["cached"]),
        "forward_seconds_per_step": statistics.median(whole["forward"]),
        "forward_over_cached": median_ratio(whole["forward"], whole["cached"]),
        "adapters_cached_seconds_per_step": statistics.median(additions["cached"]),
        "adapters_forward_seconds_per_step": statistics.median(additions["forward"]),
        "adapter_off_seconds_per_step": statistics.median(additions["adapter_off"]),
        "adapter_off_over_forward": median_ratio(additions["adapter_off"], additions["forward"]),
    }


def synthetic_pairs(config: RunConfig, size: int, seed: int) -> PairBatch:
    """Returns `size` random pairs, noise and time shared within each."""
    manifest = synthetic_manifest(config.data.image_px)
    examples = [synthetic_batch(manifest, size, 100 + 2 * seed + side).generation for side in range(2)]
    chosen, rejected = (example.pictures for example in examples)
    pictures = PictureBatch(
        images=torch.cat([chosen.images, rejected.images]),
        masks=torch.cat([chosen.masks, rejected.masks]),
        noise=chosen.noise.repeat(2, 1, 1, 1),
        time=chosen.time.repeat(2),
    )
    return PairBatch(examples[0].condition, pictures, torch.full((size,), 0.95), torch.zeros(size, dtype=torch.long))


def _way(engine: Any, batches: list[PairBatch], reference_of: ReferenceOf, config: RunConfig) -> RunSteps:
    """Returns the training loop's own steps, with its one reading of metrics at their end."""
    training = config.dpo.training
    step_loss = preference_step(engine, lambda step: batches[step % len(batches)], reference_of, config.dpo)

    def run(first_step: int, num_steps: int) -> None:
        steps = range(first_step, first_step + num_steps)
        read_metrics({step: train_step(engine, step_loss, step % training.num_steps, training) for step in steps})

    return run
