"""How the simulated shop chooses which picture of a product to show: policies with known propensities.

Who clicks what is shown belongs in `truth.py`, the events in `events.py`.

Shapes: `P` products, `K` creatives of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from osmf_models.simulator.shapes import Array

_PRIOR_IMPRESSIONS, _PRIOR_CLICKS = 100.0, 3.0


@dataclass(frozen=True)
class Policy:
    """Which creative of a product is shown, with which probability.

    Attributes:
        kind: `uniform`; `epsilon_greedy`, on the click-through rates of the days before; or `fixed`.
        epsilon: share of impressions that `epsilon_greedy` shows at random.
        propensities: of the K creatives of each product, for `fixed`.

    Raises:
        ValueError: when these are no probabilities.
    """

    kind: Literal["uniform", "epsilon_greedy", "fixed"] = "uniform"
    epsilon: float = 0.2
    propensities: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("uniform", "epsilon_greedy", "fixed"):
            raise ValueError(f"no policy is called {self.kind!r}: there are uniform, epsilon_greedy and fixed.")
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


def choose_propensities(policy: Policy, num_impressions: Array, num_clicks: Array) -> Array:
    """Returns the probability of each creative of each product on one day, (P, K), rows summing to 1.

    Args:
        policy: of the shop.
        num_impressions: of each creative on the days before, (P, K).
        num_clicks: on them, (P, K).

    Raises:
        ValueError: when `fixed` propensities are not one for each creative.
    """
    num_products, num_creatives = num_impressions.shape
    if policy.kind == "fixed":
        if len(policy.propensities) != num_creatives:
            raise ValueError(f"{len(policy.propensities)} propensities for {num_creatives} creatives of each product.")
        return np.tile(policy.propensities, (num_products, 1))
    spread = np.full((num_products, num_creatives), 1.0 / num_creatives)
    if policy.kind == "uniform" or num_impressions.sum() == 0:
        return spread
    rates = (num_clicks + _PRIOR_CLICKS) / (num_impressions + _PRIOR_IMPRESSIONS)
    is_best = np.arange(num_creatives) == rates.argmax(1)[:, None]
    return policy.epsilon * spread + (1 - policy.epsilon) * is_best
