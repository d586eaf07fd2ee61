"""The runs: each is one function that returns a whole config; a variant replaces fields of another.

What a field means belongs in `config.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from osmf_models.config import DpoConfig, ModelConfig, PretrainingConfig, RunConfig, TrainingConfig, ZeroConfig


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
    """Minutes on two CPU cores at 32 px: soft pictures that follow the group in colour and light."""
    return RunConfig(
        recipe="demo",
        pretraining=PretrainingConfig(
            training=TrainingConfig(
                num_steps=1200, batch_size=16, learning_rate=1.5e-3, warmup_steps=30, log_every=20, checkpoint_every=400
            )
        ),
        dpo=DpoConfig(
            training=TrainingConfig(
                num_steps=300, batch_size=16, learning_rate=5e-4, warmup_steps=10, log_every=10, checkpoint_every=100
            ),
            beta=400.0,
            anchor_weight=20.0,
        ),
    )


def demo_gpu() -> RunConfig:
    """The demo's model trained longer on one machine with GPUs, in bf16 under ZeRO-2."""
    base = demo()
    pretraining = replace(base.pretraining.training, num_steps=4000, batch_size=256)
    dpo = replace(base.dpo.training, num_steps=1000, batch_size=128)
    return replace(
        base,
        recipe="demo_gpu",
        pretraining=replace(base.pretraining, training=pretraining),
        dpo=replace(base.dpo, training=dpo),
        zero=ZeroConfig(stage=2, precision="bf16"),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {"tiny": tiny, "demo": demo, "demo_gpu": demo_gpu}


def load_recipe(name: str) -> RunConfig:
    """Returns the config of recipe `name`.

    Raises:
        ValueError: when there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; known: {', '.join(RECIPES)}.")
    return RECIPES[name]()
