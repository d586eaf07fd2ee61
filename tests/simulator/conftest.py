from __future__ import annotations

import pytest

from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import Market
from osmf_models.simulator.realistic import realistic_market


@pytest.fixture(scope="session")
def market() -> Market:
    return easy_market(11, num_products_per_scope=6, num_creatives_per_product=4, num_users=5_000)


@pytest.fixture(scope="session")
def realistic() -> Market:
    return realistic_market(11, num_products_per_scope=4, num_creatives_per_product=4, num_users=50_000)
