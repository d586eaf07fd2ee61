from __future__ import annotations

import pytest
import torch
from torch import nn

from osmf_models.model.denoiser import PatchConvolution, ProductDenoiser, coarse_views


def denoiser(**changes):
    sizes = {"image_px": 16, "patch_px": 4, "num_layers": 1, "num_heads": 1, "head_width": 16}
    return ProductDenoiser(**{**sizes, "condition_width": 8, "refine_channels": 16, **changes})


def test_matrix_product_is_the_convolution_of_patches():
    patches = PatchConvolution(nn.Conv2d(7, 5, 4, 4))
    pictures = torch.randn(2, 7, 12, 8)
    torch.testing.assert_close(patches.by_matrix_product(pictures), patches(pictures))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_refining_by_cells_gives_whole_pictures(stride):
    noisy, mask = torch.randn(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    drawn = denoiser(refine_stride=stride)(noisy, noisy, mask, torch.rand(2), torch.randn(2, 3, 8))
    assert drawn.shape == (2, 3, 16, 16)


def test_the_convolutions_see_coarse_views():
    model = denoiser(image_px=32, refine_stride=4)
    nn.init.zeros_(model.transformer.proj_out.weight)  # the transformer says nothing
    nn.init.zeros_(model.transformer.proj_out.bias)
    noisy, mask = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    lit = noisy.clone()
    lit[:, :, :, :4] = 1.0  # seven cells from the right border; three convolutions reach three

    def right_border(pictures):
        return model(pictures, noisy, mask, torch.rand(1), torch.randn(1, 3, 8))[:, :, :, 28:]

    assert not torch.allclose(right_border(lit), right_border(noisy), atol=1e-6)


@pytest.mark.parametrize("changes", [{"refine_stride": 3}, {"refine_stride": 4, "refine_channels": 8}])
def test_cells_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match="must divide"):
        denoiser(**changes)


def test_coarse_views_are_means_of_the_scene_alone():
    noisy = torch.arange(3 * 32.0 * 32.0).reshape(1, 3, 32, 32)
    scene = torch.ones(1, 1, 32, 32)
    scene[..., :8, :8] = 0.0  # the product fills the first window of a quarter of the side
    quarters, halves, strips, rows, whole = coarse_views(noisy, scene).reshape(5, 3, 32, 32)
    assert (quarters[:, :8, :8] == 0.0).all()
    torch.testing.assert_close(quarters[0, 8:16, 8:16], torch.full((8, 8), 32 * 11.5 + 11.5))
    half = noisy[0, 0, :16, :16].sum() - noisy[0, 0, :8, :8].sum()
    torch.testing.assert_close(halves[0, :16, :16], (half / (256 - 64)).expand(16, 16))
    torch.testing.assert_close(strips[0, 20:24], torch.full((4, 32), 32 * 21.5 + 15.5))
    torch.testing.assert_close(rows[0, 5], torch.full((32,), 32 * 5 + 19.5))  # columns 8 to 31 alone
    torch.testing.assert_close(whole[0, 0, 0], noisy[0, 0][scene[0, 0] > 0].mean())
    other = noisy.clone()
    other[..., :8, :8] += 100.0
    torch.testing.assert_close(coarse_views(other, scene), coarse_views(noisy, scene))


def test_condition_and_look_move_the_whole_picture_at_once():
    model = denoiser(refine_stride=4).eval()
    noisy, mask, time = torch.randn(1, 3, 16, 16), torch.zeros(1, 1, 16, 16), torch.rand(1)
    tokens = torch.randn(1, 4, 8)  # the last one tells the look
    emb = model.transformer.adaln_single.emb
    nn.init.ones_(emb.pooled.weight)
    moved_by = []
    emb.register_forward_hook(lambda module, arguments, result: moved_by.append(result))

    def drawn(change):
        return model(noisy, noisy, mask, time, tokens + torch.tensor(change)[None, :, None])

    assert drawn([0.0, 0.0, 0.0, 0.0]).shape == (1, 3, 16, 16)
    drawn([1.0, -1.0, 0.0, 0.0])  # other tokens, the same mean
    torch.testing.assert_close(moved_by[1], moved_by[0])
    drawn([3.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(moved_by[2] - moved_by[0], torch.full_like(moved_by[0], 8.0))
    drawn([0.0, 0.0, 0.0, 2.0])
    torch.testing.assert_close(moved_by[3] - moved_by[0], torch.full_like(moved_by[0], 16.0))
