"""The market `realistic-1`, the default: tastes that no model of the pipeline assumes, frozen with its version.

Tastes peak inside the range of scenes and interact; four of the nine styles are absent from the default creative
features; some segments are soft or oblique to the attributes; users differ within a segment; rates have seasons and
drift. Any change of a number here is another market and needs another name.
"""

from __future__ import annotations

from osmf_models.simulator.market import Market, Season, check_market
from osmf_models.simulator.products import make_product
from osmf_models.simulator.segments import Scope, Segment, Taste
from osmf_models.simulator.users import Attribute, Population

NAME = "realistic-1"
BASE_RATE = 0.035


def realistic_market(
    seed: int,
    *,
    image_px: int = 32,
    num_products_per_scope: int = 25,
    num_creatives_per_product: int = 8,
    num_users: int = 20_000,
) -> Market:
    """Returns the market `realistic-1`: eight scopes, four of them contradictory, two mild, two that agree.

    Raises:
        ValueError: when a setting is impossible.
    """
    products = tuple(
        make_product(scope.name, number, seed, BASE_RATE)
        for scope in _SCOPES
        for number in range(num_products_per_scope)
    )
    market = Market(
        NAME,
        seed,
        image_px,
        num_creatives_per_product,
        Population(seed, num_users, _ATTRIBUTES, is_heavy_tailed=True, factor_spread=0.4),
        _SCOPES,
        products,
        season=Season((-0.02, -0.04, -0.03, 0.0, 0.03, 0.06, 0.04), daily_spread=0.03),
        popularity_exponent=0.4,
    )
    return check_market(market)


_ATTRIBUTES = (
    Attribute("age_band", ("18-24", "25-34", "35-49", "50+"), None, ((0.22, 0.30, 0.28, 0.20),), 0.04),
    Attribute("gender", ("female", "male"), None, ((0.54, 0.46),), 0.03),
    Attribute("city_tier", ("tier1", "tier2", "tier3"), None, ((0.35, 0.35, 0.30),), 0.02),
    Attribute(
        "price_sensitivity",
        ("low", "medium", "high"),
        "age_band",
        ((0.15, 0.35, 0.50), (0.30, 0.40, 0.30), (0.35, 0.40, 0.25), (0.25, 0.35, 0.40)),
        0.06,
    ),
    Attribute("device", ("ios", "android"), "city_tier", ((0.55, 0.45), (0.42, 0.58), (0.28, 0.72))),
    Attribute("membership", ("member", "none"), "price_sensitivity", ((0.52, 0.48), (0.38, 0.62), (0.22, 0.78))),
    Attribute(
        "interest",
        ("home", "fashion", "sport", "tech"),
        "gender",
        ((0.32, 0.36, 0.18, 0.14), (0.18, 0.16, 0.34, 0.32)),
        0.10,
    ),
)

_YOUNG = ("age_band", ("18-24", "25-34"))
_FEMALE = ("gender", ("female",))
_COLLECTORS = (
    ("age_band", ("50+",)),
    ("gender", ("male",)),
    ("city_tier", ("tier1",)),
    ("price_sensitivity", ("low",)),
    ("interest", ("tech",)),
)
_VALUE_SEEKING = (
    ("age_band", (0.0, 0.35, 0.7, 1.0)),
    ("price_sensitivity", (0.0, 0.5, 1.0)),
    ("city_tier", (0.0, 0.3, 0.6)),
)

