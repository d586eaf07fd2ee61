from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from osmf_models.simulator.market import Market, easy_market


@pytest.fixture(scope="session")
def market() -> Market:
    return easy_market(11, num_products_per_scope=6, num_creatives_per_product=4, num_users=5_000)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    settings = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()
