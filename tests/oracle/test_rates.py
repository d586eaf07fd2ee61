"""Rates of creatives against the oracle on random counts, larger and more unlike than those of the random logs."""

from __future__ import annotations

import random
from datetime import date

import numpy as np
import pandas as pd
import pytest

from osmf_pipelines.spark.ctr import rate_scope
from osmf_pipelines.spark.pairs import better_probability
from tests.oracle import pairs
from tests.oracle.events import Row
from tests.oracle.rates import ROOT, Effects, count_scopes, posteriors

DAY = date(2026, 3, 1)
EFFECTS = Effects({("feed", 1): 1.0, ("feed", 2): 0.37}, {DAY: 1.1})


def _draw_stats(rng: random.Random) -> list[Row]:
    """Up to six groups that like up to five creatives of each product differently; not all were shown all."""
    creatives = [(f"p{p}", f"p{p}-c{c}") for p in range(rng.randint(1, 5)) for c in range(rng.randint(1, 5))]
    stats = []
    for group in range(rng.randint(1, 6)):
        activity = rng.choice([0.5, 1, 2])
        for product, creative in creatives:
            num_impressions = int(rng.lognormvariate(4, 1.5)) if rng.random() < 0.85 else 0
            if num_impressions:
                rate = activity * rng.choice([0.01, 0.05, 0.2])
                stats.append(
                    {
                        "event_date": DAY,
                        "scope": "shoes",
                        "cell": f"g{group}",
                        "product_id": product,
                        "creative_id": creative,
                        "slot_type": "feed",
                        "position": rng.choice([1, 2]),
                        "num_impressions": num_impressions,
                        "num_clicks": sum(rng.random() < rate for _ in range(num_impressions)),
                    }
                )
    return stats


@pytest.mark.parametrize("seed", range(5))
def test_posteriors_agree_on_many_scopes(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        stats = _draw_stats(rng)
        if not stats:
            continue
        product_of = {row["creative_id"]: row["product_id"] for row in stats}
        split_of = {product: rng.choice(["train", "train", "test"]) for product in product_of.values()}
        group_of = {("shoes", row["cell"]): row["cell"] for row in stats}
        scopes, shown = count_scopes(stats, group_of, split_of, EFFECTS, ("train",))
        expected = posteriors(scopes["shoes"])

        rows = [
            (
                "shoes",
                group,
                product_of[name],
                name,
                n,
                k,
                round(1000 * effective),
                split_of[product_of[name]] == "train",
            )
            for (_, group, name), (n, k, effective) in shown.items()
            if group is not ROOT
        ]
        columns = ["scope", "group_id", "product_id", "creative_id", "num_impressions", "num_clicks"]
        counts = pd.DataFrame(rows, columns=[*columns, "effective_millis", "is_fitted"])
        found = rate_scope(counts.sample(frac=1, random_state=seed))

        groups = found["group_id"].where(~found["is_scope_root"], ROOT)
        keys = list(zip(groups, found["creative_id"], strict=True))
        assert {("shoes", *key) for key in keys} == shown.keys()
        for column, index in (("posterior_shape", 0), ("posterior_rate", 1)):
            assert found[column].tolist() == pytest.approx([expected[key][index] for key in keys], rel=1e-9)


def test_probabilities_agree_from_thin_to_rich_evidence() -> None:
    rng = random.Random(0)
    gammas = [(10 ** rng.uniform(-1, 3.5), 10 ** rng.uniform(0, 5)) for _ in range(2000)]
    others = [(shape * rng.uniform(0.5, 2), rate * rng.uniform(0.5, 2)) for shape, rate in gammas]

    found = better_probability(*np.array(gammas).T, *np.array(others).T)

    expected = [pairs.better_probability(*both) for both in zip(gammas, others, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-11)
