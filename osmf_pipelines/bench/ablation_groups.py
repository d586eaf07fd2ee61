"""Which groups of a market `osmf ablate` tells of on their own: held out of training, or of scopes where tastes agree.

Where they are left out of training belongs in `osmf_models/data/dataset.py`, figures in `ablation_figures.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

import pandas as pd

AUTO = "auto"


@dataclass(frozen=True)
class HoldOut:
    """What is held out of training.

    Attributes:
        groups_share: of the groups of the other scopes, in [0, 1); rounded up to whole groups.
        scope: a whole product category; `auto` for one by chance; None for none.

    Raises:
        ValueError: when the share is none.
    """

    groups_share: float = 0.0
    scope: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.groups_share < 1.0:
            raise ValueError(f"--hold-out-groups {self.groups_share:g} is no share in [0, 1).")

    @property
    def is_any(self) -> bool:
        """Whether anything is held out."""
        return self.groups_share > 0.0 or self.scope is not None


@dataclass(frozen=True)
class ToldGroups:
    """Groups of a market that are told of on their own.

    Attributes:
        agreeing_scopes: categories where all segments like the same: one size fits all.
        unseen_groups: ids of groups held out of scopes that are trained on.
        unseen_scope: its groups' ids, when a whole category is held out.
        unseen_root: id of that category's root, None without.
    """

    agreeing_scopes: tuple[str, ...] = ()
    unseen_groups: tuple[str, ...] = ()
    unseen_scope: tuple[str, ...] = ()
    unseen_root: str | None = None

    @property
    def assignments(self) -> tuple[str, ...]:
        """What is held out of training, as `--set` takes it; nothing where nothing is."""
        held_out = sorted([*self.unseen_groups, *self.unseen_scope, *([self.unseen_root] if self.unseen_root else [])])
        return (f"data.held_out_groups={json.dumps(held_out)}",) if held_out else ()


def told_groups(hold_out: HoldOut, groups: pd.DataFrame, agreeing_scopes: tuple[str, ...], market: str) -> ToldGroups:
    """Returns the groups to hold out, the same whenever the groups are the same: their order is that of a hash.

    A scope is chosen from those with two groups or more, where there is something to get right. Of the others groups
    are held out as long as each scope keeps one, so that its other groups teach what its products look like.

    Args:
        hold_out: how much.
        groups: of the export: group_id, scope, is_scope_root.
        agreeing_scopes: of the market.
        market: its name, for errors.

    Raises:
        ValueError: when there is no such scope, or too few groups to hold out so many.
    """
    own = groups[~groups.is_scope_root]
    sizes = own.groupby("scope").group_id.nunique()
    scope = hold_out.scope
    if scope == AUTO:
        scope = next(iter(_shuffled(sizes.index[sizes > 1])), None)
    if hold_out.scope is not None and scope not in sizes.index:
        with_groups = f"categories of {market} with groups, two or more for auto: {', '.join(map(str, sizes.index))}"
        raise ValueError(f"--hold-out-scope {hold_out.scope}: there is no such category; {with_groups}.")
    rest = own[own.scope != scope]
    wanted = math.ceil(hold_out.groups_share * len(rest) - 1e-9)
    left = rest.groupby("scope").group_id.nunique().to_dict()
    chosen: list[str] = []
    scope_of = dict(zip(rest.group_id, rest.scope, strict=True))
    for group_id in _shuffled(rest.group_id):
        if len(chosen) < wanted and left[scope_of[group_id]] > 1:
            left[scope_of[group_id]] -= 1
            chosen.append(group_id)
    if len(chosen) < wanted or (hold_out.is_any and len(rest) - len(chosen) < 2):
        raise ValueError(
            f"{market}: of {len(rest)} groups {wanted} cannot be held out with one left in each category and two "
            "in all: lower --hold-out-groups."
        )
    whole = groups[groups.scope == scope]
    roots = whole.group_id[whole.is_scope_root]
    return ToldGroups(
        agreeing_scopes,
        tuple(sorted(chosen)),
        tuple(sorted(whole.group_id[~whole.is_scope_root])),
        str(roots.iloc[0]) if len(roots) else None,
    )


def _shuffled(names: pd.Series | pd.Index) -> list[str]:
    return sorted(map(str, names), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
