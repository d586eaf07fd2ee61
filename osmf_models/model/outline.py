"""A model without its weights, in a folder: tokenizer, what each part is built of, and the frozen autoencoder whole.

With the weights by name it becomes a pipeline on the CPU, wherever they come from: a training that ends, or one of its
checkpoints. Drawing belongs in `pipeline.py`, gathering weights in `training/masters.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from osmf_models.config import PublishedConfig
from osmf_models.model.gmllm import GMllm
from osmf_models.model.lora import choose_trained, merged
from osmf_models.model.pipeline import GroupAdPipeline

OUTLINE_NAME = "outline"
_FORMAT = "osmf-model-outline/1"
_TRAINED_NAME = "trained.json"
_INDEX_NAME = "model_index.json"
_PARTS = ("group_encoder", "connector", "planner", "denoiser")  # behind the backbone, as `GMllm` takes them


def write_outline(model: GMllm, published: PublishedConfig | None, folder: Path) -> None:
    """Writes what `save_pipeline` needs of `model` besides its weights.

    Args:
        model: as it is trained; its parameters are not looked at and may be shared out over processes.
        published: what of published parts is trained, as `choose_trained` was told; None for whole layers.
        folder: to write.
    """
    GroupAdPipeline.of(model).save_config(folder)
    tokenizer = deepcopy(model.tokenizer)
    tokenizer.backend_tokenizer.no_truncation()  # at which length it cut the last text is no part of the model
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder / "tokenizer")
    model.backbone.config.save_pretrained(folder / "backbone")
    model.backbone.generation_config.save_pretrained(folder / "backbone")
    for name in _PARTS:
        getattr(model, name).save_config(folder / name)
    if model.autoencoder is not None:
        model.autoencoder.save_pretrained(folder / "autoencoder", safe_serialization=True)
    told = {
        "format": _FORMAT,
        "published": None if published is None else asdict(published),
        "trained": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
    }
    (folder / _TRAINED_NAME).write_text(json.dumps(told, indent=1, sort_keys=True))


def save_pipeline(outline: Path, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes the pipeline of an outline and weights, all in fp32, LoRA merged.

    Args:
        outline: what `write_outline` wrote; from a checkpoint only once that was verified.
        weights: parameters and persistent buffers by their names in the model, on the CPU.
        folder: to write.

    Raises:
        ValueError: when the outline is another version's, or the weights are not those of its model.
    """
    model = _with_weights(_build(outline), weights)
    with merged(model):
        GroupAdPipeline.of(model).save_pretrained(folder, safe_serialization=True)


def trained_names(outline: Path) -> list[str]:
    """Returns the names of the trained parameters, in the model's order.

    Raises:
        ValueError: when the outline is another version's.
    """
    names: list[str] = _told(outline)["trained"]
    return names


def _build(outline: Path) -> GMllm:
    """Returns the model on the meta device, the autoencoder with its weights."""
    told = _told(outline)
    index = _read(outline / _INDEX_NAME)
    kinds: dict[str, Any] = {
        name: getattr(import_module(kind[0]), kind[1])
        for name, kind in index.items()
        if isinstance(kind, list) and kind[0] is not None
    }
    tokenizer = kinds["tokenizer"].from_pretrained(outline / "tokenizer", local_files_only=True)
    with torch.device("meta"):
        config = kinds["backbone"].config_class.from_pretrained(outline / "backbone", local_files_only=True)
        parts = [kinds["backbone"](config)]
        for name in _PARTS:
            known = kinds[name].load_config(outline / name, local_files_only=True)
            parts.append(kinds[name].from_config(known))
        model = GMllm(tokenizer, *parts)
        if told["published"] is not None:
            choose_trained(model, PublishedConfig(**told["published"]))
    if "autoencoder" not in kinds:
        return model
    known = {"torch_dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    autoencoder = kinds["autoencoder"].from_pretrained(outline / "autoencoder", **known)
    autoencoder.register_to_config(_name_or_path="")  # whence it was read is no part of the model
    parts.append(autoencoder)
    return GMllm(tokenizer, *parts)


def _with_weights(model: GMllm, weights: Mapping[str, Tensor]) -> GMllm:
    """Puts `weights` in their places, without a copy, and returns the model."""
    first_names: dict[int, str] = {}
    parameters = list(model.named_parameters(remove_duplicate=False))
    names = {name for name, _ in parameters}
    buffers = [name for name in model.state_dict() if name not in names]
    fresh: dict[str, nn.Parameter] = {}
    for name, parameter in parameters:
        first = first_names.setdefault(id(parameter), name)
        if first == name:
            fresh[name] = nn.Parameter(_checked(weights, name, parameter), requires_grad=False)
        owner, leaf = _owner(model, name)
        setattr(owner, leaf, fresh[first])
    for name in buffers:
        owner, leaf = _owner(model, name)
        owner._buffers[leaf] = _checked(weights, name, owner._buffers[leaf])
    return model


def _checked(weights: Mapping[str, Tensor], name: str, built: Tensor | None) -> Tensor:
    if name not in weights or built is None or weights[name].shape != built.shape:
        raise ValueError(f"the weights are not those of the model: {name} is missing or of another shape.")
    return weights[name]


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _told(outline: Path) -> dict[str, Any]:
    told = _read(outline / _TRAINED_NAME)
    if told.get("format") != _FORMAT:
        raise ValueError(f"{outline} is no outline of a model that this version reads ({told.get('format')!r}).")
    return told


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
