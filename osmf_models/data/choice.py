"""Draws the question which of two pictures of a product a group prefers, to learn comprehension from.

Pictures come in rows, so that product and group are read once for several questions. A picture is shown by its pixels
alone; what they measure is an answer that is learned beside the choice. Pairs for preference optimisation are drawn in
`collate.py`, how often the answers are right is counted in `training/choice_figures.py`.

Shapes: `B` rows of this rank, `M` pictures of a row, `H W` pixels, `F` entries of a look; pictures are channels-first
in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from osmf_models.data.collate import (
    BatchKey,
    Condition,
    Dropout,
    GenerationBatch,
    condition_of,
    drawn_pairs,
    images_and_masks,
)
from osmf_models.data.dataset import TrainingExport
from osmf_models.model.scene_statistics import scene_looks

CHOICE_STREAM = 1  # of random numbers, beside that of the examples
_NUM_MEASURED = 1000
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class ChoiceBatch:
    """Rows of pictures to choose from.

    Attributes:
        condition: product, title and group of each row.
        pictures: in the order in which they are read, (B, M, 3, H, W).
        target: q, the soft label that the group prefers picture i to j, (B, M, M).
        is_known: where there is such a pair, once for each, i before j, (B, M, M).
        looks: what `scene_looks` measures of the pictures, standardised, (B, M, F).
    """

    condition: Condition
    pictures: Tensor
    target: Tensor
    is_known: Tensor
    looks: Tensor


@dataclass(frozen=True)
class LooksScale:
    """Mean and deviation of each entry of a look over pictures, (F,) each."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, export: TrainingExport, pairs: pd.DataFrame) -> LooksScale:
        """Returns the scale of the pairs' chosen pictures, of the first thousand."""
        features = _measured(export, pairs.chosen_index.unique()[:_NUM_MEASURED])
        return cls(features.mean(0), np.maximum(features.std(0), _LEAST_DEVIATION))

    def looks(self, export: TrainingExport, creatives: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the standardised looks of creatives (B,) of the export, (B, F)."""
        return ((_measured(export, creatives) - self.mean) / self.deviation).astype(np.float32)


@dataclass(frozen=True)
class PretrainingBatch:
    """What one step of pretraining learns from: examples to draw, and pairs to choose from, of other products."""

    generation: GenerationBatch
    choice: ChoiceBatch | None = None


def choice_pairs(export: TrainingExport, split: str) -> pd.DataFrame:
    """Returns the groups' pairs of a split, by group and product; there may be none.

    Columns added: `target`, the probability that the chosen one is better; `first_row` and `end_row`, between which the
    pairs of the same group and product stand.

    Raises:
        ValueError: when a probability is none.
    """
    pairs = export.pairs[(export.pairs.split == split) & ~export.pairs.is_scope_root]
    if not pairs.chosen_better_probability.between(0.0, 1.0).all():
        raise ValueError("a pair's probability is no number in [0, 1]: export again.")
    of_product = ["group_index", "product_index"]
    pairs = pairs.sort_values([*of_product, "chosen_index", "rejected_index"]).reset_index(drop=True)
    rows = pd.Series(np.arange(len(pairs))).groupby([pairs[name] for name in of_product])
    first, end = rows.transform("min"), rows.transform("max") + 1
    return pairs.assign(target=pairs.chosen_better_probability, first_row=first, end_row=end)


def draw_choice_batch(
    export: TrainingExport,
    pairs: pd.DataFrame,
    key: BatchKey,
    dropout: Dropout,
    num_pictures: int,
    scale: LooksScale,
) -> ChoiceBatch:
    """Returns rows of pictures in an order drawn afresh: two of a pair, and others of its group and product.

    Pairs are drawn with replacement, groups evenly.

    Args:
        export: where they come from.
        pairs: as `choice_pairs` returns them.
        key: which draws.
        dropout: of the condition; the null group is asked what everyone prefers.
        num_pictures: `M`; where a group has pairs of fewer pictures of the product, these are repeated.
        scale: of what the pictures look like.
    """
    generators = key.generators()
    drawn = drawn_pairs(pairs, generators, is_group_balanced=True)
    rows = []
    for pair, generator in zip(drawn.itertuples(), generators, strict=True):
        known = pairs.iloc[pair.first_row : pair.end_row]
        shown = _shown(known, (pair.chosen_index, pair.rejected_index), num_pictures, generator)
        rows.append((shown, *_labels(shown, known)))
    shown, target, is_known = (np.stack(parts) for parts in zip(*rows, strict=True))
    images, _ = images_and_masks(export, shown.flatten())
    return ChoiceBatch(
        condition=condition_of(export, drawn.product_index, drawn.group_index, generators, dropout),
        pictures=images.unflatten(0, shown.shape),
        target=torch.from_numpy(target),
        is_known=torch.from_numpy(is_known),
        looks=torch.from_numpy(scale.looks(export, shown.flatten())).unflatten(0, shown.shape),
    )


def _measured(export: TrainingExport, creatives: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns how the scenes of creatives look, (B, F)."""
    return scene_looks(*images_and_masks(export, creatives)).double().numpy()


def _shown(
    known: pd.DataFrame, pair: tuple[int, int], num_pictures: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Returns the creatives of a row, (M,)."""
    others = np.setdiff1d(known[["chosen_index", "rejected_index"]].to_numpy(), pair)
    shown = np.concatenate([pair, generator.permutation(others)])
    return generator.permutation(np.resize(shown[:num_pictures], num_pictures))


def _labels(shown: NDArray[np.int64], known: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns the labels of a row's pairs, and which there are, (M, M) each."""
    count = len(shown)
    target, is_known = np.full((count, count), 0.5, np.float32), np.zeros((count, count), bool)
    for chosen, rejected, label in known[["chosen_index", "rejected_index", "target"]].itertuples(index=False):
        both = (shown[:, None] == chosen) & (shown[None, :] == rejected)  # (M, M)
        target[both], target[both.T] = label, 1.0 - label
        is_known |= both | both.T
    return target, np.triu(is_known)
