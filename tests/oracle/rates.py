"""Place and day effects, and the Gamma posterior of each creative's click rate in each group, by dictionaries.

Written from the documented method (effects by alternating maximum likelihood with one pseudo-click; priors that use no
click twice; variances by moments), not from the pipeline's code. Letters: `n` effective impressions, `k` clicks of
(group, creative); a prior or posterior is told by its mean and squared coefficient of variation, or by shape and rate.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from tests.oracle.exposures import round_half_up

ROOT = None  # the pseudo-group of everyone in a scope
_FIRST_VARIANCE = 0.05
_NUM_MOMENT_STEPS = 10
_NUM_GROUP_STEPS = 6


@dataclass(frozen=True)
class Effects:
    """What multiplies the click rate: per (slot_type, position), and per day."""

    of_place: dict[tuple, float]
    of_day: dict


@dataclass(frozen=True)
class Counts:
    """The counts of one scope: `n` and `k` of (group, creative), 0 where a creative was not shown."""

    n: dict[tuple, float]
    k: dict[tuple, int]
    groups: list[str]
    product_of: dict[str, str]
    fitted: set[str]


def fit_effects(stats: list[dict], *, tolerance: float = 1e-11) -> Effects:
    """Returns the fixed point: clicks ~ Poisson(impressions * creative * place * day), one pseudo-click at factor 1.

    Places are relative to the lowest position of the most shown slot type; days have mean 1 over impressions.
    """
    shown_in_slot: dict = defaultdict(int)
    cells: dict = defaultdict(lambda: [0, 0])
    for row in stats:
        shown_in_slot[row["slot_type"]] += row["num_impressions"]
        key = (row["creative_id"], (row["slot_type"], row["position"]), row["event_date"])
        cells[key][0] += row["num_impressions"]
        cells[key][1] += row["num_clicks"]
    most_shown = min(shown_in_slot, key=lambda slot_type: (-shown_in_slot[slot_type], slot_type))
    reference = min(place for _, place, _ in cells if place[0] == most_shown)
    of_creative = {creative: 1.0 for creative, _, _ in cells}
    of_place, of_day = {place: 1.0 for _, place, _ in cells}, {day: 1.0 for _, _, day in cells}
    num_shown = sum(shown for shown, _ in cells.values())

    def refit(part: int, pseudo_clicks: int) -> dict:
        clicked, expected = defaultdict(lambda: pseudo_clicks), defaultdict(lambda: float(pseudo_clicks))
        for key, (shown, clicks) in cells.items():
            factors = [of_creative[key[0]], of_place[key[1]], of_day[key[2]]]
            factors[part] = 1.0
            clicked[key[part]] += clicks
            expected[key[part]] += shown * math.prod(factors)
        return {name: clicked[name] / total if total else 0.0 for name, total in expected.items()}

    change = math.inf
    while change > tolerance:
        before = {**of_place, **of_day}
        of_creative = refit(0, 0)
        of_place = refit(1, 1)
        of_place = {place: effect / of_place[reference] for place, effect in of_place.items()}
        of_creative = refit(0, 0)
        of_day = refit(2, 1)
        mean = sum(shown * of_day[day] for (_, _, day), (shown, _) in cells.items()) / num_shown
        of_day = {day: effect / mean for day, effect in of_day.items()}
        change = max(abs(math.log(effect / before[name])) for name, effect in {**of_place, **of_day}.items())
    return Effects(of_place, of_day)


def count_scopes(
    stats: list[dict],
    group_of_cell: dict[tuple[str, str], str],
    split_of_product: dict[str, str],
    effects: Effects,
    fitted_splits: tuple[str, ...],
) -> tuple[dict[str, Counts], dict[tuple, tuple[int, int, float]]]:
    """Returns the counts of each scope, and (impressions, clicks, effective impressions) of what each group was shown.

    Cells without a group are left out, of the root too. Effective impressions are summed in whole thousandths.
    """
    sums: dict = defaultdict(lambda: [0, 0, 0])
    product_of: dict[str, dict[str, str]] = defaultdict(dict)
    for row in stats:
        group = group_of_cell.get((row["scope"], row["cell"]))
        if group is None:
            continue
        product_of[row["scope"]][row["creative_id"]] = row["product_id"]
        effect = effects.of_place[row["slot_type"], row["position"]] * effects.of_day[row["event_date"]]
        amounts = (row["num_impressions"], row["num_clicks"], round_half_up(row["num_impressions"] * effect * 1000))
        for name in (group, ROOT):
            total = sums[row["scope"], name, row["creative_id"]]
            total[:] = [a + b for a, b in zip(total, amounts, strict=True)]
    shown = {key: (impressions, clicks, millis / 1000) for key, (impressions, clicks, millis) in sums.items()}
    scopes = {}
    for scope, products in product_of.items():
        groups = sorted({name for of_scope, name, _ in shown if of_scope == scope and name is not ROOT})
        cells = {
            (group, creative): shown.get((scope, group, creative), (0, 0, 0.0))
            for group in groups
            for creative in products
        }
        fitted = {creative for creative, product in products.items() if split_of_product.get(product) in fitted_splits}
        n, k = ({key: cell[index] for key, cell in cells.items()} for index in (2, 1))
        scopes[scope] = Counts(n, k, groups, products, fitted)
    return scopes, shown


def posteriors(counts: Counts) -> dict[tuple, tuple[float, float]]:
    """Returns (shape, rate) of each (group, creative), the root's group being `ROOT`."""
    n, k = _pool(counts, counts.groups)
    prior = _product_prior(counts, n, k, _between_creative_variance(counts, 0.0))
    of_root = {creative: _update(prior[creative], n[creative], k[creative]) for creative in n}
    found = {(ROOT, creative): posterior for creative, posterior in of_root.items()}
    if len(counts.groups) == 1:
        return found | {(counts.groups[0], creative): posterior for creative, posterior in of_root.items()}
    group_variance = _FIRST_VARIANCE
    for _ in range(_NUM_GROUP_STEPS):
        said_by_others = {group: _prior_from_others(counts, group, group_variance) for group in counts.groups}
        group_variance = _excess_variance(
            [
                (counts.k[group, creative], counts.n[group, creative] * mean, squared_cv, 1.0)
                for group, of_creative in said_by_others.items()
                for creative, (mean, squared_cv) in of_creative.items()
                if creative in counts.fitted
            ]
        )
    for group, of_creative in said_by_others.items():
        for creative, (mean, squared_cv) in of_creative.items():
            prior_of_both = (mean, group_variance + squared_cv)
            found[group, creative] = _update(prior_of_both, counts.n[group, creative], counts.k[group, creative])
    return found


