"""The one adapter to `transformers`: an image-text-to-text model, and the tokenizer trained on the export's texts.

Reads [product picture, title, group tokens, queries, description] through `inputs_embeds`. What becomes of the
hidden states belongs in `connector.py` and `gmllm.py`.

Shapes: `B` batch, `N` image tokens, `T` title tokens, `K` group tokens, `Q` queries, `L` description tokens, `D` width,
`V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from osmf_models.config import ModelConfig
from osmf_models.model.qwen3_vl import MODEL_TYPE, picture_tokens

_PAD, _END, _UNKNOWN = "<pad>", "<end>", "<unk>"
_NUM_REMEMBERED_TEXTS = 65536  # a training sees the same titles and descriptions again and again, while a GPU waits


@dataclass(frozen=True)
class TokenBatch:
    """Padded texts: `ids` (B, T) and `is_token` (B, T), False at the padding."""

    ids: Tensor
    is_token: Tensor


@dataclass(frozen=True)
class BackboneOutput:
    """What one pass gives.

    Attributes:
        hidden_states: of the last layer at group tokens and queries, (B, K + Q, D).
        description_logits: for each token of the description, from what stands before it, (B, L, V); None without one.
    """

    hidden_states: Tensor
    description_logits: Tensor | None


def train_tokenizer(texts: Iterable[str], vocab_size: int, num_title_tokens: int) -> PreTrainedTokenizerFast:
    """Returns a byte-level BPE tokenizer of at most `vocab_size` entries, trained on `texts`, that cuts at a title."""
    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_PAD, _END, _UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        unk_token=_UNKNOWN,
        padding_side="right",
        model_max_length=num_title_tokens,
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str], length: int, has_end: bool = False) -> TokenBatch:
    """Returns `texts` cut and padded to exactly `length` tokens, closed by an end token if asked for."""
    end = tokenizer.eos_token if has_end else ""
    rows = [_tokens(tokenizer, text + end, length) for text in texts]
    return TokenBatch(torch.stack([ids for ids, _ in rows]), torch.stack([is_token for _, is_token in rows]))


@lru_cache(maxsize=_NUM_REMEMBERED_TEXTS)
def _tokens(tokenizer: PreTrainedTokenizerFast, text: str, length: int) -> tuple[Tensor, Tensor]:
    """Returns one text's ids and where they are no padding, (T,) each."""
    tokens = tokenizer([text], max_length=length, truncation=True, padding="max_length", return_tensors="pt")
    return tokens.input_ids[0], tokens.attention_mask[0].bool()


def build_backbone(config: ModelConfig, image_px: int, vocab_size: int) -> LlavaForConditionalGeneration:
    """Returns a small LLaVA (SigLIP vision, Qwen2 text) with fresh weights."""
    vision = SiglipVisionConfig(
        image_size=image_px,
        patch_size=config.vision_patch_px,
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.num_heads,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=config.width,
        intermediate_size=3 * config.width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    llava = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=vocab_size - 1,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(llava)


def read_product_and_group(
    backbone: PreTrainedModel,
    product_view: Tensor,
    title: TokenBatch,
    group_tokens: Tensor,
    queries: Tensor,
    description: TokenBatch | None = None,
) -> BackboneOutput:
    """Returns the hidden states that the picture is drawn from, and the logits of the group's description.

    The language model is causal and the description stands last, so it leaks nothing into the hidden states.

    Args:
        backbone: Qwen3-VL, or an image-text-to-text model whose `get_image_features` takes a picture alone.
        product_view: the product alone, in [-1, 1], (B, 3, H, W).
        title: (B, T).
        group_tokens: (B, K, D).
        queries: (B, Q, D).
        description: (B, L).
    """
    embed = backbone.get_input_embeddings()
    picture = picture_tokens(backbone, product_view) if backbone.config.model_type == MODEL_TYPE else None
    image = _image_tokens(backbone, product_view) if picture is None else picture.embeddings  # (B, N, D)
    parts = [image, embed(title.ids), group_tokens, queries]
    num_read, num_before = group_tokens.shape[1] + queries.shape[1], image.shape[1] + title.ids.shape[1]
    padding = [_ones(image), title.is_token, _ones(group_tokens), _ones(queries)]
    if description is not None:
        parts.append(embed(description.ids))
        padding.append(description.is_token)
    is_token = torch.cat(padding, dim=1)
    output = backbone(
        inputs_embeds=torch.cat(parts, dim=1),
        attention_mask=is_token.long(),
        position_ids=_positions(is_token) if picture is None else picture.positions(is_token),
        output_hidden_states=True,
        use_cache=False,
        logits_to_keep=description.ids.shape[1] + 1 if description is not None else 1,
        **({} if picture is None else picture.inputs),
    )
    hidden_states = output.hidden_states[-1][:, num_before : num_before + num_read]
    return BackboneOutput(hidden_states, output.logits[:, :-1] if description is not None else None)


def _positions(is_token: Tensor) -> Tensor:
    return (is_token.long().cumsum(1) - 1).clamp(min=0)


def _image_tokens(backbone: PreTrainedModel, product_view: Tensor) -> Tensor:
    get_features: Any = backbone.get_image_features
    features = get_features(pixel_values=product_view, return_dict=True).pooler_output
    return features if isinstance(features, Tensor) else torch.stack(list(features))


def _ones(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
