import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from osmf_pipelines.spark.masks import find_product_masks
from osmf_pipelines.tables import TABLES

SIDE = 100


def _save(path: Path, pixels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")
    return str(path)


def _picture(*, alpha: np.ndarray | None = None, shade: int = 90) -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), shade, np.uint8)
    return picture if alpha is None else np.dstack([picture, alpha])


def _mask(rows: slice = slice(30, 60), columns: slice = slice(30, 60), shape=(SIDE, SIDE)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[rows, columns] = 255
    return mask


def _find(spark, folder: Path, creatives: dict[str, tuple[str | None, str | None]], model="", labels=()):
    """Rows of `product_masks` by creative, from the paths of pictures and of supplied masks."""
    rows = [(name, "p", image, mask, None, None) for name, (image, mask) in creatives.items()]
    frame = spark.createDataFrame(rows, TABLES["creatives"].ddl)
    found = find_product_masks(frame, folder=folder, segmentation_model=model, segmentation_labels=labels)
    assert found.columns == TABLES["product_masks"].column_names
    return {row["creative_id"]: row for row in found.collect()}


def _save_segmenter(folder: Path, label: int) -> str:
    """A model of two labels that sees `label` everywhere."""
    config = SegformerConfig(
        num_labels=2,
        depths=[1, 1, 1, 1],
        hidden_sizes=[4, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )
    model = SegformerForSemanticSegmentation(config)
    torch.nn.init.constant_(model.decode_head.classifier.bias[label], 100.0)
    model.save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def test_a_supplied_mask_goes_before_the_alpha_channel_and_that_before_nothing(spark, tmp_path):
    alpha = _mask(slice(20, 70), slice(20, 60))
    pictures = {
        "flat": _save(tmp_path / "flat.png", _picture()),
        "alpha": _save(tmp_path / "alpha.png", _picture(alpha=alpha)),
        "opaque": _save(tmp_path / "opaque.png", _picture(alpha=np.full((SIDE, SIDE), 255, np.uint8))),
    }
    supplied = _save(tmp_path / "mask.png", _mask())

    found = _find(
        spark,
        tmp_path / "masks",
        {
            "supplied": (pictures["flat"], supplied),
            "supplied, alpha too": (pictures["alpha"], supplied),
            "alpha": (pictures["alpha"], None),
            "opaque": (pictures["opaque"], None),
            "flat": (pictures["flat"], None),
            "no picture": (None, supplied),
        },
    )

    sources = {name: row["mask_source"] for name, row in found.items()}
    assert sources == {
        "supplied": "supplied",
        "supplied, alpha too": "supplied",
        "alpha": "alpha",
        "opaque": "none",
        "flat": "none",
    }
    assert {row["refusal"] for row in found.values()} == {None}
    assert found["supplied"]["mask_path"] == found["supplied, alpha too"]["mask_path"] == supplied
    assert found["supplied"]["mask_coverage"] == pytest.approx(0.09)
    assert found["alpha"]["mask_coverage"] == pytest.approx(0.2)
    assert found["alpha"]["image_path"] == pictures["alpha"]
    derived = Image.open(found["alpha"]["mask_path"])
    assert (derived.format, derived.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(derived), alpha)
    assert found["flat"]["mask_path"] is found["flat"]["mask_coverage"] is None


def test_masks_that_show_no_product_in_a_scene_are_refused_and_the_rows_stay(spark, tmp_path):
    image = _save(tmp_path / "image.png", _picture())
    nine_tenths, frame = _mask(slice(5, 95), slice(0, 100)), np.full((SIDE, SIDE), 255, np.uint8)
    frame[5:95, 5:95] = 0
    one_pixel_short = _mask(slice(10, 20), slice(10, 20))
    one_pixel_short[10, 10] = 0
    masks = {
        "1%": (_mask(slice(10, 20), slice(10, 20)), None, 0.01, 0.0),
        "99 of 10,000 pixels": (one_pixel_short, "mask_covers_too_little", 0.0099, 0.0),
        "nothing": (_mask(slice(0, 0)), "mask_covers_too_little", 0.0, 0.0),
        # 90 of 100 rows: on both sides 90 border pixels of 396.
        "90%": (nine_tenths, None, 0.9, 180 / 396),
        "90% and a row": (_mask(slice(4, 95), slice(0, 100)), "mask_covers_too_much", 0.91, 182 / 396),
        # Half the border exactly is allowed, but nothing is left to measure above.
        "the upper half": (_mask(slice(0, 50), slice(0, 100)), "mask_covers_too_much", 0.5, 0.5),
        "a frame": (frame, "mask_touches_border", 0.19, 1.0),
        "a half transparent product": (_mask() // 2, None, 0.09 * 127 / 255, 0.0),
        "another size": (_mask(shape=(SIDE, SIDE + 1)), "mask_of_other_size", None, None),
        "a tiny one": (_mask(slice(2, 5), shape=(10, 10)), "mask_of_other_size", None, None),
    }
    creatives = {name: (image, _save(tmp_path / f"{name}.png", mask[0])) for name, mask in masks.items()}

    found = _find(spark, tmp_path / "masks", creatives)

    assert {name: row["refusal"] for name, row in found.items()} == {name: mask[1] for name, mask in masks.items()}
    for name, (_, refusal, coverage, edge_share) in masks.items():
        assert found[name]["mask_source"] == "supplied"
        assert found[name]["mask_path"] == (creatives[name][1] if refusal is None else None)
        assert found[name]["mask_coverage"] == (coverage and pytest.approx(coverage))
        assert found[name]["mask_edge_share"] == (edge_share and pytest.approx(edge_share))


def test_no_bad_file_stops_the_others(spark, tmp_path):
    good, mask = _save(tmp_path / "good.png", _picture()), _save(tmp_path / "mask.png", _mask())
    (tmp_path / "broken.png").write_bytes(Path(good).read_bytes()[:100])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    Image.new("1", (1, 1)).save(tmp_path / "dot.png")
    paths = {name: str(tmp_path / f"{name}.png") for name in ("broken", "bomb", "dot", "gone")}

    found = _find(
        spark,
        tmp_path / "masks",
        {
            "good": (good, mask),
            **{f"picture {name}": (path, mask) for name, path in paths.items()},
            **{f"mask {name}": (good, path) for name, path in paths.items()},
        },
    )

    assert {name: row["refusal"] for name, row in found.items()} == {
        "good": None,
        "picture broken": "picture_unreadable",
        "picture bomb": "picture_too_large",
        "picture dot": "picture_too_small",
        "picture gone": "picture_missing",
        "mask broken": "mask_unreadable",
        "mask bomb": "mask_of_other_size",
        "mask dot": "mask_of_other_size",
        "mask gone": "mask_missing",
    }
    assert {name for name, row in found.items() if row["mask_path"]} == {"good"}
    assert {row["mask_source"] for name, row in found.items() if name.startswith("picture")} == {"none"}


def test_derived_masks_are_named_by_content_and_written_once(spark, tmp_path):
    image = _save(tmp_path / "image.png", _picture(alpha=_mask()))
    other = _save(tmp_path / "other.png", _picture(alpha=_mask(), shade=91))
    creatives = {"../../escape": (image, None), "b/\0?*": (image, None), "other": (other, None)}
    folder = tmp_path / "masks"

    first = _find(spark, folder, creatives)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = _find(spark, folder, creatives)

    assert {Path(row["mask_path"]) for row in first.values()} == set(written)
    assert len(written) == 2  # one for the two creatives with the same picture, and no temporary file
    image_sha256 = hashlib.sha256(Path(image).read_bytes()).hexdigest()
    name = hashlib.sha256(f"{image_sha256} alpha".encode()).hexdigest()
    assert Path(first["../../escape"]["mask_path"]) == folder / name[:2] / f"{name}.png"
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.slow
def test_only_flat_pictures_without_a_mask_are_segmented(spark, tmp_path):
    flat = _save(tmp_path / "flat.png", _picture())
    creatives = {
        "flat": (flat, None),
        "alpha": (_save(tmp_path / "alpha.png", _picture(alpha=_mask())), None),
        "supplied": (flat, _save(tmp_path / "mask.png", _mask())),
        "supplied and refused": (flat, _save(tmp_path / "empty.png", _mask(slice(0, 0)))),
        "broken": (str(tmp_path / "gone.png"), None),
    }
    everything, nothing = (_save_segmenter(tmp_path / f"sees-{label}", label) for label in (1, 0))

    found = _find(spark, tmp_path / "masks", creatives, everything)

    assert {name: (row["mask_source"], row["refusal"]) for name, row in found.items()} == {
        "flat": ("segmented", "mask_covers_too_much"),
        "alpha": ("alpha", None),
        "supplied": ("supplied", None),
        "supplied and refused": ("supplied", "mask_covers_too_little"),
        "broken": ("none", "picture_missing"),
    }
    assert found["flat"]["mask_coverage"] == found["flat"]["mask_edge_share"] == 1.0
    # Another model or other labels: not the mask that is there, but a new one.
    assert _find(spark, tmp_path / "masks", creatives, nothing)["flat"]["refusal"] == "mask_covers_too_little"
    assert _find(spark, tmp_path / "masks", creatives, nothing, (0,))["flat"]["refusal"] == "mask_covers_too_much"
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 4


def test_a_model_that_cannot_be_used_is_told_before_any_picture_is_read(spark, tmp_path):
    model = _save_segmenter(tmp_path / "model", 1)
    creatives = spark.createDataFrame([], TABLES["creatives"].ddl)

    for checkpoint, labels, problem in ((str(tmp_path / "gone"), (), "gone"), (model, (2,), "no label 2")):
        with pytest.raises(ValueError, match=problem):
            find_product_masks(creatives, folder=tmp_path, segmentation_model=checkpoint, segmentation_labels=labels)
