"""Draws batches: which examples, which noise, which time, which dropout.

Every draw is a function of (seed, step, index in the global batch), never of the rank, so that one process and many
see the same global batch. Reading the export belongs in `dataset.py`.

Shapes: `B` examples or pairs of this rank, `P = 2B` pictures of pairs (all chosen, then all rejected), `F` group
features, `H W` pixels; pictures are channels-first in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from osmf_models.data.dataset import TrainingExport

_GREY = 0.5  # behind a product, where the language model looks at it alone


@dataclass(frozen=True)
class Condition:
    """What a picture is drawn from.

    Attributes:
        product_view: the product alone on grey, (B, 3, H, W).
        titles: as shown to users; empty where dropped.
        group_features: normalised, (B, F).
        is_null_group: where the null group stands in for the group, (B,).
    """

    product_view: Tensor
    titles: list[str]
    group_features: Tensor
    is_null_group: Tensor


@dataclass(frozen=True)
class PictureBatch:
    """Pictures with their products' place, and the draw of noise and time for each.

    Attributes:
        images: (B, 3, H, W) or, for pairs, (P, 3, H, W).
        masks: share of each pixel under the product, (B, 1, H, W) or (P, 1, H, W).
        noise: standard normal, like `images`; the same for both pictures of a pair.
        time: in (0, 1], 1 is noise, (B,) or (P,); the same for both pictures of a pair.
    """

    images: Tensor
    masks: Tensor
    noise: Tensor
    time: Tensor


@dataclass(frozen=True)
class GenerationBatch:
    """Examples of pretraining; `descriptions` are the groups' texts, (B,)."""

    condition: Condition
    pictures: PictureBatch
    descriptions: list[str]


@dataclass(frozen=True)
class Contrast:
    """A second group for each pair, which chooses the other picture.

    Attributes:
        group_features: normalised, of that group, or of the pair's own where there is none, (B, F).
        target: its label for the picture that the pair rejects, (B,).
        is_known: where there is such a group, (B,).
    """

    group_features: Tensor
    target: Tensor
    is_known: Tensor


@dataclass(frozen=True)
class PairBatch:
    """Preference pairs of this rank.

    Attributes:
        condition: of both pictures of a pair.
        pictures: (P,).
        target: q, the soft label of the chosen one, (B,).
        group_index: rows of groups, (B,).
        contrast: contradicting groups; None where the frame of pairs names none.
    """

    condition: Condition
    pictures: PictureBatch
    target: Tensor
    group_index: Tensor
    contrast: Contrast | None = None

    def under_contrast(self) -> PairBatch:
        """Returns the same pictures, noise and times, each pair under the group that contradicts it."""
        assert self.contrast is not None  # the frame of pairs names contradicting groups
        return replace(self, condition=replace(self.condition, group_features=self.contrast.group_features))


@dataclass(frozen=True)
class BatchKey:
    """Which part of which global batch to draw: `indices` of the global batch at `step`; a `stream` is a batch more."""

    seed: int
    step: int
    indices: range
    stream: int = 0

    @classmethod
    def of_rank(cls, seed: int, step: int, batch_size: int, rank: int, world_size: int, stream: int = 0) -> BatchKey:
        """Returns the key of one rank's equal share.

        Raises:
            ValueError: when the batch cannot be shared equally.
        """
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} cannot be shared equally by {world_size} processes.")
        share = batch_size // world_size
        return cls(seed, step, range(rank * share, (rank + 1) * share), stream)

    def generators(self) -> list[np.random.Generator]:
        """Returns one generator per index."""
        return [np.random.default_rng((self.seed, self.step, index, self.stream)) for index in self.indices]


@dataclass(frozen=True)
class Dropout:
    """Shares of examples that see the null group, or no title."""

    group: float = 0.0
    text: float = 0.0


def draw_generation_batch(
    export: TrainingExport,
    examples: pd.DataFrame,
    key: BatchKey,
    dropout: Dropout,
    time_of: Callable[[float], float],
) -> GenerationBatch:
    """Returns examples drawn with replacement in proportion to `sampling_weight`.

    Args:
        export: where they come from.
        examples: rows of `export.examples` to draw from.
        key: which draws.
        dropout: of the condition.
        time_of: maps a uniform draw to a time.
    """
    generators = key.generators()
    cumulative = np.cumsum(examples.sampling_weight.to_numpy(np.float64))
    picks = [int(np.searchsorted(cumulative, g.uniform() * cumulative[-1], side="right")) for g in generators]
    rows = examples.iloc[np.minimum(picks, len(examples) - 1)]
    condition = condition_of(export, rows.product_index, rows.group_index, generators, dropout)
    pictures = _pictures(export, rows.creative_index.to_numpy(), generators, time_of)
    return GenerationBatch(condition, pictures, list(export.groups.description.iloc[rows.group_index]))


def draw_pair_batch(
    export: TrainingExport,
    pairs: pd.DataFrame,
    key: BatchKey,
    dropout: Dropout,
    time_of: Callable[[float], float],
    is_group_balanced: bool,
) -> PairBatch:
    """Returns pairs drawn with replacement; `pairs` needs the columns of `export.pairs` and `target`."""
    generators = key.generators()
    rows = drawn_pairs(pairs, generators, is_group_balanced)
    return collate_pairs(export, rows, generators, dropout, time_of)


