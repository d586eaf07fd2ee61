from __future__ import annotations

import pytest
import torch
from torch import nn

from osmf_models.model.denoiser import PatchConvolution, ProductDenoiser


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
