"""How a model's repeated layers are run: compiled, or with their activations computed again in the backward pass.

One kind of layer makes one graph, whatever its depth, so that compiling takes seconds a kind. Weights, their names and
what is saved stay as they are. What a layer computes belongs in its own file.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from osmf_models.config import ExecutionConfig, ZeroConfig
from osmf_models.model.gmllm import GMllm


def prepare_layers(model: GMllm, execution: ExecutionConfig, zero: ZeroConfig, backend: str = "inductor") -> GMllm:
    """Makes `model` run its layers as `execution` says, in place, and returns it.

    Args:
        model: with its layers as they were built.
        execution: what to do.
        zero: how its parameters will be spread.
        backend: of `torch.compile`.

    Raises:
        ValueError: when compiled layers are asked for under ZeRO-3, which gathers parameters inside a layer.
    """
    if execution.is_compiled and zero.stage == 3:
        raise ValueError(
            "ZeRO-3 gathers parameters inside layers and cannot compile them: execution.is_compiled=false."
        )
    if execution.is_checkpointed:
        model.backbone.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.denoiser.transformer.enable_gradient_checkpointing()
    if execution.is_compiled:
        for layer in compiled_parts(model):
            layer.compile(backend=backend, dynamic=False)
    return model


def compiled_parts(model: GMllm) -> Iterator[nn.Module]:
    """Yields what compiling applies to: every layer that a list of equal layers holds."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len({type(layer) for layer in module}) == 1:
            yield from module
