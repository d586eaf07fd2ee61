"""Collects what arms draw while it is judged, and holds it against logged pictures of the same products.

The distance belongs in `kernel_distance.py`, the features in `model/picture_encoder.py`.

Shapes: `B` pictures, `D` features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from osmf_models.data.dataset import TrainingExport
from osmf_models.evaluation.arms import DrawnCase, Images
from osmf_models.evaluation.kernel_distance import KernelTerms, product_terms
from osmf_models.evaluation.resampling import Array


class Encoder(Protocol):
    """Whatever makes features of pictures."""

    def encode(self, images: Images) -> Array:
        """Returns features (B, D) of pictures (B, H, W, 3)."""


class PictureDistances:
    """What arms draw, as features by product.

    Args:
        export: holds the logged pictures; products without any are left out.
        encoder: makes the features.
    """

    def __init__(self, export: TrainingExport, encoder: Encoder):
        self._export, self._encoder = export, encoder
        self._drawn: dict[str, dict[int, list[Array]]] = {}

    def watching(self, arm: str, cases: Iterable[DrawnCase]) -> Iterator[DrawnCase]:
        """Yields the cases on, and notes the features of their pictures."""
        found = self._drawn.setdefault(arm, {})
        for case in cases:
            found.setdefault(case.product_index, []).append(self._encoder.encode(case.images))
            yield case

    def terms(self, arm: str) -> KernelTerms:
        """Returns the terms of an arm that was watched to its end.

        Raises:
            ValueError: when fewer than two of its products have logged pictures.
        """
        products, logged_rows = self._export.products, self._export.creatives.product_index.to_numpy()
        told = sorted((str(products.scope[row]), str(products.product_id[row]), row) for row in self._drawn[arm])
        kept = [one for one in told if (logged_rows == one[2]).any()]
        drawn = [np.concatenate(self._drawn[arm][row]) for *_, row in kept]
        logged = [self._logged(row) for *_, row in kept]
        scopes, product_ids = (tuple(str(one[place]) for one in kept) for place in (0, 1))
        return KernelTerms(scopes, product_ids, product_terms(drawn, logged))

    def _logged(self, product_index: int) -> Array:
        rows = np.flatnonzero(self._export.creatives.product_index == product_index)
        return self._encoder.encode(np.stack([self._export.images[int(row)] for row in rows]))
