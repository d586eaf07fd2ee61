"""The market `easy-2`, for tests: linear tastes along the attributes' axes, everyone as active, no season.

The default market belongs in `realistic.py`.
"""

from __future__ import annotations

import numpy as np

from osmf_models.simulator.market import Market, check_market
from osmf_models.simulator.products import make_product
from osmf_models.simulator.scene_features import STYLE_NAMES
from osmf_models.simulator.segments import Scope, Segment, Taste
from osmf_models.simulator.users import Attribute, Population

BASE_RATE = 0.045


def easy_market(
    seed: int,
    *,
    image_px: int = 32,
    num_products_per_scope: int = 30,
    num_creatives_per_product: int = 8,
    num_users: int = 20_000,
) -> Market:
    """Returns the market `easy-2`: four scopes, linear tastes, segments along the attributes' axes.

    Raises:
        ValueError: when a setting is impossible.
    """
    products = tuple(
        make_product(scope.name, number, seed, BASE_RATE)
        for scope in _SCOPES
        for number in range(num_products_per_scope)
    )
    population = Population(seed, num_users, _ATTRIBUTES, is_heavy_tailed=False, factor_spread=0.0)
    return check_market(Market("easy-2", seed, image_px, num_creatives_per_product, population, _SCOPES, products))


def _likes(*slopes: float) -> Taste:
    """A linear taste in the five styles that the default creative features measure; its mean lift is 1."""
    linear = np.array([*slopes, *[0.0] * (len(STYLE_NAMES) - len(slopes))])
    means = np.sinh(linear, where=linear != 0, out=np.ones_like(linear)) / np.where(linear != 0, linear, 1.0)
    offset = -round(float(np.log(means).sum()), 6)
    return Taste(offset, tuple(linear.tolist()), (0.0,) * len(STYLE_NAMES))


_ATTRIBUTES = (
    Attribute("age_band", ("18-24", "25-34", "35-49", "50+"), None, ((0.22, 0.30, 0.28, 0.20),)),
    Attribute("gender", ("female", "male"), None, ((0.54, 0.46),)),
    Attribute("city_tier", ("tier1", "tier2", "tier3"), None, ((0.35, 0.35, 0.30),)),
    Attribute(
        "price_sensitivity",
        ("low", "medium", "high"),
        "age_band",
        ((0.15, 0.35, 0.50), (0.30, 0.40, 0.30), (0.35, 0.40, 0.25), (0.25, 0.35, 0.40)),
    ),
    Attribute("device", ("ios", "android"), "city_tier", ((0.55, 0.45), (0.42, 0.58), (0.28, 0.72))),
    Attribute("membership", ("member", "none"), "price_sensitivity", ((0.52, 0.48), (0.38, 0.62), (0.22, 0.78))),
)

# Tastes: brightness, warmth, saturation, texture, gradient.
_SCOPES = (
    Scope(
        "shoe",
        "strong",
        (
            Segment(
                "bargain_youth",
                (("age_band", ("18-24", "25-34")), ("price_sensitivity", ("high",))),
                _likes(-0.22, 0.37, 0.44, 0.22, 0.0),
            ),
            Segment("young", (("age_band", ("18-24", "25-34")),), _likes(-0.37, -0.44, -0.11, 0.26, 0.15)),
            Segment("women_35_up", (("gender", ("female",)),), _likes(0.44, 0.33, -0.35, -0.13, 0.0)),
            Segment("men_35_up", (), _likes(0.18, -0.33, 0.11, -0.44, -0.29)),
        ),
    ),
    Scope(
        "bag",
        "strong",
        (
            Segment(
                "metropolitan_women",
                (("gender", ("female",)), ("city_tier", ("tier1",))),
                _likes(0.33, -0.40, -0.42, 0.0, 0.15),
            ),
            Segment("other_women", (("gender", ("female",)),), _likes(0.22, 0.51, 0.29, -0.24, 0.0)),
            Segment("men", (), _likes(-0.48, -0.13, 0.15, 0.40, -0.15)),
        ),
    ),
    Scope(
        "lamp",
        "strong",
        (
            Segment("members", (("membership", ("member",)),), _likes(-0.44, 0.42, 0.0, 0.22, 0.22)),
            Segment("ios_guests", (("device", ("ios",)),), _likes(0.46, -0.37, 0.15, -0.26, 0.0)),
            Segment("android_guests", (), _likes(0.20, 0.15, 0.46, 0.18, -0.40)),
        ),
    ),
    Scope("mug", "agreeing", (Segment("everyone", (), _likes(0.33, 0.40, 0.18, -0.31, 0.13)),)),
)
