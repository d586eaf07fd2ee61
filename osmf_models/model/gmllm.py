"""G-MLLM: reads product and group, predicts the description of the group, its choice of pictures, the clean ad picture.

The parts belong in their own files, losses in `objectives/`, saving and drawing in `pipeline.py`.

Shapes: `B` batch, `P` pictures (B, or 2B with two pictures per condition), `c h w` latents of one picture (its
pixels, unless there is an autoencoder), `S` conditioning tokens, `D` width, `L` description tokens, `V` vocabulary, `M`
pictures to choose from, `H W` their pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from osmf_models.config import ModelConfig
from osmf_models.data.choice import ChoiceBatch
from osmf_models.data.collate import Condition, PictureBatch
from osmf_models.model.backbone import (
    BackboneOutput,
    PicturesRead,
    TokenBatch,
    build_backbone,
    picture_words,
    read_pictures,
    read_product_and_group,
    tokenize,
    train_tokenizer,
)
from osmf_models.model.connector import Connector
from osmf_models.model.denoiser import ProductDenoiser
from osmf_models.model.group_encoder import GroupEncoder
from osmf_models.model.latents import AutoencoderLatents, Latents, PixelLatents, to_latents
from osmf_models.model.look_planner import LookPlanner, PlannedLook
from osmf_models.model.path import at_time
from osmf_models.model.published_denoiser import PublishedDenoiser
from osmf_models.records import ExportManifest


@dataclass(frozen=True)
class NoisyPictures:
    """What the denoiser is shown.

    Attributes:
        latents: x_t, (P, c, h, w).
        product: of the product; where latents are pixels, used under the mask only, (P, c, h, w).
        masks: share of each latent under the product, (P, 1, h, w).
        time: (P,).
    """

    latents: Tensor
    product: Tensor
    masks: Tensor
    time: Tensor


@dataclass(frozen=True)
class Prediction:
    """What the model says.

    Attributes:
        plan: of the looks that the groups prefer, (B,).
        clean: predicted clean latents, (P, c, h, w), or None without pictures.
        description_logits: (B, L, V), or None without a description.
        pictures_read: of the pictures that it was asked about, or None without any.
    """

    plan: PlannedLook
    clean: Tensor | None
    description_logits: Tensor | None
    pictures_read: PicturesRead | None = None


class GMllm(nn.Module):
    """The trainable whole."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        backbone: PreTrainedModel,
        group_encoder: GroupEncoder,
        connector: Connector,
        planner: LookPlanner,
        denoiser: ProductDenoiser | PublishedDenoiser,
        autoencoder: Any = None,
    ):
        super().__init__()
        self.tokenizer = tokenizer
        self.backbone, self.group_encoder, self.connector = backbone, group_encoder, connector
        self.planner, self.denoiser = planner, denoiser
        # Inside a tuple it is no part of this module, so that nothing trains, shards or checkpoints it.
        self._autoencoder = (None if autoencoder is None else autoencoder.requires_grad_(False),)

    @classmethod
    def build(cls, config: ModelConfig, manifest: ExportManifest, texts: list[str]) -> GMllm:
        """Returns a model with fresh weights for such an export, and a tokenizer trained on its `texts`.

        Raises:
            ValueError: when the config names published parts, which `published.py` puts together.
        """
        if config.published is not None:
            raise ValueError(
                "this recipe's model is put together from published parts: choose one that is built from scratch."
            )
        tokenizer = train_tokenizer(texts, config.vocab_size, config.num_title_tokens)
        names = list(manifest.group_feature_names)
        mean, scale = list(manifest.group_feature_mean), list(manifest.group_feature_scale)
        return cls(
            tokenizer,
            build_backbone(config, manifest.image_px, len(tokenizer)),
            GroupEncoder(names, mean, scale, config.num_group_tokens, config.width),
            Connector(config.num_queries, config.width, config.num_heads, config.connector_layers),
            LookPlanner(config.width),
            ProductDenoiser(
                manifest.image_px,
                config.patch_px,
                config.denoiser_layers,
                config.denoiser_heads,
                config.denoiser_head_width,
                config.width,
                config.refine_channels,
                config.refine_stride,
            ),
        )

    def forward(
        self,
        condition: Condition,
        pictures: NoisyPictures | None = None,
        description: TokenBatch | None = None,
        choice: ChoiceBatch | None = None,
        looks: Tensor | None = None,
    ) -> Prediction:
        """Returns the plan, and as far as asked for the clean pictures, the description's logits, and the choices.

        Args:
            condition: (B,).
            pictures: (P,); with P = 2B, picture i and i + B share condition i.
            description: (B, L).
            choice: pictures to choose from, under conditions of their own.
            looks: which the denoiser is told, one for each condition, (B, T); None tells it the plan.
        """
        read = self.read(condition, description)
        tokens = self.connector(read.hidden_states)  # (B, S, D)
        plan = self.planner.planned(tokens)
        clean = None
        if pictures is not None:
            told = self.planner.told(tokens, plan.mean if looks is None else looks)  # (B, S + 1, D)
            clean = self.draw_clean(pictures, told)  # (P, c, h, w)
        pictures_read = None if choice is None else self.read_pictures(choice.condition, choice.pictures)
        return Prediction(plan, clean, read.description_logits, pictures_read)

    @property
    def autoencoder(self) -> Any:
        """That of the latents, frozen, or None where they are pixels."""
        return self._autoencoder[0]

    @property
    def latents(self) -> Latents:
        """The space that pictures are drawn in."""
        return PixelLatents() if self.autoencoder is None else AutoencoderLatents(self.autoencoder)

    def num_parameters(self) -> dict[str, int]:
        """Returns, per part, how many parameters it has."""
        return {name: sum(one.numel() for one in part.parameters()) for name, part in self._parts().items()}

    def num_trainable_parameters(self) -> dict[str, int]:
        """Returns, per part, how many of its parameters are trained."""
        return {
            name: sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
            for name, part in self._parts().items()
        }

    def _parts(self) -> dict[str, nn.Module]:
        parts = dict(self.named_children())
        return parts if self.autoencoder is None else {**parts, "autoencoder": self.autoencoder}

    def draw_clean(self, pictures: NoisyPictures, tokens: Tensor) -> Tensor:
        """Returns the predicted clean latents (P, c, h, w), given conditioning tokens (B, S, D)."""
        dtype = self.denoiser.dtype
        tokens = tokens.repeat(len(pictures.time) // len(tokens), 1, 1)  # (P, S, D)
        latents, product, masks = (part.to(dtype) for part in (pictures.latents, pictures.product, pictures.masks))
        return self.denoiser(latents, product, masks, pictures.time, tokens).float()  # (P, c, h, w)

    def planned_look(self, condition: Condition) -> Tensor:
        """Returns the look that is to be drawn for the group, (B, T)."""
        return self.planner.within_range(self.planner.planned(self.connector(self.read(condition).hidden_states)).mean)

    def condition_tokens(self, condition: Condition) -> Tensor:
        """Returns what the denoiser is conditioned on, the planned look told, (B, S + 1, D)."""
        tokens = self.connector(self.read(condition).hidden_states)
        return self.planner.told(tokens, self.planner.within_range(self.planner.planned(tokens).mean))

    def read(self, condition: Condition, description: TokenBatch | None = None) -> BackboneOutput:
        """Returns what the language model makes of product and group."""
        queries = self.connector.query_tokens(len(condition.titles))  # (B, Q, D)
        return read_product_and_group(self.backbone, *self._shown(condition), queries, description)

    def read_pictures(self, condition: Condition, pictures: Tensor) -> PicturesRead:
        """Returns how well the group likes each picture: differences are logits of preferring one to another.

        Args:
            condition: product, title and group, (B,).
            pictures: of that product, in [0, 1], (B, M, 3, H, W).

        Raises:
            ValueError: when the tokenizer has no word for the question.
        """
        latents = to_latents(pictures).to(self.denoiser.dtype)
        return read_pictures(self.backbone, *self._shown(condition), latents, picture_words(self.tokenizer))

    def _shown(self, condition: Condition) -> tuple[Tensor, TokenBatch, Tensor]:
        """Returns what the language model reads first: product view, title (B, T), group tokens (B, K, D)."""
        device, dtype = condition.group_features.device, self.denoiser.dtype
        title = tokenize(self.tokenizer, condition.titles, self.tokenizer.model_max_length)
        return (
            to_latents(condition.product_view).to(dtype),
            title.to(device),
            self.group_encoder(condition.group_features.to(dtype), condition.is_null_group),
        )


def noisy_pictures(model: Callable[..., Prediction], pictures: PictureBatch) -> tuple[NoisyPictures, Tensor]:
    """Returns what the denoiser of `model`, or of what wraps it for training, is shown of pictures; and clean latents.

    Args:
        model: a `GMllm`, or an engine around one.
        pictures: on its device, with noise and time.
    """
    whole: Any = getattr(model, "module", model)
    latents: Latents = whole.latents
    clean, noise = latents.encode(pictures.images), latents.noise(pictures.noise)  # (P, c, h, w)
    product = latents.product(pictures.images, pictures.masks)
    noisy = NoisyPictures(at_time(clean, noise, pictures.time), product, latents.shares(pictures.masks), pictures.time)
    return noisy, clean
