"""One scope's groups where an attribute has far more values than anybody could act on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.scope_groups import form_scope_groups

NUM_CITIES = 100_000


def test_an_attribute_with_1e5_values_makes_no_nonsense():
    """The 31 commonest values stand alone, the others together; what is told of a group stays short."""
    rng = np.random.default_rng(0)
    num_products, per_product = 20, 6
    creatives = [f"p{product}-c{number}" for product in range(num_products) for number in range(per_product)]
    features = rng.normal(size=len(creatives))
    likes = {"old": 0.5, "young": -0.5}
    parts = []
    for age, slope in likes.items():
        creative = rng.integers(0, len(creatives), NUM_CITIES)
        clicks = rng.poisson(40 * 0.05 * np.exp(slope * features[creative]))
        cells = [f"age={age}|city=c{number:05}" for number in range(NUM_CITIES)]
        parts.append(pd.DataFrame({"cell": cells, "creative_id": np.array(creatives)[creative], "num_clicks": clicks}))
    counts = pd.concat(parts, ignore_index=True).assign(
        scope="shoe", num_impressions=40, effective_millis=40_000.0, heldout_millis=0.0, heldout_clicks=0, num_users=3
    )
    counts = counts.assign(product_id=counts["creative_id"].str.split("-").str[0], is_fitted=True)
    told = pd.DataFrame(
        {
            "scope": "shoe",
            "creative_id": creatives,
            "feature_names": [["warmth"]] * len(creatives),
            "feature_values": [[value] for value in features],
        }
    )

    formed = form_scope_groups(counts, told, TreeSettings(), "adaptive")

    groups = formed[~formed["is_scope_root"]].sort_values("rule")
    assert groups["rule"].to_list() == ["age in {old}", "age in {young}"]
    assert groups["num_users"].to_list() == [3 * NUM_CITIES] * 2
    assert {len(shares) for shares in groups["attribute_shares"]} == {2 + 32 + 1}
    for shares in groups["attribute_shares"]:
        assert abs(sum(share for name, share in shares.items() if name.startswith("city=")) - 1) < 1e-9
    assert groups["description"].to_list() == [
        "mostly age old; prefers warm colours",
        "mostly age young; avoids warm colours",
    ]
