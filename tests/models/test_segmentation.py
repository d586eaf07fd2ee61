import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
)
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from osmf_models.model.segmentation import ProductSegmenter, load_segmenter

PLAIN = SegformerImageProcessorPil(size={"height": 32, "width": 32}, do_normalize=False)


def _config(num_labels: int) -> SegformerConfig:
    return SegformerConfig(
        num_labels=num_labels,
        depths=[1, 1, 1, 1],
        hidden_sizes=[4, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )


@pytest.fixture
def checkpoint(tmp_path):
    """Three labels, untrained."""
    torch.manual_seed(0)
    SegformerForSemanticSegmentation(_config(3)).save_pretrained(tmp_path / "model")
    PLAIN.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _by_channels(labels, *, num_labels=3):
    """A stand-in for a model: label c has the value of colour channel c as its logit, at a quarter of the size."""

    def logits(pixel_values):
        values = torch.nn.functional.avg_pool2d(pixel_values, 4)
        return SimpleNamespace(logits=values if num_labels == 3 else values[:, :1] - 0.5)

    return ProductSegmenter(logits, PLAIN, labels)


def _quarters() -> Image.Image:
    """40 wide and 24 high: red, green above; blue, dark red below."""
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[:12, :20, 0] = pixels[:12, 20:, 1] = pixels[12:, :20, 2] = 255
    pixels[12:, 20:, 0] = 100
    return Image.fromarray(pixels)


def test_masks_have_their_pictures_size_and_place():
    wide, tall = _quarters(), _quarters().transpose(Image.Transpose.ROTATE_90)

    masks = _by_channels((1, 2)).segment_product([wide, tall])

    expected = np.zeros((24, 40), np.uint8)
    expected[:12, 20:] = expected[12:, :20] = 255
    assert masks[0].shape == (24, 40)
    assert masks[0].dtype == np.uint8
    # Logits are 8 x 8: at the edges of the quarters the mask is off by a pixel or two.
    assert (masks[0] == expected).mean() > 0.9
    assert (masks[0][2:10, 24:] == 255).all()
    assert (masks[0][2:10, :16] == 0).all()
    assert np.array_equal(masks[1], np.rot90(masks[0]))


def test_a_model_with_one_label_says_product_above_a_sigmoid_of_one_half():
    (mask,) = _by_channels((), num_labels=1).segment_product([_quarters()])

    assert (mask[2:10, 2:16] == 255).all()
    assert (mask[15:] == 0).all()


def test_every_label_but_0_is_product_unless_told(checkpoint):
    assert load_segmenter(str(checkpoint), ()).labels == (1, 2)
    assert load_segmenter(str(checkpoint), (2, 0, 2)).labels == (0, 2)


@pytest.mark.parametrize(
    ("labels", "problem"), [((3,), "no label 3.*0 to 2"), ((-1, 1), "no label -1"), ((0, 1, 2), "all 3 labels")]
)
def test_labels_that_cannot_be_are_refused(checkpoint, labels, problem):
    with pytest.raises(ValueError, match=problem):
        load_segmenter(str(checkpoint), labels)


def test_a_model_with_one_label_takes_no_labels(tmp_path):
    SegformerForSemanticSegmentation(_config(1)).save_pretrained(tmp_path)
    PLAIN.save_pretrained(tmp_path)

    assert load_segmenter(str(tmp_path), ()).labels == ()
    with pytest.raises(ValueError, match="one label"):
        load_segmenter(str(tmp_path), (1,))


def test_a_missing_checkpoint_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(ValueError, match=r"nowhere.* cannot be loaded .*preprocessor_config\.json"):
        load_segmenter(str(tmp_path / "nowhere"), ())


def test_a_checkpoint_without_preprocessing_is_refused(checkpoint):
    (checkpoint / "preprocessor_config.json").unlink()

    with pytest.raises(ValueError, match="cannot be loaded"):
        load_segmenter(str(checkpoint), ())


def test_pickled_weights_are_refused(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    model = SegformerForSemanticSegmentation(_config(3))
    torch.save(model.state_dict(), checkpoint / "pytorch_model.bin")

    with pytest.raises(ValueError, match="cannot be loaded"):
        load_segmenter(str(checkpoint), ())


def test_broken_weights_are_refused(checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(ValueError, match="cannot be loaded"):
        load_segmenter(str(checkpoint), ())


def test_a_classifier_of_whole_pictures_is_refused(checkpoint):
    SegformerForImageClassification(_config(3)).save_pretrained(checkpoint)

    with pytest.raises(ValueError, match=r"lacks \d+ weights .*not trained for semantic segmentation"):
        load_segmenter(str(checkpoint), ())


def test_no_part_of_a_picture_is_cropped_away(checkpoint):
    MobileViTImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 32, "width": 32}).save_pretrained(
        checkpoint
    )

    processor = load_segmenter(str(checkpoint), ()).processor

    assert processor(images=[_quarters().resize((150, 100))], return_tensors="pt")["pixel_values"].shape[-2:] == (
        64,
        96,
    )


def test_the_fingerprint_follows_whatever_a_mask_depends_on(checkpoint, tmp_path):
    copy, other, finer = (shutil.copytree(checkpoint, tmp_path / name) for name in ("copy", "other", "finer"))
    torch.manual_seed(1)
    SegformerForSemanticSegmentation(_config(3)).save_pretrained(other)
    SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(finer)

    prints = [load_segmenter(str(folder), ()).fingerprint for folder in (checkpoint, other, finer)]

    assert load_segmenter(str(copy), (1, 2)).fingerprint == prints[0]
    assert len({*prints, load_segmenter(str(checkpoint), (1,)).fingerprint}) == 4
