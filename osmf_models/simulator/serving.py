"""How the simulated shop chooses which picture of a product to show: policies with known propensities.

Who clicks what is shown belongs in `truth.py`, the events in `events.py`.

Shapes: `P` products, `K` creatives of each, `C` = P · K creatives, `S` most segments of a scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.shapes import Array

PolicyKind = Literal["uniform", "epsilon_greedy", "taste", "fixed"]
_PRIOR_IMPRESSIONS, _PRIOR_CLICKS = 100.0, 3.0


@dataclass(frozen=True)
class Policy:
    """Which creative of a product is shown, with which probability, and where.

    Attributes:
        kind: `uniform`; `epsilon_greedy`, on the click-through rates of the days before; `taste`, greedy on what the
            user's segment really likes best; or `fixed`.
        epsilon: share of impressions that the greedy ones show at random.
        propensities: of the K creatives of each product, for `fixed`.
        position_bias: share of impressions at which a product's better creatives stand higher; the others stand
            anywhere.

    Raises:
        ValueError: when these are no probabilities.
    """

    kind: PolicyKind = "uniform"
    epsilon: float = 0.2
    propensities: tuple[float, ...] = ()
    position_bias: float = 0.0

    def __post_init__(self) -> None:
        kinds = get_args(PolicyKind)
        if self.kind not in kinds:
            raise ValueError(f"no policy is called {self.kind!r}: there are {', '.join(kinds)}.")
        if not 0 <= self.position_bias <= 1:
            raise ValueError(f"position_bias is {self.position_bias}: it is a share of impressions, in [0, 1].")
        if not 0 < self.epsilon <= 1:
            raise ValueError(f"epsilon is {self.epsilon}: it must lie in (0, 1], so that every creative can be shown.")
        if self.kind != "fixed" and self.propensities:
            raise ValueError(f"the policy {self.kind} takes no propensities: choose fixed, or leave them out.")
        if self.kind == "fixed" and not (abs(sum(self.propensities) - 1) <= 1e-6 and min(self.propensities) > 0):
            raise ValueError(
                f"the propensities {self.propensities} add up to {sum(self.propensities):g}: "
                "they must be positive and add up to 1."
            )


UNIFORM = Policy()


@dataclass(frozen=True)
class Serving:
    """How one day's impressions are served.

    Attributes:
        propensities: of each creative of each product for a user of each segment, (P, S, K), or for everyone,
            (P, 1, K); they sum to 1 over K.
        positions: where each creative stands when better ones stand higher, from 1, (C,).
        position_bias: share of impressions at which they do.
    """

    propensities: Array
    positions: NDArray[np.int64]
    position_bias: float


def serve_day(policy: Policy, rates: Array, num_positions: int, num_impressions: Array, num_clicks: Array) -> Serving:
    """Returns how one day's impressions are served.

    Args:
        policy: of the shop.
        rates: true click rate of each creative in each segment of its scope, else 0, (C, S).
        num_positions: there are.
        num_impressions: of each creative on the days before, (P, K).
        num_clicks: on them, (P, K).

    Raises:
        ValueError: when `fixed` propensities are not one for each creative.
    """
    num_products, num_creatives = num_impressions.shape
    by_product = rates.reshape(num_products, num_creatives, -1)
    if policy.kind == "taste":
        propensities = _greedy(policy.epsilon, by_product.transpose(0, 2, 1))
    else:
        propensities = _propensities_for_everyone(policy, num_impressions, num_clicks)[:, None]
    ranks = (-by_product.sum(axis=2)).argsort(axis=1, kind="stable").argsort(axis=1)
    positions = 1 + ranks * num_positions // num_creatives
    return Serving(propensities, positions.reshape(-1), policy.position_bias)


def _propensities_for_everyone(policy: Policy, num_impressions: Array, num_clicks: Array) -> Array:
    """Returns the probability of each creative of each product, (P, K)."""
    num_products, num_creatives = num_impressions.shape
    if policy.kind == "fixed":
        if len(policy.propensities) != num_creatives:
            raise ValueError(f"{len(policy.propensities)} propensities for {num_creatives} creatives of each product.")
        return np.tile(policy.propensities, (num_products, 1))
    if policy.kind == "uniform" or num_impressions.sum() == 0:
        return np.full((num_products, num_creatives), 1.0 / num_creatives)
    return _greedy(policy.epsilon, (num_clicks + _PRIOR_CLICKS) / (num_impressions + _PRIOR_IMPRESSIONS))


def _greedy(epsilon: float, rates: Array) -> Array:
    """Returns the best along the last axis with probability 1 - epsilon, else any, in the shape of `rates`."""
    num_creatives = rates.shape[-1]
    is_best = np.arange(num_creatives) == rates.argmax(-1)[..., None]
    return epsilon / num_creatives + (1 - epsilon) * is_best
