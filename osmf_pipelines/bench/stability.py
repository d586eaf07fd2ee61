"""Whether users stay in the same groups from one day to the next, and how soon a change of taste is seen.

One refresh a day on a window of days, as the schedule does it; one-off recovery belongs in `grouping.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import Market
from osmf_models.simulator.segments import Scope
from osmf_pipelines.bench.grouping import CONDITIONS, MARKETS, Case, open_case
from osmf_pipelines.bench.grouping_score import PlantedScope, score_groups
from osmf_pipelines.bench.market_counts import MarketCounts, count_market
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.scope_groups import form_scope_groups

WINDOW_DAYS = 7
FOUND_RAND_INDEX = 0.98
_AGREEING, _TAUGHT = "mug", "bag"


@dataclass(frozen=True)
class Stability:
    """How groups of consecutive days compare.

    Attributes:
        case: what was simulated.
        scope: category.
        users_kept_share: users whose group of today and group of yesterday continue each other.
        num_groups: today.
    """

    case: Case
    scope: str
    users_kept_share: float
    num_groups: int


def stability_of(case: Case, settings: TreeSettings) -> list[Stability]:
    """Returns, per scope, how groups of two consecutive refreshes compare; their windows share all days but one.

    Args:
        case: its clicks are those of a window.
        settings: floors of a group.
    """
    policy, encoder = CONDITIONS[case.condition].policy, MARKETS[case.market].encoder
    counts = count_market(open_case(case, WINDOW_DAYS), policy, WINDOW_DAYS + 1, encoder)
    found = []
    for place, scope in enumerate(counts.shop.market.scopes):
        yesterday, today = (_form(counts.of_days(first, WINDOW_DAYS), place, settings) for first in (0, 1))
        users = dict(zip(counts.cells, counts.cell_users[place].tolist(), strict=True))
        share = users_kept_share(_cells(yesterday), _cells(today), users)
        found.append(Stability(case, scope.name, share, len(_cells(today))))
    return found


def users_kept_share(yesterday: dict[str, list[str]], today: dict[str, list[str]], users: dict[str, int]) -> float:
    """Returns the share of users in a group of today that continues the group that they were in yesterday.

    A group continues another when most of its users were in that one, and most of that one's users are in it.

    Args:
        yesterday: cells of each group.
        today: the same.
        users: of each cell; cells outside the groups of either day count as not kept.
    """
    before, after = ({cell: group for group, cells in one.items() for cell in cells} for one in (yesterday, today))
    rows = [(before.get(cell), after.get(cell), count) for cell, count in users.items()]
    frame = pd.DataFrame(rows, columns=["before", "after", "num_users"])
    both = frame.dropna().groupby(["before", "after"], as_index=False)["num_users"].sum()
    both = both.sort_values(["num_users", "before", "after"], ascending=[False, True, True])
    heir = both.drop_duplicates("before").set_index("before")["after"]
    parent = both.drop_duplicates("after").set_index("after")["before"]
    is_mutual = (both["before"].map(heir) == both["after"]) & (both["after"].map(parent) == both["before"])
    return float(both.loc[is_mutual, "num_users"].sum() / max(frame["num_users"].sum(), 1))


def days_until_change_is_found(case: Case, settings: TreeSettings, num_days: int = 14) -> int | None:
    """Returns after how many days of new tastes the daily refresh finds them; None if not within `num_days`.

    The users of one agreeing category take up, from one day to the next, the disagreeing tastes of another. Found means
    an adjusted Rand index of at least `FOUND_RAND_INDEX` against the new segments.

    Args:
        case: an easy market; its clicks are those of a window.
        settings: floors of a group.
        num_days: days to wait.
    """
    shop, policy = open_case(replace(case, scopes=(_AGREEING,)), WINDOW_DAYS), CONDITIONS[case.condition].policy
    old = count_market(shop, policy, WINDOW_DAYS)
    new = count_market(replace(shop, market=_with_new_tastes(shop.market)), policy, WINDOW_DAYS + num_days)
    log = old.followed_by(new.of_days(WINDOW_DAYS, num_days))
    planted = PlantedScope.of(new, 0)
    for day in range(1, num_days + 1):
        window = log.of_days(day, WINDOW_DAYS)
        frame = window.of_scope(0, window.place_effects)
        score = score_groups(planted, frame, _form(window, 0, settings), settings)
        if score["adjusted_rand_index"] >= FOUND_RAND_INDEX:
            return day
    return None


def _with_new_tastes(market: Market) -> Market:
    taught = easy_market(market.seed).scope(_TAUGHT)
    return replace(market, scopes=(Scope(_AGREEING, taught.kind, taught.segments),))


def _form(counts: MarketCounts, place: int, settings: TreeSettings) -> pd.DataFrame:
    frame = counts.of_scope(place, counts.place_effects)
    return form_scope_groups(frame, counts.features_of_scope(place), settings, "adaptive")


def _cells(formed: pd.DataFrame) -> dict[str, list[str]]:
    groups = formed[~np.asarray(formed["is_scope_root"], dtype=bool)]
    return dict(zip(groups["group_id"], groups["cells"], strict=True))
