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


@pytest.mark.parametrize("changes", [{"refine_stride": 3}, {"refine_stride": 4, "refine_channels": 8}])
def test_cells_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match="must divide"):
        denoiser(**changes)


def test_coarse_views_are_means_of_the_scene_alone():
    noisy = torch.arange(3 * 64.0).reshape(1, 3, 8, 8)
    scene = torch.ones(1, 1, 8, 8)
    scene[..., :2, :2] = 0.0  # the product fills the first window of a quarter of the side
    views = coarse_views(noisy, scene).reshape(4, 3, 8, 8)
    assert (views[0, :, :2, :2] == 0.0).all()
    torch.testing.assert_close(views[0, 0, 2:4, 2:4], torch.full((2, 2), (18 + 19 + 26 + 27) / 4))
    half = noisy[0, 0, :4, :4].sum() - noisy[0, 0, :2, :2].sum()
    torch.testing.assert_close(views[1, 0, :4, :4], (half / 12).expand(4, 4))
    torch.testing.assert_close(views[2, :, 5], noisy[0, :, 5].mean(1, keepdim=True).expand(3, 8))
    other = noisy.clone()
    other[..., :2, :2] += 100.0
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
