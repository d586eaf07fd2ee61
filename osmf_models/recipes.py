"""The runs: each is one function that returns a whole config; a variant replaces fields of another.

What a field means belongs in `config.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from osmf_models.config import (
    DataConfig,
    DpoConfig,
    ExecutionConfig,
    ModelConfig,
    PretrainingConfig,
    PublishedConfig,
    RunConfig,
    TrainingConfig,
    ZeroConfig,
)


def tiny() -> RunConfig:
    """Seconds on a CPU: shows that everything runs, not that anything is learned."""
    return RunConfig(
        recipe="tiny",
        model=ModelConfig(
            width=32,
            num_heads=2,
            vision_layers=1,
            text_layers=1,
            connector_layers=1,
            vocab_size=256,
            num_description_tokens=24,
            denoiser_layers=1,
            denoiser_heads=2,
            denoiser_head_width=16,
            refine_channels=8,
        ),
        pretraining=PretrainingConfig(
            training=TrainingConfig(num_steps=8, batch_size=8, warmup_steps=2, log_every=2, checkpoint_every=4),
            choice_batch_size=4,
            num_choice_pictures=4,
            num_grid_rows=2,
            num_grid_groups=2,
            num_sampling_steps=2,
        ),
        dpo=DpoConfig(
            training=TrainingConfig(num_steps=6, batch_size=4, warmup_steps=2, log_every=2, checkpoint_every=3),
            num_evaluation_pairs=4,
            num_evaluation_draws=2,
        ),
    )


def demo() -> RunConfig:
    """Minutes on two CPU cores at 32 px: soft pictures that follow the group in colour, light and texture."""
    return RunConfig(
        recipe="demo",
        model=ModelConfig(num_description_tokens=40),
        pretraining=PretrainingConfig(
            training=TrainingConfig(
                num_steps=900, batch_size=16, learning_rate=1.5e-3, warmup_steps=30, log_every=20, checkpoint_every=300
            ),
            warmth_weight=5.0,
            num_samplings=2,
        ),
        dpo=DpoConfig(
            training=TrainingConfig(
                num_steps=300, batch_size=64, learning_rate=1e-3, warmup_steps=10, log_every=10, checkpoint_every=100
            ),
            num_evaluation_pairs=256,
            evaluate_every=50,
            patience=3,
        ),
    )


def demo_gpu() -> RunConfig:
    """The demo's model trained longer on one machine with GPUs, in bf16 under ZeRO-2."""
    base = demo()
    pretraining = replace(base.pretraining.training, num_steps=4000, batch_size=256, ema_decay=0.9999)
    dpo = replace(base.dpo.training, num_steps=1000, batch_size=128, ema_decay=0.9999)
    return replace(
        base,
        recipe="demo_gpu",
        pretraining=replace(base.pretraining, training=pretraining, choice_batch_size=64),
        dpo=replace(base.dpo, training=dpo),
        zero=ZeroConfig(stage=2, precision="bf16"),
    )


def h200() -> RunConfig:
    """One GPU of the H100 or H200 class at 256 px, from scratch, in bf16, compiled: 613 million parameters.

    Layers are wide and few, so that matrix products are large. The denoiser (11 layers of 1,536, 450 million
    parameters) sees 256 patches of 16 px; the convolutions behind it work on cells of 4 px, so that they reach 12 px,
    three quarters of a patch, as the demo's do. The language model (width 1,024: 4 layers of vision over 256 tokens,
    4 of text over 384, 2 of connector over 40) does a quarter of the work.

    Memory: 2 bytes of weights, 4 of master weights and 8 of Adam's moments for each parameter, 8.6 GB, and 1 GB of
    DeepSpeed's bucket stay; a step adds gradients (1.2 GB, at its end 2.4 in fp32) and 0.3 GB of activations for each
    example: with a batch of 128 a measured peak of 50 GB of an H100's 80, to which the running average of the weights
    adds 2.4 GB, 4 bytes for each parameter. By that an H200's 141 GB hold 384, and `execution.is_checkpointed` is for
    smaller cards. Work: 0.86 TFLOP an example, 111 a step, its share of a row of pictures to choose from among it.
    Decoded pictures take up to 8.6 GB of host memory, batches drawn ahead 0.3 GB each. Learning rates and steps are not
    tuned.
    """
    return RunConfig(
        recipe="h200",
        model=ModelConfig(
            width=1024,
            num_heads=16,
            vision_layers=4,
            vision_patch_px=16,
            text_layers=4,
            vocab_size=4096,
            num_title_tokens=24,
            num_description_tokens=64,
            num_group_tokens=8,
            num_queries=32,
            connector_layers=2,
            denoiser_layers=11,
            denoiser_heads=12,
            denoiser_head_width=128,
            patch_px=16,
            refine_channels=64,
            refine_stride=4,
        ),
        data=DataConfig(image_px=256, num_batches_ahead=8, num_cached_pictures=4096),
        pretraining=PretrainingConfig(
            training=TrainingConfig(
                num_steps=50_000,
                batch_size=128,
                learning_rate=2e-4,
                warmup_steps=1000,
                weight_decay=0.01,
                log_every=50,
                checkpoint_every=2500,
                ema_decay=0.9999,
            ),
            choice_batch_size=8,
            num_choice_pictures=4,
            warmth_weight=5.0,
        ),
        dpo=DpoConfig(
            training=TrainingConfig(
                num_steps=2000,
                batch_size=64,
                learning_rate=2e-5,
                warmup_steps=100,
                log_every=20,
                checkpoint_every=500,
                ema_decay=0.9999,
            ),
        ),
        zero=ZeroConfig(stage=1, precision="bf16"),
        execution=ExecutionConfig(is_compiled=True),
    )


