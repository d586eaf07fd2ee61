"""Pictures of one kind are no distance apart, broken ones are; what the encoder knows is the same at every fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from market_export import write_market_export

from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export
from osmf_models.evaluation.kernel_distance import (
    KernelTerms,
    product_terms,
    read_kernel_terms,
    write_kernel_terms,
)
from osmf_models.evaluation.resampling import Estimate
from osmf_models.simulator.easy import easy_market
from osmf_models.training.fit_picture_encoder import fit_picture_encoder, shared_encoder


def test_terms_by_hand():
    """Of one feature the kernel is (x y + 1)³: of 1 and 1 it is 8, of 3 and 1 it is 64, of anything and 0 it is 1."""
    one, zero, several = (np.array(values)[:, None] for values in ([1.0], [0.0], [1.0, 3.0]))
    np.testing.assert_allclose(product_terms([one, one], [zero, zero]), [[0, 8 + 1 - 1 - 1], [7, 0]])
    np.testing.assert_allclose(product_terms([several, one], [zero, zero]), [[0, 36 + 1 - 1 - 1], [35, 0]])
    with pytest.raises(ValueError, match="two products"):
        product_terms([one], [zero])


def distance(drawn, logged):
    terms = product_terms(drawn, logged)
    return terms.sum() / (len(terms) * (len(terms) - 1))


def test_sets_of_one_kind_have_none_on_average_however_few():
    """Six products that differ, two pictures each: the mean over 400 such sets is 0, and above it once one is moved."""
    rng = np.random.default_rng(0)

    def found(shift):
        products = rng.normal(size=(6, 1, 4))
        drawn, logged = (products + 0.5 * rng.normal(size=(6, 2, 4)) for _ in range(2))
        return distance(list(drawn + shift), list(logged))

    same, moved = (np.array([found(shift) for _ in range(400)]) for shift in (0.0, 1.0))
    assert abs(same.mean()) < 3 * same.std() / np.sqrt(400)
    assert (same < 0).mean() > 0.3  # without bias it is on both sides
    assert moved.mean() > 10 * same.std() / np.sqrt(400)


def test_resamples_are_about_the_figure_and_paired_by_market():
    rng = np.random.default_rng(1)
    drawn, logged = (list(rng.normal(size=(20, 3, 4)) + shift) for shift in (0.5, 0.0))
    terms = KernelTerms(("a",) * 10 + ("b",) * 10, tuple(map(str, range(20))), product_terms(drawn, logged))
    resampled = terms.resampled("m")
    assert resampled[0] == pytest.approx(distance(drawn, logged))
    assert resampled[1:].mean() == pytest.approx(resampled[0], abs=4 * resampled.std() / np.sqrt(4000))
    np.testing.assert_array_equal(resampled, terms.resampled("m"))
    assert not np.array_equal(resampled, terms.resampled("other"))


def test_terms_are_read_as_they_were_written(tmp_path):
    terms = KernelTerms(("s", "t"), ("p", "q"), np.array([[0.0, 1.5], [1.5, 0.0]]))
    write_kernel_terms(tmp_path / "k.parquet", {"oracle": terms, "random": terms})
    found = read_kernel_terms(tmp_path / "k.parquet")
    assert list(found) == ["oracle", "random"]
    assert (found["oracle"].scopes, found["oracle"].product_ids) == (("s", "t"), ("p", "q"))
    np.testing.assert_array_equal(found["random"].values, terms.values)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """An encoder, and products' logged pictures that it was not fitted to, (P, K, H, W, 3)."""
    folder = tmp_path_factory.mktemp("pictures")
    market = easy_market(7, num_products_per_scope=10, num_creatives_per_product=8, num_users=1_000)
    write_market_export(market, folder / "export")
    export = load_export(folder / "export", DataConfig())
    encoder = shared_encoder(export, folder / "encoders")
    held_out = np.flatnonzero(export.products.split != "train")
    rows = [np.flatnonzero(export.creatives.product_index == row) for row in held_out]
    return export, encoder, folder, np.stack([[export.images[int(row)] for row in one] for one in rows])


def interval(encoder, drawn, logged):
    terms = product_terms(*([encoder.model.encode(one) for one in side] for side in (drawn, logged)))
    return Estimate.of(KernelTerms(("s",) * len(drawn), tuple(map(str, range(len(drawn)))), terms).resampled("m"))


def noisy(pictures, strength):
    return pictures + 0.1 * strength * np.random.default_rng(0).normal(size=pictures.shape)


def blurred(pictures, strength):
    around = [np.roll(pictures, (dy, dx), (2, 3)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return pictures + strength * (np.mean(around, axis=0) - pictures)


def seamed(pictures, strength):
    """Patches of eight pixels; those that the encoder is fitted to have four."""
    offsets = np.random.default_rng(0).normal(size=(*pictures.shape[:2], 4, 4, 3))
    return pictures + 0.1 * strength * np.kron(offsets, np.ones((8, 8, 1)))


def lined(pictures, strength):
    """A line along each patch, brighter than what is beside it."""
    return pictures + 0.1 * strength * (np.arange(pictures.shape[2]) % 4 == 0)[:, None, None]


def test_logged_pictures_are_near_each_other_and_broken_ones_far_by_strength(pictures):
    _, encoder, _, logged = pictures
    rng = np.random.default_rng(0)
    halves = np.stack([one[rng.permutation(8)] for one in logged])
    one, other = halves[:, :4], halves[:, 4:]
    same = interval(encoder, one, other)
    assert same.low < 0.0 < same.high
    for broken in (noisy, blurred, seamed, lined):
        found = [interval(encoder, broken(one, strength), other) for strength in (0.5, 0.75, 1.0)]
        assert found[0].low > same.high, (broken.__name__, found, same)
        assert found[0].value < found[1].value < found[2].value, (broken.__name__, found)


def test_the_encoder_is_frozen_kept_and_the_same_at_every_fit(pictures):
    export, encoder, folder, _ = pictures
    again = fit_picture_encoder(export)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    for name, value in again.state_dict().items():
        torch.testing.assert_close(encoder.model.state_dict()[name], value, rtol=0, atol=0, msg=name)
    before = torch.random.get_rng_state()
    kept = shared_encoder(export, folder / "encoders")
    assert (kept.name, kept.sha256) == (encoder.name, encoder.sha256)
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(list((folder / "encoders").glob("*/*.safetensors"))) == 1
