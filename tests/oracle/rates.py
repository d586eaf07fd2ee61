"""Place and day effects, and the Gamma posterior of each creative's click rate in each group, by dictionaries.

Written from the documented method (effects by alternating maximum likelihood with one pseudo-click; priors that use no
click twice, with trends along how much a creative is shown; variances by moments), not from the pipeline's code.
Letters: `n` effective impressions, `k` clicks of (group, creative). Pairs: a prior or posterior is told by its mean and
squared coefficient of variation, or by shape and rate; a line by its constant and slope.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from tests.oracle.exposures import round_half_up

Pair = tuple[float, float]
ROOT = None  # the pseudo-group of everyone in a scope
_FIRST_VARIANCE = 0.05
_NUM_MOMENT_STEPS = 16
_NUM_GROUP_STEPS = 6
_NUM_TREND_STEPS = 3
_NUM_NEWTON_STEPS = 6
_LARGEST_NEWTON_STEP = 1.0
_TREND_PRECISION = 100.0
_PRIOR_IMPRESSIONS = 30
_VARIANCE_PRECISION = 400.0
_LARGEST_VARIANCE = 1.0


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


@dataclass(frozen=True)
class Arm:
    """A creative in a row of counts (a group, or everyone), and what is known of its rate without its own clicks.

    Attributes:
        n: effective impressions.
        k: clicks.
        mean: of the rate.
        own_variance: squared variation of the rate that is no part of the fitted variance.
        factor: how often the fitted variance enters.
        x: log of how much more it was shown than what it is compared with.
    """

    n: float
    k: int
    mean: float
    own_variance: float
    factor: float
    x: float

    def expect(self, slopes: Pair) -> float:
        """Returns the expected clicks under a trend of the log mean."""
        return self.n * self.mean * math.exp(_line(slopes, self.x))


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


def posteriors(counts: Counts) -> dict[tuple, Pair]:
    """Returns (shape, rate) of each (group, creative), the root's group being `ROOT`."""
    n, k = _pool(counts, counts.groups)
    prior = _product_priors(counts, {ROOT: counts.groups}, 0.0)
    of_root = {creative: _update(prior[ROOT, creative], n[creative], k[creative]) for creative in n}
    found = {(ROOT, creative): posterior for creative, posterior in of_root.items()}
    if len(counts.groups) == 1:
        return found | {(counts.groups[0], creative): posterior for creative, posterior in of_root.items()}
    for key, prior_of_both in _group_priors(counts).items():
        found[key] = _update(prior_of_both, counts.n[key], counts.k[key])
    return found


def _group_priors(counts: Counts) -> dict[tuple, Pair]:
    """Mean and squared variation of each rate in a group, from other groups and from what the group is shown more."""
    group_variance = _FIRST_VARIANCE
    for _ in range(_NUM_GROUP_STEPS):
        told = _priors_from_others(counts, group_variance)
        trends = fit_trends(_arms_of_groups(counts, told), counts.fitted)
        group_variance = sum(variance for _, variance, _ in trends.values()) / len(trends)
    return {
        key: (mean * trends[key][0], trends[key][1] + trends[key][2] + squared_cv)
        for key, (mean, squared_cv) in told.items()
    }


def _arms_of_groups(counts: Counts, told: dict[tuple, Pair]) -> dict[tuple, Arm]:
    """Each (group, creative) under what others tell; its share of its product is compared with that in the others."""
    arms = {}
    for group in counts.groups:
        here = {creative: counts.n[group, creative] for creative in counts.product_of}
        elsewhere, _ = _pool(counts, [name for name in counts.groups if name != group])
        for creative in counts.product_of:
            x = _log_share(counts, here, creative) - _log_share(counts, elsewhere, creative)
            key = (group, creative)
            arms[key] = Arm(counts.n[key], counts.k[key], *told[key], 1.0, x)
    return arms


def _log_share(counts: Counts, n: dict[str, float], creative: str) -> float:
    """Log of the creative's share of its product's impressions, a little added to both."""
    of_product = sum(n[name] for name in n if counts.product_of[name] == counts.product_of[creative])
    return math.log((n[creative] + _PRIOR_IMPRESSIONS) / (of_product + _PRIOR_IMPRESSIONS))


