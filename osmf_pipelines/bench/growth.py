"""How cost grows with volume: a + b * N^c, with an interval for c.

What is timed belongs in `pairs_pipeline.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import f

MIN_SIZES = 4  # three parameters, and something left to tell how well they fit
_EXPONENTS = np.arange(0.0, 3.0005, 0.001)
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Growth:
    """Seconds = fixed_seconds + seconds_per_million * (N / 10^6) ** exponent.

    Attributes:
        fixed_seconds: a, at least 0.
        seconds_per_million: b, at least 0.
        exponent: c, in [0, 3].
        exponent_low: lower end of its 95% interval, 0 at the least.
        exponent_high: upper end, 3 at the most.
        worst_relative_error: largest of |fitted - measured| / measured.
    """

    fixed_seconds: float
    seconds_per_million: float
    exponent: float
    exponent_low: float
    exponent_high: float
    worst_relative_error: float


def fit_growth(sizes: Sequence[float], seconds: Sequence[float]) -> Growth | None:
    """Returns the growth that fits best in relative terms; None for fewer than `MIN_SIZES` different sizes.

    Small and large sizes weigh alike: least squares of (fitted - measured) / measured. The interval holds every c whose
    best fit is not worse than the best of all by more than an F-test at 95% allows (profile likelihood), so that it is
    wide where a and b can make up for another c.

    Args:
        sizes: N, all above 0.
        seconds: measured, all above 0, as many.

    Raises:
        ValueError: when a size or a time is not above 0, or their numbers differ.
    """
    if len(sizes) != len(seconds) or min([*sizes, *seconds], default=1.0) <= 0:
        raise ValueError(f"sizes {list(sizes)} and seconds {list(seconds)}: as many of both, all above 0, are needed.")
    if len(set(sizes)) < MIN_SIZES:
        return None
    millions, measured = np.array(sizes, dtype=float) / 1e6, np.array(seconds, dtype=float)
    fits = [_fit_at(millions, measured, exponent) for exponent in _EXPONENTS]
    losses = np.array([loss for _, loss in fits])
    best = int(losses.argmin())
    degrees = len(sizes) - 3
    allowed = losses[best] * (1 + f.ppf(_CONFIDENCE, 1, degrees) / degrees) + 1e-12
    inside = _EXPONENTS[losses <= allowed]
    (fixed, slope), _ = fits[best]
    fitted = fixed + slope * millions ** _EXPONENTS[best]
    return Growth(
        fixed_seconds=float(fixed),
        seconds_per_million=float(slope),
        exponent=round(float(_EXPONENTS[best]), 3),
        exponent_low=round(float(inside.min()), 3),
        exponent_high=round(float(inside.max()), 3),
        worst_relative_error=float((np.abs(fitted - measured) / measured).max()),
    )


def _fit_at(
    millions: NDArray[np.float64], measured: NDArray[np.float64], exponent: float
) -> tuple[NDArray[np.float64], float]:
    """The best a and b for a given c, and the sum of squared relative errors."""
    design = np.column_stack([np.ones_like(millions), millions**exponent]) / measured[:, None]
    coefficients, norm = nnls(design, np.ones_like(measured))
    return coefficients, float(norm) ** 2
