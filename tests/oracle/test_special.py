import math

import pytest

from tests.oracle.special import regularised_incomplete_beta, regularised_lower_gamma


def test_the_incomplete_beta_function_has_its_known_values() -> None:
    assert regularised_incomplete_beta(1, 1, 0.3) == pytest.approx(0.3, rel=1e-12)
    assert regularised_incomplete_beta(7, 1, 0.9) == pytest.approx(0.9**7, rel=1e-12)
    assert regularised_incomplete_beta(2, 3, 0.4) == pytest.approx(6 * 0.4**2 - 8 * 0.4**3 + 3 * 0.4**4, rel=1e-12)
    assert regularised_incomplete_beta(40, 40, 0.5) == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("x", [0.1, 1.0, 9.0])
def test_the_incomplete_gamma_function_has_its_known_values(x: float) -> None:
    assert regularised_lower_gamma(1, x) == pytest.approx(1 - math.exp(-x), rel=1e-12)
    assert regularised_lower_gamma(0.5, x) == pytest.approx(math.erf(math.sqrt(x)), rel=1e-12)
