"""Writes checkpoints of the published classes with tiny random weights, in the formats that published ones come in."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderDC, AutoencoderKL, SanaTransformer2DModel, SD3Transformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def write_backbone(folder: Path, texts: list[str]) -> Path:
    """Qwen3-VL of 2 layers; a picture of 32 px is 4 x 4 tokens."""
    tokenizer = qwen_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 4,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(1)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    known = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 4, "merge_size": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(known))
    return folder


def qwen_tokenizer(texts: list[str]) -> Qwen2Tokenizer:
    """Byte-level BPE of 300 entries, and Qwen's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return Qwen2Tokenizer(
        vocab=model["vocab"], merges=merges, eos_token="<|im_end|>", additional_special_tokens=SPECIAL[1:]
    )


def write_sana(folder: Path) -> Path:
    """Sana of 2 layers over 8 channels."""
    torch.manual_seed(2)
    SanaTransformer2DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=24,
        sample_size=8,
        patch_size=1,
    ).save_pretrained(folder)
    return folder


def write_deep_compression(folder: Path) -> Path:
    """DC-AE from 32 px to 8 x 8 x 8, with the kinds of layers of Sana's."""
    torch.manual_seed(3)
    AutoencoderDC(
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types=["ResBlock", "ResBlock", "EfficientViTBlock"],
        decoder_block_types=["ResBlock", "ResBlock", "EfficientViTBlock"],
        encoder_block_out_channels=[8, 8, 16],
        decoder_block_out_channels=[8, 8, 16],
        encoder_layers_per_block=[1, 1, 1],
        decoder_layers_per_block=[1, 1, 1],
        encoder_qkv_multiscales=[[], [], [5]],
        decoder_qkv_multiscales=[[], [], [5]],
        upsample_block_type="interpolate",
        downsample_block_type="conv",
        scaling_factor=0.41407,
    ).save_pretrained(folder)
    return folder


def write_sd3(folder: Path) -> Path:
    """Stable Diffusion 3.5's transformer of 2 layers over 4 channels, the first with a second attention."""
    torch.manual_seed(4)
    SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=16,
        pooled_projection_dim=12,
        out_channels=4,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ).save_pretrained(folder)
    return folder


def write_kl(folder: Path) -> Path:
    """A variational autoencoder from 32 px to 4 x 16 x 16, scaled and shifted as Stable Diffusion 3's."""
    torch.manual_seed(5)
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[8, 16],
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).save_pretrained(folder)
    return folder
