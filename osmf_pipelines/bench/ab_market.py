"""A simulated experiment: arms that show pictures, users put in arms by hash, clicks by the exact truth of the pixels.

What every arm earns is exact too, as a sum over users, products and pictures. Which groups and logged pictures there
are comes from `policy_market.py`; running it again and again belongs in `ab.py`, pictures of models in `ab_models.py`.

Shapes: `P` products, `V` users of the market, `G` most groups of a scope and its root, `S` most segments of a scope,
`C` scopes, `A` arms, `U` users of an experiment, `N` impressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osmf_models.evaluation.ab import ArmSums, sum_arm
from osmf_models.evaluation.ab_readout import ArmCounts, ExperimentCounts
from osmf_models.evaluation.off_policy import Array
from osmf_models.simulator.draws import Draws, Index
from osmf_models.simulator.market import Market
from osmf_models.simulator.truth import MAX_CLICK_RATE
from osmf_pipelines.bench.policy_market import Choices, Truth

CONTROL, PER_GROUP = "logged_best_for_all", "logged_best_per_group"
DAY = "2026-03-03"  # the market's second: pictures were chosen on the first
Case = tuple[str, str | None, str | None]  # arm, scope, group_id
_ACTIVITY_SPREAD = 1.0  # of the log of how many impressions a user is expected to have


@dataclass(frozen=True)
class Crowd:
    """Whom arms are shown to, and what of.

    Attributes:
        group_of_user: place of each user's group in each scope, 0 for none, (V, C).
        segment_of_user: place of each user's segment in each scope, (V, C).
        factors: of each user's click rates, (V,).
        examination: factor of each position.
        popularity: share of impressions by product, together 1, (P,).
        scope_of_product: place of each product's scope, (P,).
        scopes: their names, C.
        group_ids: of each scope, from place 1 on.
    """

    group_of_user: NDArray[np.int16]
    segment_of_user: NDArray[np.int16]
    factors: Array
    examination: Array
    popularity: Array
    scope_of_product: Index
    scopes: tuple[str, ...]
    group_ids: tuple[tuple[str, ...], ...]

    @property
    def max_groups(self) -> int:
        """G."""
        return 1 + max(len(ids) for ids in self.group_ids)


@dataclass(frozen=True)
class Arm:
    """What an arm shows to whom.

    Attributes:
        name: of the arm.
        rates: true click rates at position 1 of the picture of each product and group, by segment, (P, G, S).
        model_version: that drew it; empty for logged pictures.
    """

    name: str
    rates: Array
    model_version: str = ""


def crowd_of(
    truth: Truth,
    choices: Choices,
    market: Market,
    *,
    is_sold: NDArray[np.bool_] | None = None,
    group_ids: Mapping[str, list[str]] | None = None,
) -> Crowd:
    """Returns whom arms are shown to.

    Args:
        truth: of the market.
        choices: whose groups these are.
        market: of both.
        is_sold: products of the experiment, (P,), at least one; None for all.
        group_ids: by scope, in the order that numbers them from 1; None calls them by their number.
    """
    scopes = tuple(scope.name for scope in market.scopes)
    scope_of_product = np.array([scopes.index(product.scope) for product in market.products])
    first = [int(np.flatnonzero(scope_of_product == place)[0]) for place in range(len(scopes))]
    groups = choices.group_of_user[:, first]
    popularity = truth.popularity if is_sold is None else np.where(is_sold, truth.popularity, 0.0)
    if group_ids is None:
        group_ids = {name: [f"g{n}" for n in range(1, 1 + int(groups[:, i].max()))] for i, name in enumerate(scopes)}
    return Crowd(
        groups,
        truth.segment_of_user[:, first],
        truth.factors,
        truth.examination,
        popularity / popularity.sum(),
        scope_of_product,
        scopes,
        tuple(tuple(group_ids.get(name, ())) for name in scopes),
    )


def logged_arms(truth: Truth, choices: Choices) -> list[Arm]:
    """Returns the arms that need no model: the logged picture that is best for all, and the best in each group."""
    num_groups = choices.rates.shape[1]
    shown = {CONTROL: np.repeat(choices.best_for_all[:, None], num_groups, axis=1), PER_GROUP: choices.best_per_group}
    return [
        Arm(name, np.take_along_axis(truth.rates, policy[..., None], axis=1)) for name, policy in shown.items()
    ]  # (P, K, S) at (P, G): (P, G, S)


def exact_rates(crowd: Crowd, arm: Arm) -> dict[Case, float]:
    """Returns the clicks an impression that an arm earns, exactly: of everyone, and of each group."""
    num_users = len(crowd.factors)
    earned, shown = (np.zeros((len(crowd.scopes), crowd.max_groups)) for _ in range(2))
    for product in np.flatnonzero(crowd.popularity):
        scope = crowd.scope_of_product[product]
        group, share = crowd.group_of_user[:, scope], crowd.popularity[product] / num_users
        rate = np.minimum(arm.rates[product, group, crowd.segment_of_user[:, scope]] * crowd.factors, MAX_CLICK_RATE)
        earned[scope] += np.bincount(group, rate, crowd.max_groups) * share * crowd.examination.mean()
        shown[scope] += np.bincount(group, minlength=crowd.max_groups) * share
    found: dict[Case, float] = {(arm.name, None, None): float(earned.sum() / shown.sum())}
    for scope, ids in enumerate(crowd.group_ids):
        for place, group_id in enumerate(ids, start=1):
            if shown[scope, place]:
                found[arm.name, crowd.scopes[scope], group_id] = float(earned[scope, place] / shown[scope, place])
    return found


def assign_arms(num_users: int, shares: Mapping[str, float], key: int) -> Index:
    """Returns the place of each user's arm, (U,): a keyed hash of the user's number, whatever else happens."""
    cumulative = np.cumsum(list(shares.values())) / sum(shares.values())
    return Draws(key).choice("experiment", np.arange(num_users), cumulative)


def run_experiment(
    crowd: Crowd,
    arms: list[Arm],
    shares: Mapping[str, float],
    *,
    num_users: int,
    impressions: int,
    key: int,
    min_users: int,
) -> ExperimentCounts:
    """Returns what one experiment counts; the first arm is the control.

    Args:
        crowd: whom its users are drawn from, with their tastes.
        arms: A.
        shares: planned, by arm, together 1.
        num_users: U.
        impressions: of all users, on average.
        key: of the hash that assigns users, and of every draw.
        min_users: privacy floor of a group.
    """
    rng = np.random.default_rng((key, 1))
    drawn, arm = rng.integers(0, len(crowd.factors), num_users), assign_arms(num_users, shares, key)
    activity = np.exp(_ACTIVITY_SPREAD * rng.standard_normal(num_users) - _ACTIVITY_SPREAD**2 / 2)
    user = np.repeat(np.arange(num_users), rng.poisson(activity * impressions / num_users))
    product = np.searchsorted(np.cumsum(crowd.popularity)[:-1], rng.random(len(user)), side="right")
    position, who, scope = (
        rng.integers(0, len(crowd.examination), len(user)),
        drawn[user],
        crowd.scope_of_product[product],
    )
    rates = np.stack([one.rates for one in arms])  # (A, P, G, S)
    rate = rates[arm[user], product, crowd.group_of_user[who, scope], crowd.segment_of_user[who, scope]]
    rate = np.minimum(rate * crowd.factors[who], MAX_CLICK_RATE) * crowd.examination[position]
    is_clicked = rng.random(len(user)) < rate
    shape = (num_users, len(crowd.scopes))
    code = user * shape[1] + scope
    n, k = (
        np.bincount(code, weights, num_users * shape[1]).astype(np.int64).reshape(shape)
        for weights in (None, is_clicked)
    )
    counts = [*_everyone(arms, arm, n, k), *_by_group(crowd, arms, arm, drawn, n, k, min_users)]
    versions = {one.name: {one.model_version: int(n[arm == place].sum())} for place, one in enumerate(arms)}
    return ExperimentCounts(f"simulated-{key}", DAY, DAY, DAY, arms[0].name, dict(shares), tuple(counts), versions)


def _everyone(arms: list[Arm], arm: Index, n: Index, k: Index) -> list[ArmCounts]:
    return [
        ArmCounts(one.name, None, None, sum_arm(n[arm == place].sum(1), k[arm == place].sum(1)))
        for place, one in enumerate(arms)
    ]


def _by_group(
    crowd: Crowd, arms: list[Arm], arm: Index, drawn: Index, n: Index, k: Index, min_users: int
) -> list[ArmCounts]:
    """Sums of each arm in each group of at least `min_users` users, all at once."""
    user, scope = np.nonzero(n)
    group = crowd.group_of_user[drawn[user], scope]
    sizes = (len(arms), len(crowd.scopes), crowd.max_groups)
    code = np.ravel_multi_index((arm[user], scope, group), sizes)
    shown, clicked = n[user, scope], k[user, scope]
    terms = (np.ones_like(shown), shown, clicked, shown * shown, shown * clicked, clicked * clicked)
    sums = np.stack([np.bincount(code, term, int(np.prod(sizes))).astype(np.int64) for term in terms], axis=-1)
    sums = sums.reshape(*sizes, len(terms))
    return [
        ArmCounts(one.name, crowd.scopes[scope], group_id, ArmSums(*sums[place, scope, row].tolist()))
        for place, one in enumerate(arms)
        for scope, ids in enumerate(crowd.group_ids)
        for row, group_id in enumerate(ids, start=1)
        if sums[place, scope, row, 0] >= max(min_users, 1)
    ]