# Numbers of a taste: brightness, warmth, saturation, texture, gradient; horizon, grain, props, shadow.
_SHOE = (0.64, 0.64, 0.0, 1.03, 1.12, 0.38, 0.0, 0.0, 0.43)
_BAG = (0.66, 0.66, 0.74, 0.0, 0.33, 0.0, 0.0, 0.56, 0.63)
_WATCH = (0.78, 0.53, 0.6, 1.06, 0.0, 0.0, 0.71, 0.55, 0.0)
_PHONE = (0.75, 0.79, 0.48, 0.0, 0.73, 0.0, 0.0, 0.51, 0.47)
_LAMP = (0.36, 0.3, 0.38, 0.31, 0.3, 0.38, 0.0, 0.35, 0.32)
_CHAIR = (0.33, 0.45, 0.42, 0.37, 0.46, 0.0, 0.33, 0.34, 0.33)
_BOTTLE = (0.33, 0.33, 0.33, 0.33, 0.33, 0.33, 0.33, 0.33, 0.33)
_MUG = (0.37, 0.32, 0.35, 0.32, 0.32, 0.32, 0.32, 0.32, 0.32)
_LAMP_PAIRS = ((4, 7, -0.12), (0, 2, 0.12))
_CHAIR_PAIRS = ((1, 7, 0.12), (0, 7, 0.12))
_WARMER = (0.0, 0.12, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
_DARKER = (-0.12, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

_SHOE_TASTES = (
    Taste(0.59, (-0.46, 0.04, 0.0, 0.34, -0.25, -0.26, 0.0, 0.0, -0.17), _SHOE, ((3, 8, -0.2), (0, 4, 0.2)), _WARMER),
    Taste(0.535, (-0.13, 0.1, 0.0, 0.71, 0.47, -0.12, 0.0, 0.0, 0.36), _SHOE, ((5, 8, 0.2), (1, 3, 0.2)), _DARKER),
    Taste(0.595, (-0.24, -0.48, 0.0, 0.0, 0.41, 0.06, 0.0, 0.0, 0.08), _SHOE, ((0, 1, -0.2), (1, 4, -0.2))),
    Taste(0.524, (0.18, 0.29, 0.0, -0.46, -0.74, 0.2, 0.0, 0.0, -0.27), _SHOE, ((0, 8, -0.2), (1, 8, 0.2))),
)
_BAG_TASTES = (
    Taste(0.433, (0.24, -0.28, 0.59, 0.0, -0.22, 0.0, 0.0, -0.47, -0.43), _BAG, ((2, 8, 0.2), (1, 2, 0.2))),
    Taste(0.503, (0.33, -0.4, -0.23, 0.0, -0.08, 0.0, 0.0, 0.24, 0.2), _BAG, ((1, 7, -0.2), (0, 1, 0.2)), _WARMER),
    Taste(0.451, (-0.46, 0.46, -0.55, 0.0, 0.01, 0.0, 0.0, 0.3, -0.12), _BAG, ((0, 2, -0.2), (1, 8, 0.2))),
)
_WATCH_TASTES = (
    Taste(0.549, (-0.55, 0.09, -0.44, -0.53, 0.0, 0.0, 0.1, 0.07, 0.0), _WATCH, ((1, 3, -0.2), (1, 2, 0.2))),
    Taste(0.622, (0.18, 0.16, -0.04, 0.03, 0.0, 0.0, 0.39, -0.29, 0.0), _WATCH, ((3, 6, -0.2), (0, 3, -0.2)), _DARKER),
    Taste(0.459, (0.54, 0.27, 0.21, 0.81, 0.0, 0.0, -0.58, -0.24, 0.0), _WATCH, ((1, 6, 0.2), (2, 6, 0.2))),
    Taste(0.608, (-0.06, -0.4, 0.21, 0.37, 0.0, 0.0, -0.23, -0.05, 0.0), _WATCH, ((2, 7, -0.2), (3, 6, 0.2))),
    Taste(0.602, (0.02, -0.3, 0.14, -0.14, 0.0, 0.0, 0.4, 0.36, 0.0), _WATCH, ((1, 3, -0.2), (3, 7, -0.2))),
)
_PHONE_TASTES = (
    Taste(0.445, (-0.26, 0.6, 0.4, 0.0, 0.5, 0.0, 0.0, -0.1, 0.37), _PHONE, ((1, 7, 0.2), (4, 7, 0.2))),
    Taste(0.551, (-0.27, -0.09, 0.18, 0.0, -0.14, 0.0, 0.0, -0.21, -0.3), _PHONE, ((1, 8, -0.2), (0, 7, 0.2))),
    Taste(0.477, (0.51, -0.38, -0.4, 0.0, -0.19, 0.0, 0.0, 0.4, -0.07), _PHONE, ((2, 8, 0.2), (2, 7, 0.2)), _WARMER),
)
_LAMP_TASTES = (
    Taste(0.407, (-0.12, -0.09, -0.28, -0.21, -0.13, -0.16, 0.0, -0.07, 0.04), _LAMP, _LAMP_PAIRS),
    Taste(0.394, (-0.21, -0.21, -0.22, 0.07, -0.21, -0.28, 0.0, 0.08, 0.05), _LAMP, _LAMP_PAIRS),
    Taste(0.399, (-0.26, -0.01, -0.07, -0.18, 0.08, 0.08, 0.0, -0.24, 0.26), _LAMP, _LAMP_PAIRS),
)
_CHAIR_TASTES = (
    Taste(0.455, (-0.26, 0.13, -0.04, 0.29, 0.09, 0.0, -0.15, -0.01, -0.2), _CHAIR, _CHAIR_PAIRS),
    Taste(0.436, (-0.13, 0.35, 0.1, 0.2, 0.36, 0.0, -0.15, 0.1, -0.11), _CHAIR, _CHAIR_PAIRS),
    Taste(0.44, (-0.13, 0.34, -0.34, -0.09, 0.09, 0.0, -0.15, -0.01, -0.22), _CHAIR, _CHAIR_PAIRS),
    Taste(0.437, (-0.22, -0.07, -0.3, 0.08, 0.28, 0.0, -0.18, 0.28, -0.14), _CHAIR, _CHAIR_PAIRS),
)
_BOTTLE_TASTES = (
    Taste(0.443, (-0.19, 0.11, -0.23, 0.13, -0.21, -0.19, -0.09, 0.14, -0.18), _BOTTLE, ((0, 3, 0.12), (5, 7, 0.12))),
)
_MUG_TASTES = (
    Taste(0.441, (0.25, -0.13, -0.24, 0.13, 0.16, 0.09, 0.09, -0.17, 0.17), _MUG, ((2, 6, 0.12), (2, 7, -0.12))),
)

_SCOPES = (
    Scope(
        "shoe",
        "strong",
        (
            Segment("bargain_youth", (_YOUNG, ("price_sensitivity", ("high",))), _SHOE_TASTES[0]),
            Segment("young", (_YOUNG,), _SHOE_TASTES[1]),
            Segment("women_35_up", (_FEMALE,), _SHOE_TASTES[2]),
            Segment("men_35_up", (), _SHOE_TASTES[3]),
        ),
    ),
    Scope(
        "bag",
        "strong",
        (
            Segment("metropolitan_women", (_FEMALE, ("city_tier", ("tier1",))), _BAG_TASTES[0]),
            Segment("other_women", (_FEMALE,), _BAG_TASTES[1]),
            Segment("men", (), _BAG_TASTES[2]),
        ),
    ),
    Scope(
        "watch",
        "strong",
        (
            Segment("collectors", _COLLECTORS, _WATCH_TASTES[0]),
            Segment("sporty", (("interest", ("sport",)),), _WATCH_TASTES[1]),
            Segment("gift_givers", (("age_band", ("35-49", "50+")), _FEMALE), _WATCH_TASTES[2]),
            Segment("members", (("membership", ("member",)),), _WATCH_TASTES[3]),
            Segment("others", (), _WATCH_TASTES[4]),
        ),
        softness=0.15,
    ),
    Scope(
        "phone",
        "strong",
        (
            Segment("value_seekers", (), _PHONE_TASTES[0], _VALUE_SEEKING, 1.3),
            Segment("enthusiasts", (("interest", ("tech", "fashion")),), _PHONE_TASTES[1]),
            Segment("others", (), _PHONE_TASTES[2]),
        ),
        softness=0.1,
    ),
    Scope(
        "lamp",
        "mild",
        (
            Segment("home_lovers", (("interest", ("home",)),), _LAMP_TASTES[0]),
            Segment("ios", (("device", ("ios",)),), _LAMP_TASTES[1]),
            Segment("others", (), _LAMP_TASTES[2]),
        ),
    ),
    Scope(
        "chair",
        "mild",
        (
            Segment("young_members", (_YOUNG, ("membership", ("member",))), _CHAIR_TASTES[0]),
            Segment("young", (_YOUNG,), _CHAIR_TASTES[1]),
            Segment("towns", (("city_tier", ("tier2", "tier3")),), _CHAIR_TASTES[2]),
            Segment("metropolitan", (), _CHAIR_TASTES[3]),
        ),
        softness=0.1,
    ),
    Scope(
        "bottle",
        "agreeing",
        (Segment("everyone", (), _BOTTLE_TASTES[0]),),
    ),
    Scope(
        "mug",
        "agreeing",
        (Segment("everyone", (), _MUG_TASTES[0]),),
    ),
)
