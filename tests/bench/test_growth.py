"""Growth of cost: known laws are found again, with intervals that hold them."""

from __future__ import annotations

import numpy as np
import pytest

from osmf_pipelines.bench.growth import fit_growth

SIZES = [1e6, 2e6, 5e6, 10e6, 20e6, 30e6]


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.3])
def test_an_exact_law_is_found_again(exponent: float) -> None:
    growth = fit_growth(SIZES, [12 + 7 * (size / 1e6) ** exponent for size in SIZES])
    assert growth is not None
    assert growth.exponent == pytest.approx(exponent, abs=0.001)
    assert growth.fixed_seconds == pytest.approx(12, rel=0.02)
    assert growth.seconds_per_million == pytest.approx(7, rel=0.02)
    assert growth.exponent_low == pytest.approx(growth.exponent_high, abs=0.002)
    assert growth.worst_relative_error < 1e-3


def test_a_fixed_cost_does_not_pass_for_slow_growth() -> None:
    """A straight line through log time and log size would say 0.4 here."""
    growth = fit_growth(SIZES, [100 + 3 * size / 1e6 for size in SIZES])
    assert growth is not None
    assert growth.exponent == pytest.approx(1.0, abs=0.002)


def test_the_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        exact = np.array([5 + 10 * (size / 1e6) ** 1.1 for size in SIZES])
        growth = fit_growth(SIZES, list(exact * np.exp(generator.normal(0, 0.03, len(SIZES)))))
        assert growth is not None
        held += growth.exponent_low <= 1.1 <= growth.exponent_high
    assert 88 <= held <= 100


def test_three_sizes_tell_no_exponent() -> None:
    assert fit_growth(SIZES[:3], [1.0, 2.0, 3.0]) is None
    assert fit_growth([1e6] * 5, [1.0, 1.1, 0.9, 1.0, 1.0]) is None


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        fit_growth([1e6, 0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="as many of both"):
        fit_growth([1e6], [1.0, 2.0])
