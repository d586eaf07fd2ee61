"""The one adapter to `transformers`: an image-text-to-text model, and the tokenizer trained on the export's texts.

Reads [product picture, title, group tokens, queries, description], and to choose between pictures [product picture,
title, group tokens, picture, asked, picture, asked, ...], a picture in one token, through `inputs_embeds`. What becomes
of the hidden states belongs in `connector.py` and `gmllm.py`.

Shapes: `B` batch, `N` image tokens, `T` title tokens, `K` group tokens, `Q` queries, `L` description tokens, `M`
pictures to choose from, `F` features of a picture, `D` width, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from osmf_models.model.scene_statistics import LOOK_NAMES

_PAD, _END, _UNKNOWN = "<pad>", "<end>", "<unk>"
_ASKED = "<asked>"  # stands behind a picture, where the group's liking of it is read off
_LOOKS = tuple(f"<{name}>" for name in LOOK_NAMES)  # answers at a picture: how much of that there is in it
_NUM_REMEMBERED_TEXTS = 65536  # a training sees the same titles and descriptions again and again, while a GPU waits


@dataclass(frozen=True)
class TokenBatch:
    """Padded texts: `ids` (B, T) and `is_token` (B, T), False at the padding."""

    ids: Tensor
    is_token: Tensor

    def to(self, device: torch.device) -> TokenBatch:
        """Returns the texts on a device; what it was given before is not waited for."""
        return TokenBatch(self.ids.to(device, non_blocking=True), self.is_token.to(device, non_blocking=True))


@dataclass(frozen=True)
class BackboneOutput:
    """What one pass gives.

    Attributes:
        hidden_states: of the last layer at group tokens and queries, (B, K + Q, D).
        description_logits: for each token of the description, from what stands before it, (B, L, V); None without one.
    """

    hidden_states: Tensor
    description_logits: Tensor | None


@dataclass(frozen=True)
class PictureWords:
    """Ids of words: `asked` stands behind a picture, `looks` answer what it looks like."""

    asked: int
    looks: tuple[int, ...]


@dataclass(frozen=True)
class PicturesRead:
    """What a row of pictures is taken for.

    Attributes:
        likings: the logit of word `asked` behind each picture, (B, M); only differences within a row say something.
        looks: the logits of words `looks` at each picture, (B, M, F): its look, standardised over pictures.
    """

    likings: Tensor
    looks: Tensor


def train_tokenizer(texts: Iterable[str], vocab_size: int, num_title_tokens: int) -> PreTrainedTokenizerFast:
    """Returns a byte-level BPE tokenizer of at most `vocab_size` entries, trained on `texts`, that cuts at a title."""
    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_PAD, _END, _UNKNOWN, _ASKED, *_LOOKS],
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


def picture_words(tokenizer: PreTrainedTokenizerFast) -> PictureWords:
    """Returns the ids of the words that a group is asked about pictures with.

    Raises:
        ValueError: when the tokenizer has no such words.
    """
    ids: Any = tokenizer.convert_tokens_to_ids([_ASKED, *_LOOKS])
    asked, *looks = ids
    if {asked, *looks} & {None, tokenizer.unk_token_id}:
        raise ValueError(
            f"the tokenizer has no word {_ASKED}: this model cannot choose between pictures; pretrain again."
        )
    return PictureWords(asked, tuple(looks))


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
    backbone = LlavaForConditionalGeneration(llava)
    _scale_to_width(backbone.model.multi_modal_projector)
    return backbone


def _scale_to_width(projector: torch.nn.Module) -> None:
    """Draws the weights between vision and language with deviation 1 / sqrt(inputs), whatever the width.

    The libraries' 0.02 suits widths of thousands; in a narrow model pictures would be read faintly, and what depends on
    group and picture together would be learned late.
    """
    for parameter in projector.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)


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
    output = backbone(
        **_sequence(parts, padding, None if picture is None else picture.positions),
        output_hidden_states=True,
        logits_to_keep=description.ids.shape[1] + 1 if description is not None else 1,
        **({} if picture is None else picture.inputs),
    )
    hidden_states = output.hidden_states[-1][:, num_before : num_before + num_read]
    return BackboneOutput(hidden_states, output.logits[:, :-1] if description is not None else None)


def read_pictures(
    backbone: PreTrainedModel,
    product_view: Tensor,
    title: TokenBatch,
    group_tokens: Tensor,
    pictures: Tensor,
    words: PictureWords,
) -> PicturesRead:
    """Returns how well the group likes each picture, and what each looks like.

    Pictures are read after the group, each as the mean of its tokens, and after those before it, so that it can be
    compared with them. The mean of the group's tokens, and its product with the picture, are added to the word behind
    it: who is asked and what is seen meet there, because attention to a few tokens far back is learned late.

    Args:
        backbone: an image-text-to-text model whose `get_image_features` takes a picture alone.
        product_view: the product alone, in [-1, 1], (B, 3, H, W).
        title: (B, T).
        group_tokens: (B, K, D).
        pictures: of the product, in [-1, 1], (B, M, 3, H, W).
        words: ids of the words that are asked with, and answered in.
    """
    size, count = pictures.shape[:2]
    embed = backbone.get_input_embeddings()
    images = _image_tokens(backbone, torch.cat([product_view, pictures.flatten(0, 1)]))  # (B + B * M, N, D)
    seen = images[size:].mean(1).unflatten(0, (size, count))  # (B, M, D)
    word = embed(torch.full((size, 1), words.asked, device=images.device))  # (B, 1, D)
    group = group_tokens.mean(1, keepdim=True)  # (B, 1, D)
    question = word + group + seen * group  # (B, M, D)
    row = torch.stack([seen, question], dim=2).flatten(1, 2)  # (B, 2M, D)
    parts = [images[:size], embed(title.ids), group_tokens, row]
    padding = [_ones(parts[0]), title.is_token, _ones(group_tokens), _ones(row)]
    logits: Tensor = backbone(**_sequence(parts, padding), logits_to_keep=2 * count).logits.float()  # (B, 2M, V)
    return PicturesRead(
        likings=logits[:, 1::2, words.asked], looks=torch.stack([logits[:, ::2, word] for word in words.looks], dim=2)
    )


def _sequence(
    parts: list[Tensor], padding: list[Tensor], positions: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Any]:
    """Returns what the language model reads: embedded parts (B, *, D), and where each is no padding (B, *).

    Positions are those of the tokens in a row, unless `positions` makes them of where tokens are, (B, T).
    """
    is_token = torch.cat(padding, dim=1)
    return {
        "inputs_embeds": torch.cat(parts, dim=1),
        "attention_mask": is_token.long(),
        "position_ids": (is_token.long().cumsum(1) - 1).clamp(min=0) if positions is None else positions(is_token),
        "use_cache": False,
    }


def _image_tokens(backbone: PreTrainedModel, pictures: Tensor) -> Tensor:
    get_features: Any = backbone.get_image_features
    features = get_features(pixel_values=pictures, return_dict=True).pooler_output
    return features if isinstance(features, Tensor) else torch.stack(list(features))


def _ones(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