def qwen3_vl_sana() -> RunConfig:
    """One GPU of 40 GB or more at 512 px: Qwen3-VL-2B draws through Sana-1.6B, both by LoRA, in bf16.

    Downloaded checkpoints are named by `--set model.published.backbone_path=FOLDER` (Qwen3-VL-2B-Instruct),
    `denoiser_path` and `autoencoder_path` (`transformer` and `vae` of Sana_1600M_512px_diffusers). Other sizes of
    Qwen3-VL and Sana, and Stable Diffusion 3 or 3.5 with its autoencoder, load the same way. Group-DPO needs no
    folders: what pretraining hands over is whole.

    Parameters, in millions: backbone 2,162, of which LoRA 35; denoiser 1,632, of which LoRA 23 and what joins it to
    the rest 5; autoencoder 312, frozen; group encoder 67, connector 202 and planner 17, fresh. In all 4,393, of which
    349 trained.

    Memory: 2 bytes of weights for each parameter, 8.8 GB; for each trained one 2 of gradient, 4 of master weights and 8
    of Adam's moments, 4.9 GB, and 4 of the running average, 1.4 GB; 1 GB of DeepSpeed's bucket. An example adds, layers
    computed again in the backward pass, 418 tokens x 2,048 x 28 layers x 2 bytes = 48 MB, 256 latents x 2,240 x 20
    layers x 2 bytes = 23 MB, and 64 x 151,936 logits in 14 bytes with what the loss keeps of them = 136 MB: 0.2 GB, 6.6
    GB for a batch of 32. The autoencoder takes about 3 GB for 8 pictures at once. That makes 25 GB, and 45 GB with a
    batch of 128. A pair of Group-DPO has two pictures and no logits. Group-DPO trains LoRA alone, 58 million, and its
    reference is the same model without it: 0.8 GB of gradients and optimiser, where a frozen copy would take 8.8 more.
    These are counts, no measurements; rates and steps are not tuned.
    """
    return RunConfig(
        recipe="qwen3_vl_sana",
        model=ModelConfig(
            num_heads=16,
            num_title_tokens=24,
            num_description_tokens=64,
            num_group_tokens=8,
            num_queries=64,
            connector_layers=4,
            published=PublishedConfig(),
        ),
        data=DataConfig(image_px=512, num_batches_ahead=4, num_cached_pictures=512),
        pretraining=PretrainingConfig(
            training=TrainingConfig(
                num_steps=20_000,
                batch_size=32,
                learning_rate=1e-4,
                warmup_steps=500,
                weight_decay=0.01,
                log_every=50,
                checkpoint_every=2000,
                ema_decay=0.9999,
            ),
            choice_batch_size=0,
            num_sampling_steps=20,
        ),
        dpo=DpoConfig(
            training=TrainingConfig(
                num_steps=2000,
                batch_size=32,
                learning_rate=2e-5,
                warmup_steps=100,
                log_every=20,
                checkpoint_every=500,
                ema_decay=0.9999,
            ),
            is_adapters_only=True,
            reference="adapter_off",
        ),
        zero=ZeroConfig(stage=1, precision="bf16"),
        execution=ExecutionConfig(is_checkpointed=True),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "tiny": tiny,
    "demo": demo,
    "demo_gpu": demo_gpu,
    "h200": h200,
    "qwen3_vl_sana": qwen3_vl_sana,
}


def load_recipe(name: str) -> RunConfig:
    """Returns the config of recipe `name`.

    Raises:
        ValueError: when there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; known: {', '.join(RECIPES)}.")
    return RECIPES[name]()