def _prior_from_others(counts: Counts, group: str, group_variance: float) -> dict[str, tuple[float, float]]:
    """Mean and squared variation of each creative's rate, as the other groups tell it, at this group's activity."""
    others = [name for name in counts.groups if name != group]
    n, k = _pool(counts, others)
    prior = _product_prior(counts, n, k, _between_creative_variance(counts, group_variance))
    told = {}
    for creative, (mean, squared_cv) in prior.items():
        squares = sum(counts.n[name, creative] ** 2 for name in others)
        concentration = squares / n[creative] if n[creative] else 0.0
        discount = 1 / (1 + group_variance * mean * concentration)
        told[creative] = _update((mean, squared_cv), discount * n[creative], discount * k[creative])
    num_clicks = sum(counts.k[group, creative] for creative in told)
    num_expected = sum(counts.n[group, creative] * shape / rate for creative, (shape, rate) in told.items())
    activity = (num_clicks + 1) / (num_expected + 1)
    return {creative: (shape / rate * activity, 1 / shape) for creative, (shape, rate) in told.items()}


def _product_prior(counts: Counts, n: dict, k: dict, creative_variance: float) -> dict[str, tuple[float, float]]:
    return {
        creative: (mean, creative_variance * factor + own_variance)
        for creative, (mean, own_variance, factor) in _rate_of_the_rest(counts, n, k).items()
    }


def _rate_of_the_rest(counts: Counts, n: dict, k: dict) -> dict[str, tuple[float, float, float]]:
    """Per creative: the rate of its product's other creatives, one pseudo-click at the overall rate added; the squared
    variation of that from counting; how often the between-creative variance enters when it predicts the creative."""
    overall = (sum(k.values()) + 0.5) / (sum(n.values()) + 1)
    told = {}
    for creative in n:
        rest = [c for c in n if c != creative and counts.product_of[c] == counts.product_of[creative]]
        rest_n, rest_k = sum(n[c] for c in rest), sum(k[c] for c in rest)
        concentration = sum(n[c] ** 2 for c in rest) / rest_n**2 if rest_n else 0.0
        told[creative] = ((rest_k + 1) / (rest_n + 1 / overall), 1 / (rest_k + 1), 1 + min(concentration, 1.0))
    return told


def _between_creative_variance(counts: Counts, group_variance: float) -> float:
    n, k = _pool(counts, counts.groups)
    observed = []
    for creative, (mean, own_variance, factor) in _rate_of_the_rest(counts, n, k).items():
        if creative in counts.fitted:
            squares = sum(counts.n[group, creative] ** 2 for group in counts.groups)
            not_averaged_out = group_variance * squares / n[creative] ** 2 if n[creative] else 0.0
            observed.append((k[creative], n[creative] * mean, own_variance + not_averaged_out, factor))
    return _excess_variance(observed)


def _excess_variance(observed: list[tuple[int, float, float, float]]) -> float:
    """s^2 >= 0 with E[(k - m)^2] = m + m^2 (s^2 f + v), from rows (k, m, v, f), weighted by the inverse variance."""
    variance = _FIRST_VARIANCE
    for _ in range(_NUM_MOMENT_STEPS):
        numerator = denominator = 0.0
        for k, m, v, f in observed:
            spread = m + m**2 * (variance * f + v)
            if spread > 0:
                numerator += m**2 * f * ((k - m) ** 2 - m - m**2 * v) / spread**2
                denominator += (m**2 * f) ** 2 / spread**2
        variance = max(numerator / denominator, 0.0) if denominator else 0.0
    return variance


def _pool(counts: Counts, groups: list[str]) -> tuple[dict[str, float], dict[str, int]]:
    n = {creative: sum(counts.n[group, creative] for group in groups) for creative in counts.product_of}
    k = {creative: sum(counts.k[group, creative] for group in groups) for creative in counts.product_of}
    return n, k


def _update(prior: tuple[float, float], n: float, k: float) -> tuple[float, float]:
    """Shape and rate after `k` clicks in `n` impressions; the prior by mean and squared coefficient of variation."""
    mean, squared_cv = prior
    return 1 / squared_cv + k, 1 / (squared_cv * mean) + n
