"""The Poisson model behind a group's taste: its likelihood, its fit, and the test whether two sides differ (numpy).

Clicks of a creative are Poisson with mean n * level(product) * exp(features . preference). The level of each product is
free on every side, so that who clicks more, or saw other products, says nothing about taste; profiling it out leaves,
within each product, a multinomial over its creatives. Growing a tree with this test belongs in `preference_tree`.

Shapes: `S` sides, `C` creatives sorted by product, `P` products, `d` features.

Source: this project's own design (5.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_PRIOR_PRECISION = 0.01  # preferences are within about 10 per standard deviation of a feature: keeps every fit finite
_NUM_NEWTON_STEPS = 8
_MAX_STEP = 2.0
_MAX_LOG_RATE = 50.0
_RANK_TOLERANCE = 1e-8


@dataclass(frozen=True)
class CreativeDesign:
    """The creatives of one scope as the model sees them.

    Attributes:
        features: centred within each product, in units of `scale`, (C, d).
        scale: standard deviation of each feature within products, 1 where it is constant, (d,).
        product_of: index of each creative's product, ascending, (C,).
        product_starts: index of each product's first creative, (P,).
    """

    features: Array
    scale: Array
    product_of: Indices
    product_starts: Indices


@dataclass(frozen=True)
class PreferenceFit:
    """Preference vectors of S sides.

    Attributes:
        preference: per standard deviation of each feature, (S, d).
        information: observed information of the counts alone, (S, d, d).
    """

    preference: Array
    information: Array

    @property
    def standard_errors(self) -> Array:
        """Standard deviations under the weak prior: finite where the counts say nothing of a feature, (S, d)."""
        covariance = np.linalg.inv(self.information + _PRIOR_PRECISION * np.eye(self.preference.shape[-1]))
        return np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))


def design_creatives(product_of: Indices, features: Array) -> CreativeDesign:
    """Returns the design of a scope's creatives.

    Args:
        product_of: index of each creative's product, ascending from 0 without gaps, (C,).
        features: raw features, (C, d). A NaN counts as the mean of its product; a feature that is constant within
            every product says nothing and becomes 0.

    Raises:
        ValueError: when `product_of` is not ascending or the shapes disagree.
    """
    if len(product_of) != len(features) or np.any(np.diff(product_of) < 0):
        raise ValueError("creatives must be sorted by product, with one row of features each.")
    starts = np.flatnonzero(np.diff(product_of, prepend=-1))
    is_known = np.isfinite(features)
    known = np.where(is_known, features, 0.0)
    sums, counts = np.add.reduceat(known, starts), np.add.reduceat(is_known.astype(np.float64), starts)
    centred = np.where(is_known, known - (sums / np.maximum(counts, 1.0))[product_of], 0.0)
    spread = np.sqrt((centred**2).mean(axis=0))
    is_constant = spread <= 1e-9 * np.abs(known).max(axis=0)
    scale = np.where(is_constant, 1.0, spread)
    return CreativeDesign(np.where(is_constant, 0.0, centred / scale), scale, product_of, starts)


def sum_by_product(design: CreativeDesign, values: Array) -> Array:
    """Returns the sums of `values` (S, C) over each product's creatives, (S, P)."""
    return np.add.reduceat(values, design.product_starts, axis=-1)


def log_likelihood(design: CreativeDesign, impressions: Array, clicks: Array, preference: Array) -> Array:
    """Returns the log-likelihood of which creatives were clicked, given each product's clicks, (S,).

    Args:
        design: the creatives.
        impressions: effective impressions, (S, C).
        clicks: (S, C).
        preference: (S, d) or (1, d).
    """
    log_rates = _log_rates(design, preference)
    totals = sum_by_product(design, impressions * np.exp(log_rates))
    product_clicks = sum_by_product(design, clicks)
    log_totals = np.log(np.where(totals > 0, totals, 1.0))
    return (clicks * log_rates).sum(axis=-1) - (product_clicks * log_totals).sum(axis=-1)


