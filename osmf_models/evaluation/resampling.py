"""Bootstrap over products within a market, then over training seeds and markets, paired between arms.

Every array of resamples has R + 1 entries, of which the first is the figure itself. All arms of a market are given the
same resampled products, and all figures the same resampled runs, so that arms are compared entry by entry. What is
resampled belongs in `summary.py`, `lift_claims.py` and `contradictions.py`.

Shapes: `R` resamples, `P` products, `G` groups, `N` runs.

Sources: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13; Hesterberg, What Teachers Should
Know About the Bootstrap, 2015, section 4.1 (a bootstrap of n is too narrow by the root of (n - 1) / n).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
NUM_RESAMPLES = 4000
_INTERVAL = (0.025, 0.975)
_RUNS_SEED = 0


@dataclass(frozen=True, order=True)
class RunKey:
    """One training of every arm: the market that it learned from, and its seed."""

    market: str
    seed: int


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its 95% percentile interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, resampled: Array) -> Estimate:
        """Returns the figure behind an array of resamples, (R + 1,)."""
        low, high = np.quantile(resampled[1:], _INTERVAL)
        return cls(float(resampled[0]), float(low), float(high))

    def named(self, name: str) -> dict[str, float]:
        """Returns the figure by its name, and the ends as `_low` and `_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


@dataclass(frozen=True)
class GroupMeans:
    """A figure of one run, mean over products inside each group: `values` by arm, (R + 1, G)."""

    scopes: tuple[str, ...]
    group_ids: tuple[str, ...]
    values: dict[str, Array]


def product_weights(scopes: Sequence[str], market: str, *, is_stretched: bool = True) -> Array:
    """Returns how much each product counts in each resample, (R + 1, P); their mean inside a scope is 1.

    Products are drawn inside their scope; a scope's only product always counts 1.

    Args:
        scopes: of each product.
        market: the same one gets the same draws.
        is_stretched: deviations from 1 are stretched by the root of n / (n - 1), n the scope's products, so that a
            mean's spread is that of its unbiased estimate. Some weights are then below 0: not for ratios of sums.
    """
    rng = np.random.default_rng(zlib.crc32(market.encode()))
    weights = np.ones((NUM_RESAMPLES + 1, len(scopes)))
    for scope in sorted(set(scopes)):
        places = np.flatnonzero(np.asarray(scopes) == scope)
        if (count := len(places)) > 1:
            drawn = rng.multinomial(count, np.full(count, 1.0 / count), NUM_RESAMPLES)
            weights[1:, places] = 1.0 + (drawn - 1.0) * (np.sqrt(count / (count - 1.0)) if is_stretched else 1.0)
    return weights


def resampled_group_means(judgements: pd.DataFrame, market: str, column: str) -> GroupMeans:
    """Returns the mean of `column` in each group, products resampled.

    Args:
        judgements: of one run, as `summary.py` describes them; all arms on the same products and groups.
        market: that they are of.
        column: to average.

    Raises:
        ValueError: when an arm lacks a product or a group that another has.
    """
    arms = list(dict.fromkeys(judgements.arm))
    products = judgements[["scope", "product_id"]].drop_duplicates().sort_values(["scope", "product_id"])
    weights = product_weights(list(products.scope), market)
    groups: list[tuple[str, str]] = []
    parts: dict[str, list[Array]] = {arm: [] for arm in arms}
    for scope, rows in judgements.groupby("scope", sort=True):
        table = rows.pivot(index="product_id", columns=["arm", "group_id"], values=column)
        group_ids = sorted(set(rows.group_id))
        groups += [(str(scope), str(group_id)) for group_id in group_ids]
        places = np.flatnonzero(products.scope == scope)  # in the order of the table: by product
        for arm in arms:
            cells = table.reindex(columns=pd.MultiIndex.from_product([[arm], group_ids])).to_numpy(float)
            if np.isnan(cells).any():
                raise ValueError(f"{market}: arm {arm} was not judged on every product and group of scope {scope}.")
            parts[arm].append(weights[:, places] @ cells / len(places))
    values = {arm: np.concatenate(parts[arm], axis=1) for arm in arms}
    return GroupMeans(tuple(scope for scope, _ in groups), tuple(group_id for _, group_id in groups), values)


def over_runs(values: Mapping[RunKey, Array]) -> Array:
    """Returns the mean over runs, first over the seeds of a market, then over markets, both resampled, (R + 1, …).

    Seeds of a market were judged on the same products and share their resamples; a market that is drawn twice brings
    two independent ones. One seed, or one market, alone is no sample: its spread is then not in the interval.

    Args:
        values: by run, (R + 1, …) each.
    """
    rng = np.random.default_rng(_RUNS_SEED)
    means = []
    for market in sorted({key.market for key in values}):
        seeds = np.stack([values[key] for key in sorted(values) if key.market == market])
        means.append(_mean_of_drawn(seeds, rng, is_crossed=True))
    return _mean_of_drawn(np.stack(means), rng, is_crossed=False)


def _mean_of_drawn(rows: Array, rng: np.random.Generator, *, is_crossed: bool) -> Array:
    """Returns the mean of N rows, (N, R + 1, …), drawn with replacement in each resample, stretched as products are."""
    count, size = rows.shape[:2]
    if count == 1:
        return np.asarray(rows[0])
    drawn = rng.integers(0, count, (count, size - 1))
    places = np.arange(1, size)
    columns = [places if is_crossed else rng.permutation(places) for _ in range(count)]
    kept, resampled = (
        np.mean([rows[row, column] for row, column in zip(chosen, columns, strict=True)], axis=0)
        for chosen in (range(count), drawn)
    )
    # What the draw of rows adds is stretched; what the resamples of each row bring is so already.
    return np.concatenate([rows.mean(0)[:1], kept + (resampled - kept) * np.sqrt(count / (count - 1.0))])