def _priors_from_others(counts: Counts, group_variance: float) -> dict[tuple, Pair]:
    """Mean and squared variation of each rate in a group, as the other groups tell it, at this group's activity."""
    others = {group: [name for name in counts.groups if name != group] for group in counts.groups}
    prior = _product_priors(counts, others, group_variance)
    told = {}
    for group in counts.groups:
        of_others = {}
        n, k = _pool(counts, others[group])
        for creative in n:
            mean, squared_cv = prior[group, creative]
            squares = sum(counts.n[name, creative] ** 2 for name in others[group])
            concentration = squares / n[creative] if n[creative] else 0.0
            discount = 1 / (1 + group_variance * mean * concentration)
            of_others[creative] = _update((mean, squared_cv), discount * n[creative], discount * k[creative])
        num_clicks = sum(counts.k[group, creative] for creative in n)
        num_expected = sum(counts.n[group, creative] * shape / rate for creative, (shape, rate) in of_others.items())
        activity = (num_clicks + 1) / (num_expected + 1)
        for creative, (shape, rate) in of_others.items():
            told[group, creative] = (shape / rate * activity, 1 / shape)
    return told


def _product_priors(counts: Counts, pooled: dict[str | None, list[str]], group_variance: float) -> dict[tuple, Pair]:
    """Mean and squared variation of each rate in the pool of each row's groups, as the rest of its product tells it.

    Args:
        counts: of the scope.
        pooled: the groups behind each row; the trends are those of all rows together.
        group_variance: of a creative's rate between groups, as far as it is not averaged out in a row.
    """
    arms, own_variances = {}, {}
    for row, groups in pooled.items():
        n, k = _pool(counts, groups)
        for creative, (mean, own_variance, factor) in _rate_of_the_rest(counts, n, k).items():
            squares = sum(counts.n[group, creative] ** 2 for group in groups)
            not_averaged_out = group_variance * squares / n[creative] ** 2 if n[creative] else 0.0
            x = _log_over_the_rest(counts, n, creative)
            key = (row, creative)
            arms[key] = Arm(n[creative], k[creative], mean, own_variance + not_averaged_out, factor, x)
            own_variances[key] = own_variance
    return {
        key: (arms[key].mean * factor, variance * arms[key].factor + error + own_variances[key])
        for key, (factor, variance, error) in fit_trends(arms, counts.fitted).items()
    }


def _log_over_the_rest(counts: Counts, n: dict[str, float], creative: str) -> float:
    """Log of the creative's impressions over the average of its product's others, a little added to both."""
    rest = _rest_of_product(counts, creative)
    average = sum(n[name] for name in rest) / len(rest) if rest else 0.0
    return math.log((n[creative] + _PRIOR_IMPRESSIONS) / (average + _PRIOR_IMPRESSIONS))


def _rate_of_the_rest(counts: Counts, n: dict, k: dict) -> dict[str, tuple[float, float, float]]:
    """Per creative: the rate of its product's other creatives, one pseudo-click at the overall rate added; the squared
    variation of that from counting; how often the between-creative variance enters when it predicts the creative."""
    overall = (sum(k.values()) + 0.5) / (sum(n.values()) + 1)
    told = {}
    for creative in n:
        rest = _rest_of_product(counts, creative)
        rest_n, rest_k = sum(n[c] for c in rest), sum(k[c] for c in rest)
        concentration = sum(n[c] ** 2 for c in rest) / rest_n**2 if rest_n else 0.0
        told[creative] = ((rest_k + 1) / (rest_n + 1 / overall), 1 / (rest_k + 1), 1 + min(concentration, 1.0))
    return told


def _rest_of_product(counts: Counts, creative: str) -> list[str]:
    product_of = counts.product_of
    return [name for name in product_of if name != creative and product_of[name] == product_of[creative]]


