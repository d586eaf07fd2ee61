"""Where the product is in each creative's picture: found, written and judged on the workers.

A mask is supplied, or the picture's own alpha channel, or drawn by a segmentation model. One that fails a check is
refused with a reason and its creative then serves pairs only; no file, however broken, stops the run. Reading pictures
belongs in `pictures`, the segmentation model in `osmf_models.model.segmentation`.

Source: this project's own design (3.2).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.spark.pictures import (
    PictureError,
    decode_picture,
    read_picture,
    read_picture_file,
    spread,
)
from osmf_pipelines.tables import TABLES

if TYPE_CHECKING:
    from osmf_models.model.segmentation import ProductSegmenter

Mask = NDArray[np.uint8]
MaskSource = Literal["supplied", "alpha", "segmented", "none"]
MIN_COVERAGE, MAX_COVERAGE = 0.01, 0.9
MAX_EDGE_SHARE = 0.5
_WHITE = 255


def find_product_masks(
    creatives: DataFrame, *, folder: Path, segmentation_model: str, segmentation_labels: Sequence[int]
) -> DataFrame:
    """Returns `product_masks`: a supplied mask, else the picture's alpha channel, else a segmented one, else none.

    `refusal` is picture_missing, picture_unreadable, picture_too_large, picture_too_small, mask_missing,
    mask_unreadable, mask_of_other_size, mask_covers_too_little, mask_covers_too_much or mask_touches_border; a refused
    mask has no `mask_path`. Derived masks are PNG (mode L, white = product) named by a hash of the picture's bytes and
    of how the mask was derived: files are never changed, and what is there is not derived again.

    Grain: one row per creative that has an `image_path`.

    Args:
        creatives: the table of that name.
        folder: where derived masks are written; every worker must see it at this path.
        segmentation_model: transformers checkpoint (folder or hub name), or "" for none. Loaded once per worker
            process, and only when a mask has to be drawn.
        segmentation_labels: labels of that model that are product; none: every label but 0.

    Raises:
        ValueError: at once, when the segmentation model cannot be used; see `load_segmenter`.
    """
    table = TABLES["product_masks"]
    finder = _MaskFinder(folder.absolute(), _Segmentation.checked(segmentation_model, tuple(segmentation_labels)))
    rows = creatives.where(F.col("image_path").isNotNull()).select(
        "creative_id", "product_id", "image_path", "mask_path"
    )

    def find_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            pairs = zip(batch["image_path"], batch["mask_path"], strict=True)
            found = pd.DataFrame([asdict(finder.find(*pair)) for pair in pairs], index=batch.index)
            yield batch.drop(columns="mask_path").join(found)[table.column_names]

    return spread(rows, "creative_id").mapInPandas(find_batches, table.ddl)


@dataclass(frozen=True)
class _Finding:
    """The columns of `product_masks` that are found out about one picture."""

    mask_source: MaskSource
    mask_path: str | None = None
    mask_coverage: float | None = None
    mask_edge_share: float | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class _Segmentation:
    """A segmentation model by name, so that it travels to the workers without its weights."""

    checkpoint: str
    labels: tuple[int, ...]
    fingerprint: str

    @classmethod
    def checked(cls, checkpoint: str, labels: tuple[int, ...]) -> _Segmentation | None:
        if not checkpoint:
            return None
        from osmf_models.model.segmentation import load_segmenter

        # A relative folder means nothing in a worker's working directory.
        checkpoint = str(Path(checkpoint).absolute()) if Path(checkpoint).is_dir() else checkpoint
        return cls(checkpoint, labels, load_segmenter(checkpoint, labels).fingerprint)

    def draw_mask(self, picture: Image.Image) -> Mask:
        return _load_segmenter_once(self.checkpoint, self.labels).segment_product([picture])[0]


@lru_cache(maxsize=1)
def _load_segmenter_once(checkpoint: str, labels: tuple[int, ...]) -> ProductSegmenter:
    from osmf_models.model.segmentation import load_segmenter

    return load_segmenter(checkpoint, labels)


@dataclass(frozen=True)
class _MaskFinder:
    """Finds masks one by one, on a worker; `folder` is where derived ones are written."""

    folder: Path
    segmentation: _Segmentation | None

    def find(self, image_path: str, supplied_path: str | None) -> _Finding:
        try:
            data = read_picture_file(image_path)
            picture = decode_picture(data, "RGBA", image_path)
        except PictureError as error:
            return _Finding("none", refusal=f"picture_{error.fault}")
        if supplied_path is not None:
            return _judge_file("supplied", supplied_path, picture.size)
        digest = hashlib.sha256(data).hexdigest()
        alpha = picture.getchannel("A")
        if np.asarray(alpha).min() < _WHITE:
            return _judge_file("alpha", self._keep_alpha(digest, alpha), picture.size)
        if self.segmentation is not None:
            return _judge_file("segmented", self._segment(digest, picture, self.segmentation), picture.size)
        return _Finding("none")

    def _keep_alpha(self, image_sha256: str, alpha: Image.Image) -> str:
        path = self._path(image_sha256, "alpha")
        if not path.is_file():
            _write_mask(path, alpha)
        return str(path)

    def _segment(self, image_sha256: str, picture: Image.Image, segmentation: _Segmentation) -> str:
        path = self._path(image_sha256, f"segmented {segmentation.fingerprint}")
        if not path.is_file():
            _write_mask(path, Image.fromarray(segmentation.draw_mask(picture.convert("RGB"))))
        return str(path)

    def _path(self, image_sha256: str, derivation: str) -> Path:
        name = hashlib.sha256(f"{image_sha256} {derivation}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.png"


def _write_mask(path: Path, mask: Image.Image) -> None:
    """Writes a PNG that is there as a whole or not at all, whoever else writes it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


def _judge_file(source: MaskSource, path: str, size: tuple[int, int]) -> _Finding:
    """Reads and judges the mask of a picture of `size` (width, height)."""
    try:
        mask = np.asarray(read_picture(path, "L"))
    except PictureError as error:
        is_readable = error.fault in ("too_large", "too_small")
        return _Finding(source, refusal="mask_of_other_size" if is_readable else f"mask_{error.fault}")
    if mask.shape != size[::-1]:
        return _Finding(source, refusal="mask_of_other_size")
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    coverage, edge_share = _white_share(mask), _white_share(border)
    refusal = _refusal(mask, coverage, edge_share)
    return _Finding(source, path if refusal is None else None, coverage, edge_share, refusal)


def _white_share(pixels: Mask) -> float:
    """Share of the pixels under the mask, in [0, 1], exact: a ratio of integers."""
    return int(pixels.sum()) / (_WHITE * pixels.size)


def _refusal(mask: Mask, coverage: float, edge_share: float) -> str | None:
    if coverage < MIN_COVERAGE:
        return "mask_covers_too_little"
    if coverage > MAX_COVERAGE or not _leaves_scene(mask):
        return "mask_covers_too_much"
    return "mask_touches_border" if edge_share > MAX_EDGE_SHARE else None


def _leaves_scene(mask: Mask) -> bool:
    """Whether there is scene in the upper and in the lower half, as `measure_images` needs."""
    half = len(mask) // 2
    return all((_WHITE - part).sum() >= _WHITE for part in (mask[:half], mask[half:]))
