"""Do the intervals of IPS, SNIPS and DR hold the truth? Logs drawn again and again from a market whose truth is exact.

Policies are chosen as a refresh chooses them, by simulated logs of one day; each replication draws users of the market
anew, what they are shown and what they click, and estimates. The market is in `policy_market.py`, what is made of the
estimates in `off_policy_report.py`.

Shapes: `P` products, `G` most groups of a scope and its root.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from osmf_models.evaluation.off_policy import (
    ESTIMATORS,
    Array,
    PolicySums,
    Ratio,
    draw_users,
    effective_clicks,
    effective_impressions,
    on_policy,
    studentized_interval,
    sum_by_user,
)
from osmf_models.simulator.draws import Index
from osmf_pipelines.bench.policy_market import Choices, Logs, Truth, draw_logs
from osmf_pipelines.spark.policies import BEST_FOR_ALL, BEST_PER_GROUP, LOGGING

OTHER_LOGS, SAME_LOGS = "other logs", "same logs"
_NUM_BOOTSTRAPS = 500


def sum_policy(logs: Logs, choices: Choices, policy: Index, num_users: int) -> PolicySums:
    """Returns the sums per user of a policy, (P, G) numbers of creatives."""
    chosen, effect = policy[logs.product, logs.group], choices.examination[logs.position]
    weights = (chosen == logs.creative) / logs.propensity
    expected = choices.rates[logs.product, logs.group, chosen] * effect
    return sum_by_user(logs.user, logs.is_clicked, weights, expected, expected, num_users=num_users)


def replicate(
    truth: Truth,
    choices: Choices,
    *,
    num_users: int,
    impressions: int,
    num_replications: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Returns one row per replication, policy, comparison and estimator: estimate, interval and the exact value.

    Args:
        truth: of the market.
        choices: the policies.
        num_users: drawn in a replication.
        impressions: of a replication, on average.
        num_replications: R.
        seed: of the draws.
        progress: called after each replication.
    """
    num_groups = choices.rates.shape[1]
    for_all = np.repeat(choices.best_for_all[:, None], num_groups, axis=1)
    rows: list[dict[str, object]] = []
    for number in range(num_replications):
        rng = np.random.default_rng((seed, number))
        logs = draw_logs(truth, choices, num_users, impressions, rng)
        counts = draw_users(num_users, _NUM_BOOTSTRAPS, int(rng.integers(2**31)))
        policies = {BEST_FOR_ALL: for_all, BEST_PER_GROUP: choices.best_per_group}
        rows += _judge(logs, truth, choices, policies, counts, OTHER_LOGS)
        own = _choose_on(logs, choices)
        rows += _judge(logs, truth, choices, {BEST_PER_GROUP: own}, counts, SAME_LOGS)
        progress()
    return pd.DataFrame(rows)


def _choose_on(logs: Logs, choices: Choices) -> Index:
    """The creative of the best click rate in each group, by these very logs: what must not be done."""
    shape = choices.rates.shape
    code = np.ravel_multi_index((logs.product, logs.group, logs.creative), shape)
    shown, clicked = (np.bincount(code, values, np.prod(shape)) for values in (None, logs.is_clicked))
    return (clicked / np.maximum(shown, 1)).reshape(shape).argmax(axis=2)


def _judge(
    logs: Logs, truth: Truth, choices: Choices, policies: dict[str, Index], counts: Array, chosen_on: str
) -> list[dict[str, object]]:
    """Rows of one replication; differences are of policies on the same logs."""
    num_users = counts.shape[1]
    sums = {name: sum_policy(logs, choices, policy, num_users) for name, policy in policies.items()}
    true = {name: truth.value(policy) for name, policy in policies.items()}
    some = next(iter(policies))
    true[LOGGING] = truth.logging_value(choices.propensities)
    logged = on_policy(sums[some])
    rows: list[dict[str, object]] = []
    if chosen_on == OTHER_LOGS:
        clicks = {"effective_clicks": float(logs.is_clicked.sum()), "effective_impressions": float(len(logs.user))}
        rows.append(_row(counts, LOGGING, None, "on_policy", true[LOGGING], logged) | clicks)
    for policy, one in sums.items():
        size = {"effective_clicks": effective_clicks(one), "effective_impressions": effective_impressions(one)}
        for name, estimator in ESTIMATORS.items():
            found = estimator(one)
            rows.append(_row(counts, policy, None, name, true[policy], found) | size)
            others = {LOGGING: logged}
            if policy == BEST_PER_GROUP and BEST_FOR_ALL in sums:
                others[BEST_FOR_ALL] = estimator(sums[BEST_FOR_ALL])
            for other, theirs in others.items():
                rows.append(_row(counts, policy, other, name, true[policy] - true[other], found, theirs) | size)
    return [row | {"chosen_on": chosen_on} for row in rows]


def _row(
    counts: Array,
    policy: str,
    compared_with: str | None,
    estimator: str,
    true: float,
    found: Ratio,
    other: Ratio | None = None,
) -> dict[str, object]:
    low, high = studentized_interval(found, counts, other)
    value = found.value if other is None else found.value - other.value
    what = {"policy": policy, "compared_with": compared_with, "estimator": estimator}
    return {**what, "true_value": true, "value": value, "value_low": low, "value_high": high}
