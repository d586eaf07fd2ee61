"""The speed of Group-DPO with the reference's errors noted before training, against a frozen copy beside the policy.

Both ways train the same model by the same engine on the same pairs, in turns; what differs is where the reference's
errors come from. Noting them takes a forward pass of each step beforehand, which is part of neither way.
`bench_train.py` writes what is measured here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from osmf_models.config import RunConfig
from osmf_models.data.collate import PairBatch, PictureBatch, to_device
from osmf_models.data.synthetic import synthetic_batch, synthetic_manifest
from osmf_models.model.gmllm import GMllm
from osmf_models.training import zero
from osmf_models.training.loop import read_metrics, train_step
from osmf_models.training.preference_step import ReferenceOf, preference_step, reference_errors
from osmf_models.training.step_time import RunSteps, block_seconds, median_ratio

_NUM_BATCHES = 4


def measure_preference(
    config: RunConfig, build_model: Callable[[], GMllm], num_blocks: int, steps_per_block: int, num_warmup_steps: int
) -> dict[str, Any]:
    """Returns seconds per step of both ways and their ratio; every process of the group must call it.

    Args:
        config: of the run; a contrast between groups is left out.
        build_model: makes the model with the same fresh weights each time.
        num_blocks: of each way.
        steps_per_block: steps of a block.
        num_warmup_steps: of each way, before the clock runs.
    """
    config = replace(config, dpo=replace(config.dpo, contrast_weight=0.0))
    dpo = config.dpo
    engine = zero.build_engine(build_model(), config.zero, dpo.training)
    copy = build_model().to(engine.device, engine.module.denoiser.dtype).requires_grad_(False).eval()
    size = dpo.training.batch_size // zero.world_size()
    batches = [to_device(synthetic_pairs(config, size, seed), engine.device) for seed in range(_NUM_BATCHES)]
    noted = [reference_errors(copy, batch, dpo) for batch in batches]
    ways = {
        "cached": _way(engine, batches, lambda step, _: noted[step % len(batches)], config),
        "forward": _way(engine, batches, lambda _, batch: reference_errors(copy, batch, dpo), config),
    }
    blocks = block_seconds(ways, num_blocks, steps_per_block, num_warmup_steps)
    num_bytes = sum(one.numel() * one.element_size() for one in copy.parameters())
    engine.destroy()
    return {
        "dpo_batch_size": dpo.training.batch_size,
        "dpo_cached_seconds_per_step": statistics.median(blocks["cached"]),
        "dpo_forward_seconds_per_step": statistics.median(blocks["forward"]),
        "dpo_forward_over_cached": median_ratio(blocks["forward"], blocks["cached"]),
        "dpo_frozen_copy_bytes": num_bytes,
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
