"""What is told of a group: its users' attributes, its exemplar creatives, and all of it in plain language.

Plain Python and numpy over one group's sums; fitting preferences belongs in `preference_model`, the table in `group`.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from osmf_pipelines.spark.preference_model import Array, CreativeDesign, Indices, sum_by_product
from osmf_pipelines.spark.preference_rules import parse_cell

OTHER_VALUES = "other values"
_NUM_EXEMPLARS = 3
_PRIOR_CLICKS = 10.0  # a creative's rate against its product's varies by about 30%: Gamma of shape 10
_MIN_MOSTLY_SHARE = 0.6
_MIN_LIFT = 1.2
_MAX_VALUES_NAMED = 3
_MIN_PREFERENCE_Z = 2.0

_HIGH_FORMS = {
    "brightness": "bright scenes",
    "warmth": "warm colours",
    "saturation": "vivid colours",
    "texture": "busy textures",
    "gradient": "light from above",
}


def attribute_shares(
    cells: list[str], cell_users: Indices, known: Collection[str] | None = None, *, max_values: int = 32
) -> dict[str, float]:
    """Returns the share of users with each `attribute=value` of these cells; without users all shares are 0.

    The values of an attribute that are not told apart are summed as `attribute=other values`.

    Args:
        cells: texts of the cells.
        cell_users: distinct users of each; they add up over cells.
        known: the shares to tell, all other values not being told apart; None for the `max_values` that most users
            have.
        max_values: of an attribute.
    """
    totals: dict[str, dict[str, int]] = {}
    for cell, num_users in zip(cells, cell_users.tolist(), strict=True):
        for name, value in parse_cell(cell).items():
            of_name = totals.setdefault(name, {})
            of_name[value] = of_name.get(value, 0) + num_users
    num_users = max(int(cell_users.sum()), 1)
    shares: dict[str, float] = {}
    for name, of_name in totals.items():
        kept = set(sorted(of_name, key=lambda value: (-of_name[value], value))[:max_values])
        for value, total in of_name.items():
            is_told = value in kept if known is None else f"{name}={value}" in known
            condition = f"{name}={value if is_told else OTHER_VALUES}"
            shares[condition] = shares.get(condition, 0.0) + total / num_users
    return dict(sorted(shares.items()))


def pick_exemplars(
    design: CreativeDesign, creative_ids: list[str], impressions: Array, clicks: Array
) -> tuple[list[str], list[str]]:
    """Returns the creatives that a group clicks most and least, relative to their product, best and worst first.

    Relative rate: (clicks + 10) / (expected clicks at the product's rate + 10). At most 3 of each, and none is both:
    with fewer than 6 creatives shown, the upper and the lower half.

    Args:
        design: the creatives.
        creative_ids: their ids, (C,).
        impressions: effective impressions, (C,); creatives that were not shown are no exemplars.
        clicks: (C,).
    """
    shown, clicked = (sum_by_product(design, values[None])[0] for values in (impressions, clicks))
    product_rate = np.divide(clicked, shown, out=np.zeros_like(shown), where=shown > 0)
    relative_rate = (clicks + _PRIOR_CLICKS) / (impressions * product_rate[design.product_of] + _PRIOR_CLICKS)
    candidates = np.flatnonzero(impressions > 0).tolist()
    ranked = sorted(candidates, key=lambda index: (-relative_rate[index], creative_ids[index]))
    num_exemplars = min(_NUM_EXEMPLARS, len(ranked) // 2)
    top = [creative_ids[index] for index in ranked[:num_exemplars]]
    bottom = [creative_ids[index] for index in ranked[::-1][:num_exemplars]]
    return top, bottom


def describe_group(
    shares: dict[str, float], scope_shares: dict[str, float], feature_names: list[str], preference_z: Array
) -> str:
    """Returns a group in plain language, such as `mostly age 18-24; prefers warm colours; avoids busy textures`.

    An attribute is named when up to 3 values, each 1.2 times as common as in the scope, hold 60% of the users; a
    feature when its preference is 2 standard errors from 0, the surest first.

    Args:
        shares: of the group, per `attribute=value`.
        scope_shares: of everyone in the scope.
        feature_names: names of the d features.
        preference_z: preference over its standard error, (d,).
    """
    people = [
        text for name in sorted({c.split("=")[0] for c in shares}) if (text := _mostly(name, shares, scope_shares))
    ]
    surest = np.argsort(-np.abs(preference_z), kind="stable")
    forms = [_HIGH_FORMS.get(name, f"higher {name.replace('_', ' ')}") for name in feature_names]
    liked = [forms[index] for index in surest if preference_z[index] >= _MIN_PREFERENCE_Z]
    avoided = [forms[index] for index in surest if preference_z[index] <= -_MIN_PREFERENCE_Z]
    parts = [f"mostly {', '.join(people)}" if people else "all kinds of users"]
    parts += [f"prefers {', '.join(liked)}"] * bool(liked)
    parts += [f"avoids {', '.join(avoided)}"] * bool(avoided)
    parts += ["no clear taste in pictures"] * (not liked and not avoided)
    return "; ".join(parts)


def _mostly(name: str, shares: dict[str, float], scope_shares: dict[str, float]) -> str:
    """The values of one attribute that most of the group's users have and that set it apart, or nothing."""
    common = [
        condition
        for condition, share in shares.items()
        if condition.split("=")[0] == name and share > 0 and share >= _MIN_LIFT * scope_shares[condition]
    ]
    common.sort(key=lambda condition: (-shares[condition], condition))
    for length in range(1, min(_MAX_VALUES_NAMED, len(common)) + 1):
        if sum(shares[condition] for condition in common[:length]) >= _MIN_MOSTLY_SHARE:
            values = sorted(condition.split("=", 1)[1] for condition in common[:length])
            return f"{name.replace('_', ' ')} {' or '.join(values)}"
    return ""
