"""The blind encoder sees colours in blocks outside the product, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import Market
from osmf_pipelines.bench import encoders
from osmf_pipelines.bench.encoders import encode_pixels


@pytest.fixture(scope="module")
def market() -> Market:
    return easy_market(3, num_products_per_scope=3, num_creatives_per_product=6)


def test_components_are_centred_in_each_product_uncorrelated_and_of_one_spread(market):
    values = encode_pixels(market).values
    assert values.shape == (4 * 3 * 6, 12)
    np.testing.assert_allclose(values.reshape(12, 6, 12).mean(axis=1), 0.0, atol=1e-9)
    np.testing.assert_allclose(values.T @ values / len(values), np.eye(12), atol=1e-9)


def test_what_is_under_the_product_and_finer_than_a_block_is_not_seen(market, monkeypatch):
    rng = np.random.default_rng(0)
    pictures, mask = rng.uniform(size=(6, 32, 32, 3)), np.zeros((6, 32, 32))
    mask[:, 10:25, 8:20] = 1.0
    monkeypatch.setattr(encoders, "_pictures", lambda market: [(pictures, mask)])
    before = encode_pixels(market).values
    pictures[mask == 1.0] = 0.5
    blocks = pictures.reshape(6, 8, 4, 8, 4, 3)
    blocks[:, 0, :, 0] = blocks[:, 0, ::-1, 0]  # rows of one block, turned round
    np.testing.assert_allclose(np.abs(encode_pixels(market).values), np.abs(before), atol=1e-8)
    blocks[:, 0, :, 0] += 0.5 * rng.uniform(size=(6, 1, 1, 3))
    assert np.abs(np.abs(encode_pixels(market).values) - np.abs(before)).max() > 0.01
