"""Puts a model together from published checkpoints: a Qwen3-VL, a Sana or Stable Diffusion 3, and its autoencoder.

Folders on this machine in the libraries' own formats, weights in safetensors; nothing is downloaded and no code of a
checkpoint is run. What of them is trained belongs in `lora.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from osmf_models.config import ModelConfig, PublishedConfig
from osmf_models.model.connector import Connector
from osmf_models.model.gmllm import GMllm
from osmf_models.model.group_encoder import GroupEncoder
from osmf_models.model.latents import AutoencoderLatents
from osmf_models.model.look_planner import LookPlanner
from osmf_models.model.lora import choose_trained
from osmf_models.model.published_denoiser import TRANSFORMERS, PublishedDenoiser
from osmf_models.model.qwen3_vl import MODEL_TYPE, picture_stride
from osmf_models.records import ExportManifest

_AUTOENCODERS: dict[str, Any] = {"AutoencoderDC": AutoencoderDC, "AutoencoderKL": AutoencoderKL}
_FAILURES = (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError, SafetensorError)
_PIXEL_MEAN = _PIXEL_DEVIATION = 0.5  # that bring pixels to [-1, 1], as the product is shown
_NUM_NAMED = 3


def build_published(
    config: ModelConfig, manifest: ExportManifest, dtype: torch.dtype = torch.float32, *, has_weights: bool = True
) -> GMllm:
    """Returns the model with published weights, everything between them fresh, and what is trained chosen.

    Args:
        config: names the folders.
        manifest: of the export: group features, side of the pictures.
        dtype: of all weights.
        has_weights: False makes the same model on the meta device: its sizes, without reading a weight.

    Raises:
        ValueError: when a folder is missing or holds something else, or the parts do not go together.
    """
    published = config.published
    if published is None:
        raise ValueError("this recipe names no published parts.")
    folders = _folders(published)
    backbone_config = _backbone_config(folders["backbone_path"])
    _check_width(config, backbone_config, folders["backbone_path"])
    with nullcontext() if has_weights else torch.device("meta"):
        backbone = _backbone(folders["backbone_path"], backbone_config, dtype, has_weights)
        transformer = _diffusers_part(folders["denoiser_path"], TRANSFORMERS, dtype, has_weights)
        autoencoder = _diffusers_part(folders["autoencoder_path"], _AUTOENCODERS, dtype, has_weights)
        width, px = _width(backbone_config), manifest.image_px
        _check_together(transformer, autoencoder, backbone_config, px)
        names, mean = list(manifest.group_feature_names), list(manifest.group_feature_mean)
        scale = list(manifest.group_feature_scale)
        model = GMllm(
            _tokenizer(folders["backbone_path"], config.num_title_tokens),
            backbone,
            GroupEncoder(names, mean, scale, config.num_group_tokens, width),
            Connector(config.num_queries, width, config.num_heads, config.connector_layers),
            LookPlanner(width),
            PublishedDenoiser.around(transformer, px, width, transformer.config["in_channels"]),
            autoencoder,
        )
        _speak_as_softly_as_words(model)
        choose_trained(model, published)
    return model.to(dtype).train()


@torch.no_grad()
def _speak_as_softly_as_words(model: GMllm) -> None:
    """Makes fresh queries and group tokens about as large as the embeddings of words, in place.

    The backbone learned from those: beside much larger tokens what its layers add would not be heard.
    """
    embeddings: Any = model.backbone.get_input_embeddings()
    deviation = embeddings.weight.float().std()
    model.connector.queries.weight.mul_(deviation)
    for parameter in model.group_encoder.layers[-1].parameters():
        parameter.mul_(deviation)


def _folders(published: PublishedConfig) -> dict[str, Path]:
    folders = {}
    for name in ("backbone_path", "denoiser_path", "autoencoder_path"):
        text = getattr(published, name)
        remedy = f"name the folder of a downloaded checkpoint by --set model.published.{name}=FOLDER."
        if not text:
            raise ValueError(f"model.published.{name} is empty: {remedy}")
        if not (Path(text) / "config.json").is_file():
            raise ValueError(f"model.published.{name}: {text} holds no config.json: {remedy}")
        folders[name] = Path(text)
    return folders


@contextmanager
def _told(folder: Path, kind: str) -> Iterator[None]:
    """Turns whatever a library raises into one line that names the folder."""
    try:
        yield
    except _FAILURES as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{folder} cannot be loaded as {kind} ({reason}): name a folder as `save_pretrained` writes it, with all "
            "its weights in safetensors."
        ) from error


def _backbone_config(folder: Path) -> Qwen3VLConfig:
    with _told(folder, "a Qwen3-VL"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type != MODEL_TYPE:
        raise ValueError(f"{folder} holds a model of type {config.model_type!r}, {MODEL_TYPE!r} is needed.")
    path = folder / "preprocessor_config.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    for name, needed in (("image_mean", _PIXEL_MEAN), ("image_std", _PIXEL_DEVIATION)):
        if any(value != needed for value in known.get(name, ())):
            raise ValueError(f"{path} names {name} {known[name]}; pictures are shown with {needed} alone.")
    return config


def _backbone(folder: Path, config: Qwen3VLConfig, dtype: torch.dtype, has_weights: bool) -> Any:
    if not has_weights:
        return Qwen3VLForConditionalGeneration(config)
    kind: Any = Qwen3VLForConditionalGeneration
    with _told(folder, "a Qwen3-VL"):
        model, loading = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
    _check_whole(folder, loading)
    return model


def _diffusers_part(folder: Path, classes: dict[str, Any], dtype: torch.dtype, has_weights: bool) -> Any:
    """Returns the model in `folder`, of one of `classes`."""
    kind = " or ".join(classes)
    with _told(folder, kind):
        config = json.loads((folder / "config.json").read_text())
        name = config.get("_class_name")
    if name not in classes:
        raise ValueError(f"{folder} holds a {name}, {kind} is needed.")
    if not has_weights:
        with _told(folder, kind):
            return classes[name].from_config(config)
    with _told(folder, kind):
        model, loading = classes[name].from_pretrained(
            folder, local_files_only=True, use_safetensors=True, torch_dtype=dtype, output_loading_info=True
        )
    _check_whole(folder, loading)
    return model


def _check_whole(folder: Path, loading: dict[str, Any]) -> None:
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} weights ({', '.join(missing[:_NUM_NAMED])}, ...): download it again."
        )


def _tokenizer(folder: Path, num_title_tokens: int) -> PreTrainedTokenizerFast:
    with _told(folder, "a tokenizer"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token is None or tokenizer.eos_token is None:
        raise ValueError(f"{folder}: its tokenizer has no token for padding, or none for the end of a text.")
    tokenizer.model_max_length, tokenizer.padding_side = num_title_tokens, "right"
    return tokenizer


def _width(backbone: Qwen3VLConfig) -> int:
    text: Any = backbone.text_config
    return int(text.hidden_size)


def _check_width(config: ModelConfig, backbone: Qwen3VLConfig, folder: Path) -> None:
    width = _width(backbone)
    if width % config.num_heads:
        raise ValueError(f"model.num_heads {config.num_heads} must divide the width {width} of {folder}.")


def _check_together(transformer: Any, autoencoder: Any, backbone: Qwen3VLConfig, image_px: int) -> None:
    latents, channels = AutoencoderLatents(autoencoder), transformer.config["in_channels"]
    if channels != latents.autoencoder.config["latent_channels"]:
        raise ValueError(
            f"the denoiser works on {channels} channels, the autoencoder gives "
            f"{latents.autoencoder.config['latent_channels']}: model.published.autoencoder_path must name its own."
        )
    strides = {
        "backbone": picture_stride(backbone),
        "denoiser": latents.stride * transformer.config["patch_size"],
    }
    for name, stride in strides.items():
        if image_px % stride:
            raise ValueError(f"pictures of {image_px} px do not fit the {name}: export at a multiple of {stride} px.")
