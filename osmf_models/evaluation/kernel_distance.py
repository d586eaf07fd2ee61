"""How far drawn pictures are from logged ones of the same products: a squared kernel distance of their features.

The squared maximum mean discrepancy with the cubic kernel, as in the kernel inception distance, without bias: two sets
of the same kind have 0 on average, so that a single figure may lie below 0. Products are what is independent: what is
compared of a product is the mean over its pictures, and no product is compared with itself. Making features of what
arms draw belongs in `picture_distances.py`.

Shapes: `P` products, `B` pictures of one product, `D` features, `R` resamples.

Sources: Gretton et al., A Kernel Two-Sample Test, JMLR 13, 2012, section 2.2 (the estimate without bias, of paired
samples); Bińkowski et al., Demystifying MMD GANs, arXiv 1801.01401, section 4 (the kernel).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from osmf_models.evaluation.resampling import Array, product_weights

KERNEL_TERMS_NAME = "kernel_terms.parquet"


@dataclass(frozen=True)
class KernelTerms:
    """What a distance is the mean of, for every two products.

    Attributes:
        scopes: of the products, (P,).
        product_ids: sorted with their scopes, (P,).
        values: of two products the drawn pictures' mean kernel plus the logged ones', minus those of one's drawn and
            the other's logged, (P, P), symmetric; 0 of a product and itself.
    """

    scopes: tuple[str, ...]
    product_ids: tuple[str, ...]
    values: Array

    def resampled(self, market: str) -> Array:
        """Returns the distance, products resampled in their scope, (R + 1,): of one market all arms the same.

        A resample keeps the terms' number: what it changes is told by the terms' deviations from their mean.
        """
        count = len(self.product_ids)
        mean = self.values.sum() / (count * (count - 1))
        deviations = (self.values - mean) * (1.0 - np.eye(count))
        weights = product_weights(self.scopes, market)
        return np.asarray(mean + ((weights @ deviations) * weights).sum(1) / (count * (count - 1)))


def cubic_kernel(first: Array, second: Array) -> Array:
    """Returns (x · y / D + 1)³ of features (B, D) and (B', D), (B, B')."""
    return np.asarray((first @ second.T / first.shape[1] + 1.0) ** 3)


def product_terms(drawn: Sequence[Array], logged: Sequence[Array]) -> Array:
    """Returns the terms of every two products, (P, P), from features of their drawn and logged pictures, (B, D) each.

    Raises:
        ValueError: when there are not two products, or one has no picture.
    """
    if len(drawn) < 2 or len(drawn) != len(logged) or not all(len(one) for one in (*drawn, *logged)):
        raise ValueError("a kernel distance needs two products or more with drawn and with logged pictures.")
    both = [np.concatenate(features) for features in (drawn, logged)]
    starts = [np.cumsum([0, *(len(one) for one in features[:-1])]) for features in (drawn, logged)]
    counts = [np.array([len(one) for one in features]) for features in (drawn, logged)]

    def means(rows: Sequence[Array], side: int) -> Array:
        """Mean kernel of each product in `rows` with each product of one side; a row at a time, to spare memory."""
        sums = [np.add.reduceat(cubic_kernel(row, both[side]).mean(0), starts[side]) for row in rows]
        return np.stack(sums) / counts[side]

    crossed = means(drawn, 1)
    terms = means(drawn, 0) + means(logged, 1) - crossed - crossed.T
    np.fill_diagonal(terms, 0.0)
    return np.asarray(terms)


def write_kernel_terms(path: Path, by_arm: dict[str, KernelTerms]) -> None:
    """Writes a Parquet with a row per arm and product: arm, scope, product_id, terms (of the arm's products)."""
    rows = [
        (arm, scope, product_id, list(values))
        for arm, one in by_arm.items()
        for scope, product_id, values in zip(one.scopes, one.product_ids, one.values, strict=True)
    ]
    pd.DataFrame(rows, columns=["arm", "scope", "product_id", "terms"]).to_parquet(path, index=False)


def read_kernel_terms(path: Path) -> dict[str, KernelTerms]:
    """Returns what `write_kernel_terms` wrote, by arm."""
    return {
        str(arm): KernelTerms(tuple(rows.scope), tuple(rows.product_id), np.stack(rows.terms.to_list()))
        for arm, rows in pd.read_parquet(path).groupby("arm", sort=False)
    }
