"""The adapter to `transformers`' semantic segmentation: where is the product in an ad picture?

Any checkpoint that `AutoModelForSemanticSegmentation` loads; its weights must be safetensors and none of its code is
run. What becomes of a mask (checks, files, tables) does not belong here.

Shapes: `C` labels of the model, `h w` pixels of its output, `H W` pixels of the picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

Mask = NDArray[np.uint8]
_NUM_NAMED = 3


@dataclass(frozen=True)
class ProductSegmenter:
    """A segmentation model that tells product from scene.

    Attributes:
        model: takes `pixel_values`, gives `logits` (1, C, h, w).
        processor: from a picture to `pixel_values`; it must neither crop nor pad.
        labels: those of the C labels that are product; unused where C is 1.
    """

    model: Any
    processor: Any
    labels: tuple[int, ...]

    def segment_product(self, images: Sequence[Image.Image]) -> list[Mask]:
        """Returns for each RGB picture a mask of its own size, (H, W): 255 where the product is, 0 elsewhere.

        A pixel is product where a label of the product has the largest logit; where the model has one label (saliency),
        where its sigmoid is above 0.5. Both are the sign of a margin, which is scaled up bilinearly. One picture at a
        time: they may differ in size, and memory stays that of one.
        """
        return [self._segment(image) for image in images]

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that a mask depends on besides its picture: weights, preprocessing, labels."""
        settings = [type(self.model).__name__, self.processor.to_dict(), self.labels]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for name, weights in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weights.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @torch.inference_mode()
    def _segment(self, image: Image.Image) -> Mask:
        pixels = self.processor(images=[image], return_tensors="pt")["pixel_values"]
        margin = self._margin(self.model(pixel_values=pixels).logits)  # (1, 1, h, w)
        margin = interpolate(margin, size=(image.height, image.width), mode="bilinear", align_corners=False)
        return np.where((margin[0, 0] > 0).numpy(), np.uint8(255), np.uint8(0))  # (H, W)

    def _margin(self, logits: Tensor) -> Tensor:
        """How much more a pixel looks like the product than like anything else, (1, 1, h, w)."""
        num_labels = logits.shape[1]
        if num_labels == 1:
            return logits
        is_product = torch.zeros(num_labels, dtype=torch.bool)
        is_product[list(self.labels)] = True
        return logits[:, is_product].amax(1, keepdim=True) - logits[:, ~is_product].amax(1, keepdim=True)


def load_segmenter(checkpoint: str, labels: Sequence[int]) -> ProductSegmenter:
    """Returns the segmentation model of a checkpoint, in float32 on the CPU.

    Args:
        checkpoint: a folder written by `save_pretrained` (model and image processor), or a name on the Hugging Face
            hub; with HF_HUB_OFFLINE=1 nothing is downloaded, only what the cache holds is found.
        labels: labels of the model that are product; none: every label but 0. None for a model with one label.

    Raises:
        ValueError: when there is no such checkpoint, when it is not a whole semantic segmentation model in
            safetensors, or when the labels are not its labels or leave nothing for the scene.
    """
    try:
        model, loading = AutoModelForSemanticSegmentation.from_pretrained(
            checkpoint, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
        # Cropped or padded input would shift the mask against its picture.
        processor = AutoImageProcessor.from_pretrained(
            checkpoint, backend="pil", trust_remote_code=False, do_center_crop=False, do_pad=False
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"segmentation model {checkpoint!r} cannot be loaded ({reason}): name a folder that holds config.json, "
            "model.safetensors and preprocessor_config.json of a semantic segmentation model, or a hub checkpoint that "
            "is in the cache (with HF_HUB_OFFLINE=1 nothing is downloaded)."
        ) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(
            f"segmentation model {checkpoint!r} lacks {len(missing)} weights ({', '.join(missing[:_NUM_NAMED])}, ...): "
            "it was not trained for semantic segmentation; name a checkpoint that was."
        )
    return ProductSegmenter(model.eval(), processor, _product_labels(checkpoint, model.config.num_labels, labels))


def _product_labels(checkpoint: str, num_labels: int, labels: Sequence[int]) -> tuple[int, ...]:
    if num_labels == 1:
        if labels:
            raise ValueError(f"segmentation model {checkpoint!r} has one label, the product: give no labels.")
        return ()
    product = tuple(sorted(set(labels))) or tuple(range(1, num_labels))
    unknown = [label for label in product if not 0 <= label < num_labels]
    if unknown:
        raise ValueError(
            f"segmentation model {checkpoint!r} has no label {unknown[0]}: its labels are 0 to {num_labels - 1} "
            "(`id2label` in its config.json says what they mean)."
        )
    if len(product) == num_labels:
        raise ValueError(f"all {num_labels} labels of {checkpoint!r} are given as product: leave out what is scene.")
    return product