def score_and_information(
    design: CreativeDesign, impressions: Array, clicks: Array, preference: Array
) -> tuple[Array, Array]:
    """Returns gradient (S, d) and negative Hessian (S, d, d) of `log_likelihood` in the preference."""
    rates = impressions * np.exp(_log_rates(design, preference))
    product_clicks = sum_by_product(design, clicks)
    totals = sum_by_product(design, rates)
    levels = np.divide(product_clicks, totals, out=np.zeros_like(totals), where=totals > 0)
    expected = rates * levels[:, design.product_of]
    features = design.features
    num_sides, d = len(expected), features.shape[1]
    score = (clicks - expected) @ features
    squares = (features[:, :, None] * features[:, None, :]).reshape(len(features), d * d)
    within = (expected @ squares).reshape(num_sides, d, d)
    sums = np.array([sum_by_product(design, expected * column) for column in features.T]).reshape(d, *totals.shape)
    inverse_clicks = np.divide(1.0, product_clicks, out=np.zeros_like(totals), where=product_clicks > 0)
    return score, within - np.einsum("isp,jsp,sp->sij", sums, sums, inverse_clicks, optimize=True)


def fit_preference(design: CreativeDesign, impressions: Array, clicks: Array) -> PreferenceFit:
    """Returns the preference vector of each side, by Newton's method with a weak prior.

    Args:
        design: the creatives.
        impressions: effective impressions, (S, C).
        clicks: (S, C); a side without clicks gets preference 0.
    """
    d = design.features.shape[1]
    prior = _PRIOR_PRECISION * np.eye(d)
    preference = np.zeros((len(clicks), d))
    for _ in range(_NUM_NEWTON_STEPS):
        score, information = score_and_information(design, impressions, clicks, preference)
        gradient = score - _PRIOR_PRECISION * preference
        step = np.linalg.solve(information + prior, gradient[..., None])[..., 0]
        preference = preference + np.clip(step, -_MAX_STEP, _MAX_STEP)
    _, information = score_and_information(design, impressions, clicks, preference)
    return PreferenceFit(preference, information)


def one_step_shift(score: Array, information: Array) -> Array:
    """Returns by how much one Newton step without a prior moves the preference of each side, (S, d)."""
    return np.einsum("sij,sj->si", np.linalg.pinv(information, rcond=_RANK_TOLERANCE, hermitian=True), score)


def difference_test(left: PreferenceFit, right: PreferenceFit) -> tuple[Array, Array]:
    """Returns, per pair of sides, the log p-value of "both have the same preference" and the statistic, (S,) each.

    T = D' (A_L^-1 + A_R^-1)^-1 D for D the difference and A the information, chi-squared with the rank of that matrix
    as its degrees of freedom. The matrix is computed as A_L (A_L + A_R)^+ A_R, its limit when a side does not see every
    direction. Rank 0 gives p = 1.
    """
    total = np.linalg.pinv(left.information + right.information, rcond=_RANK_TOLERANCE, hermitian=True)
    precision = left.information @ total @ right.information
    precision = (precision + np.swapaxes(precision, -1, -2)) / 2
    difference = left.preference - right.preference
    statistic = np.einsum("si,sij,sj->s", difference, precision, difference)
    largest = np.trace(left.information + right.information, axis1=-2, axis2=-1)
    rank = (np.linalg.eigvalsh(precision) > _RANK_TOLERANCE * largest[:, None]).sum(axis=-1)
    p_value = np.where(rank > 0, chdtrc(np.maximum(rank, 1), statistic), 1.0)
    with np.errstate(divide="ignore"):  # too small for a float: -inf, told apart by the statistic
        return np.log(p_value), statistic


def _log_rates(design: CreativeDesign, preference: Array) -> Array:
    return np.clip(preference @ design.features.T, -_MAX_LOG_RATE, _MAX_LOG_RATE)
