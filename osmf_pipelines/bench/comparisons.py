"""Every two creatives of a product in a group, as a refresh compares them, beside the truth.

Where the rates come from belongs in `pair_quality.py` (simulated at once) and `refresh_score.py` (published tables).

Shapes: `C` creatives of a scope.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_pipelines.bench.grouping_score import PlantedScope
from osmf_pipelines.spark.pairs import better_probability

CAIG_MIN_IMPRESSIONS, CAIG_RATIO = 1_000, (1.05, 1.20)
PROBABILITY_BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
Array = NDArray[np.float64]


def compare(rated: pd.DataFrame) -> pd.DataFrame:
    """Returns every two creatives of a product in a group, as a refresh compares them, beside the truth.

    Args:
        rated: rows of `group_ctr` without scope roots, with the true rate of each creative in its group.
    """
    keys = ["group_id", "product_id"]
    columns = [*keys, "creative_id", "posterior_shape", "posterior_rate", "num_impressions", "num_clicks", "true_rate"]
    both = rated[columns].merge(rated[columns], on=keys, suffixes=("", "_2"))
    both = both[both["creative_id"] < both["creative_id_2"]].reset_index(drop=True)
    gammas = [
        both[name].to_numpy() for name in ("posterior_shape", "posterior_rate", "posterior_shape_2", "posterior_rate_2")
    ]
    first_better = better_probability(*gammas)
    sign = np.where(first_better >= 0.5, 1.0, -1.0)
    log_ratio = np.log(gammas[0] / gammas[1]) - np.log(gammas[2] / gammas[3])
    true_log_ratio = np.log(both["true_rate"] / both["true_rate_2"]).to_numpy()
    ratio = _click_ratio(both)
    return pd.DataFrame(
        {
            "product": both["product_id"],
            "probability": np.maximum(first_better, 1 - first_better),
            "is_right": sign * true_log_ratio > 0,
            "log_rate_ratio": sign * log_ratio,
            "true_log_ratio": sign * true_log_ratio,
            "is_caig_pair": _is_caig_pair(both, ratio),
            "is_caig_right": (ratio > 1) == (true_log_ratio > 0),
        }
    )


def bin_of(comparisons: pd.DataFrame) -> NDArray[np.int64]:
    """Returns the place of each comparison in `PROBABILITY_BINS`, rows as of `compare`."""
    places = np.digitize(comparisons["probability"], PROBABILITY_BINS) - 1
    return np.clip(places, 0, len(PROBABILITY_BINS) - 2).astype(np.int64)


def is_kept(comparisons: pd.DataFrame, min_probability: float) -> pd.Series:
    """Returns which comparisons become pairs, rows as of `compare`."""
    return (comparisons["probability"] >= min_probability) & (comparisons["log_rate_ratio"] > 0)


def _click_ratio(both: pd.DataFrame) -> Array:
    """Raw click-through rate of the first over that of the second; NaN without clicks."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (both[f"num_clicks{n}"] / both[f"num_impressions{n}"] for n in ("", "_2"))
        return (first / second).to_numpy()


def _is_caig_pair(both: pd.DataFrame, ratio: Array) -> NDArray[np.bool_]:
    """Whether CAIG's filter keeps the pair: both shown more than 1,000 times, click rates 1.05 to 1.20 apart."""
    shown = np.minimum(both["num_impressions"], both["num_impressions_2"]).to_numpy()
    with np.errstate(divide="ignore"):
        apart = np.maximum(ratio, 1 / ratio)
    return (shown > CAIG_MIN_IMPRESSIONS) & (apart >= CAIG_RATIO[0]) & (apart <= CAIG_RATIO[1])


def with_true_rates(planted: PlantedScope, cells: pd.DataFrame, rated: pd.DataFrame) -> pd.DataFrame:
    """Returns rows of `group_ctr` of groups with the `true_rate` of each creative.

    Args:
        planted: the truth.
        cells: cell, group_id and num_impressions, any number of rows a cell.
        rated: of the groups of these cells.

    Raises:
        ValueError: when a group has no cells or a creative is not in the truth.
    """
    rates = true_rates(planted, cells)
    group, creative = (
        pd.Index(names).get_indexer(rated[column])
        for names, column in ((list(rates), "group_id"), (planted.creative_ids, "creative_id"))
    )
    for place, column in ((group, "group_id"), (creative, "creative_id")):
        if (place < 0).any():
            unknown = rated[column].to_numpy()[place < 0][0]
            raise ValueError(f"{column} {unknown!r} of {planted.name} is not in the truth: it is another market's.")
    return rated.assign(true_rate=np.stack(list(rates.values()))[group, creative])


def true_rates(planted: PlantedScope, cells: pd.DataFrame) -> dict[str, Array]:
    """Returns each group's true click rates at position 1, the impression-weighted mean over its cells, (C,) each."""
    weights: dict[str, Array] = {}
    for (group, cell), shown in cells.groupby(["group_id", "cell"])["num_impressions"].sum().items():
        weights[group] = weights.get(group, 0.0) + shown * planted.segment_shares[str(cell)]
    return {group: planted.rates @ weight / weight.sum() for group, weight in weights.items()}


def covered_rates(rated: pd.DataFrame) -> tuple[int, int]:
    """Returns how many rates there are, and how many lie within their 95% interval."""
    is_in = (rated["ctr_rate_low"] <= rated["true_rate"]) & (rated["true_rate"] <= rated["ctr_rate_high"])
    return len(rated), int(is_in.sum())
