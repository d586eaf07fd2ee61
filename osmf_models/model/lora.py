"""What of a published model is trained: nothing, low-rank additions (LoRA) by `peft`, or everything.

What is saved holds the additions merged into plain layers; the training goes on with its own, untouched. Where they
alone are trained, the model without them is the one that training started from. Loading published checkpoints belongs
in `published.py`.

Source: Hu et al., LoRA, arXiv 2106.09685.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from osmf_models.config import PublishedConfig, RunConfig
from osmf_models.model.gmllm import GMllm
from osmf_models.model.published_denoiser import PublishedDenoiser, input_convolution

_ADAPTER = "default"
# Matched at the end of a layer's name; the vision tower calls its layers otherwise and stays as it is.
_LANGUAGE_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_DENOISER_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]


def choose_trained(model: GMllm, published: PublishedConfig) -> None:
    """Makes what `published` says of backbone and denoiser trainable, in place; the rest of them is frozen.

    Group encoder, connector and planner are trained whole. So is what joins a published denoiser to them: the
    projection of the condition, and its first convolution, which learns to see the product.
    """
    _choose(model.backbone, published.backbone_training, _LANGUAGE_LAYERS, published)
    denoiser = model.denoiser
    if not isinstance(denoiser, PublishedDenoiser):
        return
    _choose(denoiser.transformer, published.denoiser_training, _DENOISER_LAYERS, published)
    input_convolution(denoiser.transformer).requires_grad_(True)


def train_additions_alone(model: nn.Module) -> None:
    """Freezes everything but LoRA's additions, in place, also what `choose_trained` trains whole."""
    model.requires_grad_(False)
    for layer in _layers_with_additions(model):
        layer.enable_adapters(True)


def check_additions(config: RunConfig) -> None:
    """Looks at whether Group-DPO can train additions alone, and find its reference beneath them.

    Raises:
        ValueError: when it cannot, with the remedy.
    """
    dpo, published = config.dpo, config.model.published
    remedy = "or set dpo.is_adapters_only=false and dpo.reference=cached."
    if dpo.reference != "adapter_off" and not dpo.is_adapters_only:
        return
    if published is None:
        raise ValueError(
            f"recipe {config.recipe!r} has no LoRA to train alone: choose one of published parts, {remedy}"
        )
    if not dpo.is_adapters_only:
        raise ValueError(
            "dpo.reference=adapter_off needs everything but the additions to stay as pretraining left it: set "
            "dpo.is_adapters_only=true, or dpo.reference=cached."
        )
    kinds = (published.backbone_training, published.denoiser_training)
    if "whole" in kinds or "lora" not in kinds:
        raise ValueError(
            f"model.published.backbone_training and denoiser_training are {kinds[0]} and {kinds[1]}: to train LoRA "
            f"alone one must be lora and none whole, {remedy}"
        )
    if dpo.error_space == "look" and published.backbone_training != "lora":
        raise ValueError(
            "dpo.error_space=look trains what is planned, which additions to the denoiser do not change: set "
            f"model.published.backbone_training=lora, {remedy}"
        )


@contextmanager
def without_additions(model: nn.Module) -> Iterator[None]:
    """Lets `model` compute what it would without LoRA's additions, which are trained again afterwards.

    Nothing is copied. Do not learn inside, nor between a forward pass and its backward pass.
    """
    layers = _layers_with_additions(model)
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def put_additions_on(model: GMllm, published: PublishedConfig) -> None:
    """Gives a model of whatever parts additions, in place, and trains them alone: what a benchmark needs of them."""
    for part, layers in ((model.backbone, _LANGUAGE_LAYERS), (model.denoiser.transformer, _DENOISER_LAYERS)):
        inject_adapter_in_model(_lora(layers, published), part, _ADAPTER)
    train_additions_alone(model)


def _choose(part: Any, training: str, layers: list[str], published: PublishedConfig) -> None:
    part.requires_grad_(training == "whole")
    if training == "lora":
        part.add_adapter(_lora(layers, published))


def _lora(layers: list[str], published: PublishedConfig) -> LoraConfig:
    return LoraConfig(r=published.lora_rank, lora_alpha=published.lora_alpha, target_modules=layers)


def _layers_with_additions(model: nn.Module) -> list[LoraLayer]:
    return [layer for layer in model.modules() if isinstance(layer, LoraLayer)]


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Puts plain layers in the place of LoRA's, what it learned added in; its own come back afterwards, untouched."""
    layers = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, LoraLayer)
    ]
    # Parts that know of an adapter would save it alone.
    parts = [part for part in model.modules() if part.__dict__.get("_hf_peft_config_loaded")]
    try:
        for part in parts:
            part._hf_peft_config_loaded = False  # type: ignore[assignment]
        for parent, name, layer in layers:
            setattr(parent, name, _plain(layer))
        yield
    finally:
        for parent, name, layer in layers:
            setattr(parent, name, layer)
        for part in parts:
            part._hf_peft_config_loaded = True  # type: ignore[assignment]


@torch.no_grad()
def _plain(layer: Any) -> nn.Linear:
    """Returns W + scale B A as a layer of its own, on the CPU."""
    base = layer.get_base_layer()
    plain = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, dtype=base.weight.dtype)
    plain.weight.copy_(base.weight + layer.get_delta_weight(_ADAPTER).to(base.weight.dtype))
    if base.bias is not None:
        plain.bias.copy_(base.bias)
    return plain
