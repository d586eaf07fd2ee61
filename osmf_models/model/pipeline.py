"""What a trained model is handed over as: a `diffusers` pipeline that draws one ad picture per product and group.

It also says which of two pictures of a product a group prefers, as far as pretraining has taught it.

Arrays in, arrays out; no torch needed by its user. Training belongs in `training/` and `stages/`.

Shapes: `B` pictures, `F` group features, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from osmf_models.data.collate import Condition, product_on_grey
from osmf_models.data.dataset import normalised_features
from osmf_models.model.connector import Connector
from osmf_models.model.denoiser import ProductDenoiser
from osmf_models.model.gmllm import GMllm, NoisyPictures
from osmf_models.model.group_encoder import GroupEncoder
from osmf_models.model.latents import Latents
from osmf_models.model.look_planner import LookPlanner
from osmf_models.model.published_denoiser import PublishedDenoiser
from osmf_models.model.sampler import CleanPrediction, GuidedPredictions, Steering, integrate, steered
from osmf_models.objectives.comprehension import both_orders

_NUM_PICTURES_AT_ONCE = 128
_NUM_NUDGES = 2
_PIXELS_AT_ONCE = _NUM_PICTURES_AT_ONCE * 256**2


class GroupAdPipeline(DiffusionPipeline):
    """Draws, for a product and a group of users, the scene that the group prefers around the product."""

    tokenizer: PreTrainedTokenizerFast
    backbone: PreTrainedModel
    group_encoder: GroupEncoder
    connector: Connector
    planner: LookPlanner
    denoiser: ProductDenoiser | PublishedDenoiser
    autoencoder: Any

    _optional_components = ["autoencoder"]  # noqa: RUF012

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
        self.register_modules(
            tokenizer=tokenizer,
            backbone=backbone,
            group_encoder=group_encoder,
            connector=connector,
            planner=planner,
            denoiser=denoiser,
            autoencoder=autoencoder,
        )

    @classmethod
    def of(cls, model: GMllm) -> GroupAdPipeline:
        """Returns a pipeline that shares the weights of `model`."""
        parts = (model.backbone, model.group_encoder, model.connector, model.planner, model.denoiser)
        return cls(model.tokenizer, *parts, model.autoencoder)

    @property
    def gmllm(self) -> GMllm:
        """The parts as one trainable module; it shares their weights."""
        parts = (self.backbone, self.group_encoder, self.connector, self.planner, self.denoiser)
        return GMllm(self.tokenizer, *parts, self.autoencoder)

    @property
    def image_px(self) -> int:
        """Side of the pictures that the model draws."""
        return self.denoiser.config["image_px"]

    @torch.no_grad()
    def __call__(
        self,
        product_image: NDArray[np.floating],
        mask: NDArray[np.floating],
        title: Sequence[str],
        group_features: NDArray[np.floating] | None,
        num_inference_steps: int = 12,
        guidance_scale: float = 1.0,
        text_guidance_scale: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | int | None = None,
    ) -> NDArray[np.float32]:
        """Returns ad pictures (B, H, W, 3) in [0, 1], the product's pixels kept as they are.

        Args:
            product_image: the product where it is to stand, in [0, 1], (B, H, W, 3).
            mask: share of each pixel that it covers, in [0, 1], (B, H, W).
            title: B titles.
            group_features: as the export holds them, not normalised, (B, F); None draws for everyone.
            num_inference_steps: solver steps.
            guidance_scale: 1 follows the group as the model learned it, more exaggerates it.
            text_guidance_scale: the same for the title.
            generator: of the noise: a seed, a generator, or one per picture (equal noise for equal seeds).

        Raises:
            ValueError: when shapes or ranges are not as above.
        """
        self._check(product_image, mask, title, group_features)
        count = len(product_image)
        latents = self.gmllm.latents
        noise = latents.noise(self._noise(count, generator))
        at_once = max(1, min(_NUM_PICTURES_AT_ONCE, _PIXELS_AT_ONCE // self.image_px**2))
        parts = []
        for start in range(0, count, at_once):
            rows = slice(start, start + at_once)
            features = None if group_features is None else group_features[rows]
            condition = self._condition(product_image[rows], mask[rows], title[rows], features)
            product, masks = self._tensor(product_image[rows]), self._tensor(mask[rows, ..., None])
            steering = self._steering(latents, masks, self.gmllm.planned_look(condition))
            guided = self._guided(condition, latents.product(product, masks), latents.shares(masks))
            predict = steered(guided.at_scale(guidance_scale, text_guidance_scale), steering)
            parts.append(latents.decode(integrate(predict, noise[rows], num_inference_steps)).cpu())
        tones = float(self.planner.tone_low), float(self.planner.tone_high)
        scene = torch.cat(parts).permute(0, 2, 3, 1).clamp(*tones).numpy()
        share = np.asarray(mask, np.float32)[..., None]
        return share * np.asarray(product_image, np.float32) + (1.0 - share) * scene

    @torch.no_grad()
    def choose(
        self,
        product_image: NDArray[np.floating],
        mask: NDArray[np.floating],
        title: Sequence[str],
        group_features: NDArray[np.floating] | None,
        picture_a: NDArray[np.floating],
        picture_b: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        """Returns the probability that a group prefers picture a to picture b, (B,), whichever is read first.

        Args:
            product_image: in [0, 1], (B, H, W, 3).
            mask: share of each pixel that it covers, in [0, 1], (B, H, W).
            title: B titles.
            group_features: as the export holds them, not normalised, (B, F); None asks what everyone prefers.
            picture_a: in [0, 1], (B, H, W, 3).
            picture_b: the same.

        Raises:
            ValueError: when shapes or ranges are not as above, or the model was trained before it could be asked.
        """
        self._check(product_image, mask, title, group_features)
        for name, picture in (("picture_a", picture_a), ("picture_b", picture_b)):
            if picture.shape != product_image.shape or picture.min() < 0.0 or picture.max() > 1.0:
                raise ValueError(f"{name} {picture.shape} must be {product_image.shape}, in [0, 1].")
        margins = []
        for start in range(0, len(product_image), _NUM_PICTURES_AT_ONCE):
            rows = slice(start, start + _NUM_PICTURES_AT_ONCE)
            features = None if group_features is None else group_features[rows]
            condition = self._condition(product_image[rows], mask[rows], title[rows], features)
            two = torch.stack([self._tensor(picture_a[rows]), self._tensor(picture_b[rows])], dim=1)
            orders = [
                self.gmllm.read_pictures(condition, pictures).likings for pictures in (two, two.flip(1))
            ]  # (B, 2)
            margins.append(both_orders(*[liked[:, 0] - liked[:, 1] for liked in orders]).double().cpu())
        return torch.sigmoid(torch.cat(margins)).numpy()

    def _guided(self, condition: Condition, product: Tensor, masks: Tensor) -> GuidedPredictions:
        """Returns the denoiser under the three conditions that guidance combines."""
        gmllm = self.gmllm
        null = torch.ones_like(condition.is_null_group)

        def under(variant: Condition) -> CleanPrediction:
            tokens = gmllm.condition_tokens(variant)
            return lambda noisy, time: gmllm.draw_clean(NoisyPictures(noisy, product, masks, time), tokens)

        without_group = Condition(condition.product_view, condition.titles, condition.group_features, null)
        without_both = Condition(condition.product_view, [""] * len(null), condition.group_features, null)
        return GuidedPredictions(under(without_both), under(without_group), under(condition))

    def _steering(self, latents: Latents, masks: Tensor, wanted: Tensor) -> Steering:
        """Returns what moves clean latents to where their pictures look as wanted."""

        def steer(clean: Tensor) -> Tensor:
            pictures = latents.decode(clean)
            moved = pictures
            for _ in range(_NUM_NUDGES):
                moved = self.planner.nudged(moved, masks, wanted)
            return clean + latents.encode(moved) - latents.encode(pictures)

        return steer

    def _condition(
        self,
        product_image: NDArray[np.floating],
        mask: NDArray[np.floating],
        title: Sequence[str],
        group_features: NDArray[np.floating] | None,
    ) -> Condition:
        count = len(product_image)
        known = self.group_encoder.config
        raw = np.tile(known["feature_mean"], (count, 1)) if group_features is None else group_features
        features = normalised_features(raw, known["feature_mean"], known["feature_scale"])
        return Condition(
            product_view=self._tensor(product_on_grey(product_image, mask)),
            titles=list(title),
            group_features=torch.tensor(features, device=self.device),
            is_null_group=torch.full((count,), group_features is None, device=self.device),
        )

    def _noise(self, count: int, generator: torch.Generator | Sequence[torch.Generator] | int | None) -> Tensor:
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        generator = list(generator) if isinstance(generator, Sequence) else generator
        shape = (count, 3, self.image_px, self.image_px)
        return randn_tensor(shape, generator=generator, device=self.device, dtype=torch.float32)

    def _tensor(self, pictures: NDArray[np.floating]) -> Tensor:
        """Returns (B, C, H, W) of arrays (B, H, W, C)."""
        return torch.tensor(np.moveaxis(pictures, -1, 1), dtype=torch.float32, device=self.device)

    def _check(
        self,
        product_image: NDArray[np.floating],
        mask: NDArray[np.floating],
        title: Sequence[str],
        group_features: NDArray[np.floating] | None,
    ) -> None:
        count, px = len(product_image), self.image_px
        if product_image.shape != (count, px, px, 3) or mask.shape != (count, px, px):
            raise ValueError(
                f"product_image {product_image.shape} and mask {mask.shape} must be (B, {px}, {px}, 3) and"
                f" (B, {px}, {px})."
            )
        if isinstance(title, str) or len(title) != count:
            raise ValueError(f"title must be a list of {count} titles, one per picture.")
        if min(product_image.min(), mask.min()) < 0.0 or max(product_image.max(), mask.max()) > 1.0:
            raise ValueError("product_image and mask must lie in [0, 1].")
        width = len(self.group_encoder.config["feature_names"])
        if group_features is not None and group_features.shape != (count, width):
            raise ValueError(f"group_features {group_features.shape} must be ({count}, {width}), or None.")
