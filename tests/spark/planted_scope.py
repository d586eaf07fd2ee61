"""A scope with planted tastes, drawn in numpy: what the grouping must find again."""

from __future__ import annotations

from itertools import product

import numpy as np

from osmf_pipelines.spark.preference_cuts import ScopeCounts
from osmf_pipelines.spark.preference_model import design_creatives

ATTRIBUTES = {
    "age": ("18-24", "25-34", "35-49", "50+"),
    "budget": ("high", "low", "mid"),
    "device": ("android", "ios", "web"),
    "gender": ("f", "m"),
    "region": ("east", "north", "south", "west", "abroad"),
}
CELLS = [
    "|".join(f"{n}={v}" for n, v in zip(ATTRIBUTES, values, strict=True)) for values in product(*ATTRIBUTES.values())
]


def plant_segments(segments: int) -> np.ndarray:
    """Segments by rules on age, budget and region; 1 is a scope that agrees."""
    values = [dict(part.split("=") for part in cell.split("|")) for cell in CELLS]
    young = np.array([v["age"] in ("18-24", "25-34") for v in values])
    cheap = np.array([v["budget"] == "low" for v in values])
    south = np.array([v["region"] in ("south", "abroad") for v in values])
    return {1: young * 0, 2: young * 1, 4: 2 * young + cheap, 6: np.where(young, 2 * cheap + south, 4 + cheap)}[
        segments
    ]


def draw_scope(
    seed: int,
    *,
    segments: int,
    impressions: int,
    num_products: int = 40,
    per_product: int = 6,
    taste: float = 0.35,
    rate: float = 0.015,
    heldout_share: float = 0.0,
) -> tuple[ScopeCounts, np.ndarray]:
    """Counts of a scope where activity differs up to fourfold and exposure follows taste; and each cell's segment."""
    rng = np.random.default_rng(seed)
    segment = plant_segments(segments)
    product_of = np.repeat(np.arange(num_products), per_product)
    features = rng.uniform(-1.2, 2.0, (len(product_of), 5))
    tastes = rng.normal(0, taste, (segment.max() + 1, 5))
    log_rate = tastes[segment] @ features.T
    cell_weight = rng.dirichlet(np.full(len(CELLS), 2.0))
    activity = (
        np.exp(rng.uniform(0, np.log(4), (len(CELLS), 1))) / 2 * np.where([[("ios" in c)] for c in CELLS], 2.0, 1.0)
    )
    shares = np.exp(log_rate) * rng.gamma(2.0, 1.0, (len(CELLS), num_products))[:, product_of]
    expected = impressions * cell_weight[:, None] * shares / shares.sum(axis=1, keepdims=True)
    level = rng.lognormal(0, 0.3, num_products)[product_of]
    shown = rng.poisson(expected)
    probability = rate * activity * level * np.exp(log_rate - log_rate.mean())
    clicks = rng.binomial(shown, np.minimum(probability, 0.9))
    heldout_shown = rng.binomial(shown, heldout_share)
    heldout_clicks = rng.hypergeometric(clicks, shown - clicks, heldout_shown)
    cell_of, creative_of = np.nonzero(shown)
    columns = (shown - heldout_shown, clicks - heldout_clicks, heldout_shown, heldout_clicks)
    rows = [values[cell_of, creative_of].astype(float) for values in columns]
    users = np.maximum(shown.sum(axis=1) // 20, 1)
    return ScopeCounts(CELLS, users, design_creatives(product_of, features), cell_of, creative_of, *rows), segment


def adjusted_rand_index(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """Agreement of two partitions of cells, weighted by each cell's users (Hubert and Arabie 1985)."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), weights)

    def pairs(x: np.ndarray) -> float:
        return float((x * (x - 1) / 2).sum())

    rows, columns, total = pairs(table.sum(1)), pairs(table.sum(0)), pairs(np.array([table.sum()]))
    expected = rows * columns / total
    return 1.0 if rows == columns == total else (pairs(table) - expected) / ((rows + columns) / 2 - expected)
