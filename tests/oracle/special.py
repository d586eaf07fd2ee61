"""The two special functions that rates and pairs need, by series and continued fractions.

Source: Abramowitz and Stegun (1964), 6.5.29, 6.5.31 and 26.5.8; continued fractions by Lentz's method as modified by
Thompson and Barnett (1986).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import count

_TINY = 1e-300
_ENOUGH = 1e-16


def regularised_incomplete_beta(a: float, b: float, x: float) -> float:
    """Returns I_x(a, b) for a, b > 0 and x in (0, 1)."""
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - regularised_incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)

    def numerators() -> Iterator[float]:
        yield 1.0
        for m in count():
            if m > 0:
                yield m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
            yield -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))

    return math.exp(log_front) / a * _continued_fraction((numerator, 1.0) for numerator in numerators())


def regularised_lower_gamma(a: float, x: float) -> float:
    """Returns P(a, x), the share of a Gamma(a, 1) below x, for a, x > 0."""
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for n in count(1):
            term *= x / (a + n)
            total += term
            if term < total * _ENOUGH:
                return front * total
    levels = ((1.0 if n == 0 else -n * (n - a), x + 1 - a + 2 * n) for n in count())
    return 1 - front * _continued_fraction(levels)


def _continued_fraction(levels: Iterable[tuple[float, float]]) -> float:
    """a1 / (b1 + a2 / (b2 + ...)) for endless levels (a, b)."""
    value, upper, lower = _TINY, _TINY, 0.0
    for a, b in levels:
        upper, lower = b + a / upper, b + a * lower
        upper, lower = upper or _TINY, 1 / (lower or _TINY)
        value *= upper * lower
        if abs(upper * lower - 1) < 4 * _ENOUGH:
            break
    return value
