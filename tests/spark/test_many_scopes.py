"""Thousands of scopes in one run: each scope's tree is a task of its own, and each finds its own truth."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import date

import numpy as np
import pandas as pd
import pytest
from pyspark import cloudpickle
from pyspark.sql import SparkSession

from osmf_pipelines.spark.group import form_groups, list_user_groups
from osmf_pipelines.spark.place_effects import PlaceEffects
from osmf_pipelines.tables import TABLES

NUM_SCOPES, NUM_PRODUCTS, PER_PRODUCT, NUM_FEATURES = 2_000, 6, 6, 3
AGES, GENDERS = ("18-24", "25-34", "35-49", "50+"), ("f", "m")
CELLS = [f"age={age}|gender={gender}" for age in AGES for gender in GENDERS]
IMPRESSIONS, RATE, TASTE, USERS_PER_CELL = 400, 0.05, 0.4, 20
DAY = date(2026, 3, 1)


def creatives_of(scope: int) -> tuple[str, list[str], list[str], np.ndarray]:
    """Name, products, creatives and features of a scope."""
    name = f"scope-{scope:04}"
    products = [f"{name}-p{product}" for product in range(NUM_PRODUCTS) for _ in range(PER_PRODUCT)]
    creatives = [f"{product}-c{number % PER_PRODUCT}" for number, product in enumerate(products)]
    features = np.random.default_rng([scope, 0]).normal(size=(len(creatives), NUM_FEATURES))
    return name, products, creatives, features


def does_disagree(scope: int) -> bool:
    return scope % 2 == 0


def stats_of(scope: int) -> pd.DataFrame:
    """Clicks of women and men whose tastes are opposite in scopes of even number, and the same in the others."""
    name, products, creatives, features = creatives_of(scope)
    rng = np.random.default_rng([scope, 1])
    taste = rng.normal(size=NUM_FEATURES)
    taste *= TASTE / np.linalg.norm(taste)
    rows = []
    for cell in CELLS:
        sign = -1 if does_disagree(scope) and cell.endswith("=m") else 1
        clicks = rng.poisson(IMPRESSIONS * RATE * np.exp(sign * features @ taste))
        rows.append(pd.DataFrame({"cell": cell, "product_id": products, "creative_id": creatives, "clicks": clicks}))
    frame = pd.concat(rows, ignore_index=True)
    columns = {
        "event_date": DAY,
        "scope": name,
        "cell": frame["cell"],
        "user_fold": 1,
        "product_id": frame["product_id"],
        "creative_id": frame["creative_id"],
        "slot_type": "feed",
        "position": 1,
        "num_impressions": IMPRESSIONS,
        "num_clicks": np.minimum(frame["clicks"], IMPRESSIONS),
        "inverse_propensity_millis": None,
    }
    return pd.DataFrame(columns)


def users_of(scope: int) -> pd.DataFrame:
    name = creatives_of(scope)[0]
    rows = [(DAY, name, cell, f"{name}-{cell}-{user}") for cell in CELLS for user in range(USERS_PER_CELL)]
    return pd.DataFrame(rows, columns=TABLES["cell_users"].column_names)


def features_of(scope: int) -> pd.DataFrame:
    name, products, creatives, features = creatives_of(scope)
    rows = [
        (creative, product, name, [f"feature_{n}" for n in range(NUM_FEATURES)], values.tolist(), 0.2)
        for creative, product, values in zip(creatives, products, features, strict=True)
    ]
    return pd.DataFrame(rows, columns=TABLES["creative_features"].column_names)


def splits_of(scope: int) -> pd.DataFrame:
    name, products, _, _ = creatives_of(scope)
    rows = [(product, name, "train") for product in sorted(set(products))]
    return pd.DataFrame(rows, columns=TABLES["product_splits"].column_names)


@pytest.mark.slow
def test_each_of_2000_scopes_finds_its_own_groups(spark: SparkSession) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have the tests
    makers = {
        "creative_stats": stats_of,
        "cell_users": users_of,
        "creative_features": features_of,
        "product_splits": splits_of,
    }

    def table(name: str) -> object:
        def make(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            for frame in frames:
                yield pd.concat([makers[name](int(scope)) for scope in frame["id"]], ignore_index=True)

        return spark.range(0, NUM_SCOPES, 1, 8).mapInPandas(make, TABLES[name].ddl)

    effects = PlaceEffects({("feed", 1): 1.0}, {DAY: 1.0})
    formed = form_groups(*[table(name) for name in makers], as_of_date=DAY, place_effects=effects)
    cells_of: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in list_user_groups(formed).select("scope", "cell", "group_id").collect():
        cells_of[row["scope"]][row["group_id"]].add(row["cell"])

    assert len(cells_of) == NUM_SCOPES
    women, men = ({cell for cell in CELLS if cell.endswith(f"={gender}")} for gender in GENDERS)
    right = {True: 0, False: 0}
    for scope in range(NUM_SCOPES):
        found = sorted(map(sorted, cells_of[f"scope-{scope:04}"].values()))
        planted = [women, men] if does_disagree(scope) else [set(CELLS)]
        right[does_disagree(scope)] += found == sorted(map(sorted, planted))
    assert right[True] >= 0.98 * NUM_SCOPES / 2
    assert right[False] >= 0.99 * NUM_SCOPES / 2