def fit_trends(arms: dict[tuple, Arm], fitted: set[str]) -> dict[tuple, tuple[float, float, float]]:
    """Returns what each (row, creative)'s mean is to be multiplied by, the variance of its rate around that, and the
    squared error of the factor.

    All follow `x`: log mean and variance are lines, fitted in turn. Beyond the fitted arms (or 0, where what is shown
    alike stands) the lines stay level.

    Args:
        arms: all arms, by (row, creative).
        fitted: creatives to learn from.
    """
    learnt_from = [arm for (_, creative), arm in arms.items() if creative in fitted]
    slopes, variance_line = (0.0, 0.0), (_FIRST_VARIANCE, 0.0)
    for _ in range(_NUM_TREND_STEPS):
        slopes, information = _fit_mean_trend(learnt_from, variance_line, slopes)
        variance_line = _fit_variance_trend(learnt_from, slopes)
    lowest, highest = (pick([0.0, *(arm.x for arm in learnt_from)]) for pick in (min, max))
    at = {key: min(max(arm.x, lowest), highest) for key, arm in arms.items()}
    return {
        key: (math.exp(_line(slopes, x)), _variance(variance_line, x), _line(_solve_symmetric(information, [1, x]), x))
        for key, x in at.items()
    }


def _fit_mean_trend(arms: list[Arm], variance_line: Pair, slopes: Pair) -> tuple[Pair, list[float]]:
    """The log mean's line by negative binomial likelihood with a Normal prior, from `slopes` on by Newton's method.

    And the information of the last step.
    """
    for _ in range(_NUM_NEWTON_STEPS):
        information = [_TREND_PRECISION, 0.0, _TREND_PRECISION]
        gradient = [-_TREND_PRECISION * slope for slope in slopes]
        for arm in arms:
            expected = arm.expect(slopes)
            squared_cv = _variance(variance_line, arm.x) * arm.factor + arm.own_variance
            weight = 1 / (1 + expected * squared_cv)
            for power in (0, 1, 2):
                information[power] += weight**2 * expected * (1 + arm.k * squared_cv) * arm.x**power
            for power in (0, 1):
                gradient[power] += weight * (arm.k - expected) * arm.x**power
        step = _solve_symmetric(information, gradient)
        slopes = tuple(
            slope + max(-_LARGEST_NEWTON_STEP, min(change, _LARGEST_NEWTON_STEP))
            for slope, change in zip(slopes, step, strict=True)
        )
    return slopes, information


def _fit_variance_trend(arms: list[Arm], slopes: Pair) -> Pair:
    """The line c with E[(k - e)^2] = e + e^2 (c(x) f + v), by inverse variances, in which c(x) is within 0 and 1.

    With a Normal prior, by half steps.
    """
    line = (_FIRST_VARIANCE, 0.0)
    for _ in range(_NUM_MOMENT_STEPS):
        normal = [_VARIANCE_PRECISION, 0.0, _VARIANCE_PRECISION]
        moments = [_VARIANCE_PRECISION * _FIRST_VARIANCE, 0.0]
        for arm in arms:
            e, f, v = arm.expect(slopes), arm.factor, arm.own_variance
            spread = e + e**2 * (f * _variance(line, arm.x) + v)
            if spread > 0:
                for power in (0, 1, 2):
                    normal[power] += (e**2 * f / spread) ** 2 * arm.x**power
                for power in (0, 1):
                    moments[power] += e**2 * f * ((arm.k - e) ** 2 - e - e**2 * v) / spread**2 * arm.x**power
        solved = _solve_symmetric(normal, moments)
        line = ((line[0] + solved[0]) / 2, (line[1] + solved[1]) / 2)
    return line


def _line(line: Pair, x: float) -> float:
    return line[0] + line[1] * x


def _variance(line: Pair, x: float) -> float:
    return min(max(_line(line, x), 0.0), _LARGEST_VARIANCE)


def _solve_symmetric(matrix: list[float], vector: list[float]) -> Pair:
    """The y with [[a, b], [b, d]] y = vector, the matrix being (a, b, d), by Cramer's rule."""
    a, b, d = matrix
    determinant = a * d - b * b
    return (d * vector[0] - b * vector[1]) / determinant, (a * vector[1] - b * vector[0]) / determinant


def _pool(counts: Counts, groups: list[str]) -> tuple[dict[str, float], dict[str, int]]:
    n = {creative: sum(counts.n[group, creative] for group in groups) for creative in counts.product_of}
    k = {creative: sum(counts.k[group, creative] for group in groups) for creative in counts.product_of}
    return n, k


def _update(prior: Pair, n: float, k: float) -> Pair:
    """Shape and rate after `k` clicks in `n` impressions; the prior by mean and squared coefficient of variation."""
    mean, squared_cv = prior
    return 1 / squared_cv + k, 1 / (squared_cv * mean) + n
