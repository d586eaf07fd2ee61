"""What a recipe takes of a device is told before it is put there."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from small_checkpoints import qwen_tokenizer
from test_stages import run
from transformers import Qwen3VLConfig

from osmf_models.config import ZeroConfig
from osmf_models.data.synthetic import synthetic_manifest
from osmf_models.model.lora import train_additions_alone
from osmf_models.model.published import build_published
from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.training.memory import memory_need

QWEN3_VL_2B = {
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
    },
    "vision_config": {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Configs of the published sizes without weights; those of Sana are the classes' own defaults."""
    root = tmp_path_factory.mktemp("sizes")
    Qwen3VLConfig(**QWEN3_VL_2B).save_pretrained(root / "qwen")
    qwen_tokenizer(["a shoe"]).save_pretrained(root / "qwen")
    kinds = ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3
    with torch.device("meta"):
        SanaTransformer2DModel().save_config(root / "sana")
        AutoencoderDC(
            encoder_block_types=kinds,
            decoder_block_types=kinds,
            encoder_layers_per_block=[2, 2, 2, 3, 3, 3],
            upsample_block_type="interpolate",
            downsample_block_type="conv",
            scaling_factor=0.41407,
        ).save_config(root / "dc")
    return {"backbone_path": root / "qwen", "denoiser_path": root / "sana", "autoencoder_path": root / "dc"}


def paths(folders) -> list[str]:
    return [f"model.published.{name}={folder}" for name, folder in folders.items()]


def test_need_of_hand_sized_models():
    """100 parameters of which 10 are trained, over 2 processes."""
    bf16 = {stage: memory_need(100, 10, ZeroConfig(stage, "bf16"), 2) for stage in range(4)}
    assert [(one.weights, one.gradients, one.optimizer) for one in bf16.values()] == [
        (200, 20, 120),
        (200, 20, 60),
        (200, 10, 60),
        (100, 10, 60),
    ]
    fp32 = memory_need(100, 10, ZeroConfig(0, "fp32"), 2)
    assert (fp32.weights, fp32.gradients, fp32.optimizer, fp32.total) == (400, 40, 80, 520)
    assert "weights 100 x 4 B / 1" in fp32.arithmetic
    averaging = memory_need(100, 10, ZeroConfig(0, "fp32"), 2, has_average=True)
    assert (averaging.average, averaging.total) == (20, 540)
    assert averaging.arithmetic.endswith("average 10 x 4 B / 2 = 0.0 GB")
    copying = memory_need(100, 10, ZeroConfig(3, "bf16"), 2, has_copy=True)
    assert (copying.weights, copying.copy, copying.total) == (100.0, 200.0, bf16[3].total + 200.0)
    assert copying.arithmetic.endswith("frozen copy 100 x 2 B = 0.0 GB")


def test_recipe_of_published_parts_has_the_parameters_that_its_docstring_tells(folders):
    recipe = apply_overrides(load_recipe("qwen3_vl_sana"), paths(folders))
    model = build_published(recipe.model, synthetic_manifest(recipe.data.image_px), has_weights=False)
    millions = {name: round(count / 1e6) for name, count in model.num_parameters().items()}
    fresh = {"group_encoder": 67, "connector": 202, "planner": 17}
    assert millions == {"backbone": 2162, **fresh, "denoiser": 1632, "autoencoder": 312}
    trained = {name: round(count / 1e6) for name, count in model.num_trainable_parameters().items()}
    assert trained == {"backbone": 35, **fresh, "denoiser": 28, "autoencoder": 0}
    total, num_trainable = sum(model.num_parameters().values()), sum(model.num_trainable_parameters().values())
    need = memory_need(total, num_trainable, recipe.zero, 1, recipe.pretraining.training.ema_decay > 0.0)
    assert (round(total / 1e6), round(num_trainable / 1e6)) == (4393, 349)
    assert (round(need.weights / 1e9, 1), round((need.gradients + need.optimizer) / 1e9, 1)) == (8.8, 4.9)
    assert round(need.average / 1e9, 1) == 1.4
    train_additions_alone(model)
    num_trainable = sum(model.num_trainable_parameters().values())
    need = memory_need(total, num_trainable, recipe.zero, 1, has_copy=True)
    assert round(num_trainable / 1e6) == 58
    assert (round((need.gradients + need.optimizer) / 1e9, 1), round(need.copy / 1e9, 1)) == (0.8, 8.8)


def test_recipe_from_scratch_that_cannot_fit_is_refused_before_a_weight_is_made(export_folder, tmp_path):
    """Its weights alone would take terabytes: making them first would end the process without a word."""
    wide = ("--set", "model.width=131072", "--set", "model.text_layers=8")
    done = run("pretrain", "--data", export_folder, "--output", tmp_path, *wide)
    assert done.returncode == 2, done.stderr[-2000:]
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: recipe 'tiny' needs")
    assert "raise zero.stage and the number of processes" in line


def test_recipe_that_cannot_fit_is_refused_before_a_weight_is_read(folders, export_folder, tmp_path):
    """There are no weights to read; the vocabulary takes terabytes."""
    qwen = tmp_path / "qwen"
    larger = {**QWEN3_VL_2B, "text_config": {**QWEN3_VL_2B["text_config"], "vocab_size": 2**31}}
    Qwen3VLConfig(**larger).save_pretrained(qwen)
    qwen_tokenizer(["a shoe"]).save_pretrained(qwen)
    sets = [part for one in paths({**folders, "backbone_path": qwen}) for part in ("--set", one)]
    done = run("pretrain", "--data", export_folder, "--output", tmp_path / "out", *sets, recipe="qwen3_vl_sana")
    assert done.returncode == 2, done.stderr[-2000:]
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: recipe 'qwen3_vl_sana' needs")
    assert "before any activation (weights 4,4" in line
    assert "raise zero.stage and the number of processes" in line