def drawn_pairs(pairs: pd.DataFrame, generators: list[np.random.Generator], is_group_balanced: bool) -> pd.DataFrame:
    """Returns one of the pairs for each generator, with replacement."""
    if not is_group_balanced:
        return pairs.iloc[[int(g.integers(len(pairs))) for g in generators]]
    by_group = [rows.to_numpy() for _, rows in pd.Series(np.arange(len(pairs))).groupby(pairs.group_index.to_numpy())]
    return pairs.iloc[[_pick_pair(by_group, g) for g in generators]]


def collate_pairs(
    export: TrainingExport,
    rows: pd.DataFrame,
    generators: list[np.random.Generator],
    dropout: Dropout,
    time_of: Callable[[float], float],
) -> PairBatch:
    """Returns the pairs in `rows`, with one draw of noise and time per pair, shared by its two pictures."""
    condition = condition_of(export, rows.product_index, rows.group_index, generators, dropout)
    chosen = _pictures(export, rows.chosen_index.to_numpy(), generators, time_of)
    rejected_images, rejected_masks = images_and_masks(export, rows.rejected_index.to_numpy())
    pictures = PictureBatch(
        images=torch.cat([chosen.images, rejected_images]),
        masks=torch.cat([chosen.masks, rejected_masks]),
        noise=chosen.noise.repeat(2, 1, 1, 1),
        time=chosen.time.repeat(2),
    )
    target = torch.tensor(rows.target.to_numpy(np.float32))
    contrast = _contrast(export, rows) if "contrast_group_index" in rows else None
    return PairBatch(condition, pictures, target, torch.tensor(rows.group_index.to_numpy()), contrast)


def to_device(batch: Any, device: torch.device) -> Any:
    """Returns a batch, or any frozen dataclass of tensors, with its tensors on `device`."""
    return _with_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def pinned(batch: Any) -> Any:
    """Returns a batch whose tensors lie where a GPU can fetch them by itself; without a GPU, the batch as it is."""
    return _with_tensors(batch, torch.Tensor.pin_memory) if torch.cuda.is_available() else batch


def product_on_grey(product: NDArray[np.floating], mask: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns the product alone on grey: product (…, H, W, 3), mask (…, H, W) → (…, H, W, 3)."""
    return mask[..., None] * product + (1.0 - mask[..., None]) * _GREY


def _with_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    changed = {}
    for item in fields(batch):
        value = getattr(batch, item.name)
        if isinstance(value, Tensor):
            changed[item.name] = change(value)
        elif is_dataclass(value):
            changed[item.name] = _with_tensors(value, change)
    return replace(batch, **changed)


def _pick_pair(by_group: list[NDArray[np.int64]], g: np.random.Generator) -> int:
    rows = by_group[int(g.integers(len(by_group)))]
    return int(rows[g.integers(len(rows))])


def condition_of(
    export: TrainingExport,
    product_index: pd.Series,
    group_index: pd.Series,
    generators: list[np.random.Generator],
    dropout: Dropout,
) -> Condition:
    """Returns products and groups by their rows in the export, with what `dropout` takes away."""
    draws = np.array([g.uniform(size=2) for g in generators])
    titles = export.products.title.iloc[product_index].fillna("")
    cutouts = np.stack([export.cutouts[index] for index in product_index])
    return Condition(
        product_view=_channels_first(product_on_grey(cutouts[..., :3], cutouts[..., 3])),
        titles=["" if drop else title for title, drop in zip(titles, draws[:, 1] < dropout.text, strict=True)],
        group_features=torch.tensor(export.group_features[group_index.to_numpy()]),
        is_null_group=torch.tensor(draws[:, 0] < dropout.group),
    )


def _contrast(export: TrainingExport, rows: pd.DataFrame) -> Contrast:
    is_known = rows.contrast_group_index.to_numpy() >= 0
    group_index = np.where(is_known, rows.contrast_group_index, rows.group_index)
    return Contrast(
        group_features=torch.tensor(export.group_features[group_index]),
        target=torch.tensor(rows.contrast_target.to_numpy(np.float32)),
        is_known=torch.tensor(is_known),
    )


def _pictures(
    export: TrainingExport,
    creative_index: NDArray[np.int64],
    generators: list[np.random.Generator],
    time_of: Callable[[float], float],
) -> PictureBatch:
    images, masks = images_and_masks(export, creative_index)
    time = [time_of(g.uniform()) for g in generators]
    noise = np.stack([g.standard_normal(images.shape[1:], dtype=np.float32) for g in generators])
    return PictureBatch(images, masks, torch.from_numpy(noise), torch.tensor(time, dtype=torch.float32))


def images_and_masks(export: TrainingExport, creative_index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Returns creatives (B, 3, H, W), and the share of each pixel under the product (B, 1, H, W)."""
    images = _channels_first(np.stack([export.images[index] for index in creative_index]))
    masks = torch.from_numpy(np.stack([export.masks[index] for index in creative_index])).unsqueeze(1)
    return images, masks


def _channels_first(pictures: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, 1), dtype=np.float32))
