from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from planted_tables import group_row, pair_row, rate_row, table_frame
from pyspark.sql import functions as F

from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export
from osmf_models.records import EXPORT_TABLES, ExportManifest
from osmf_pipelines.spark.export import (
    ExportInputs,
    build_export_frames,
    count_drawable_pairs,
    count_left_out,
    write_export,
)
from osmf_pipelines.spark.group_vectors import add_feature_vectors, group_feature_layout
from osmf_pipelines.spark.pictures import hash_cutouts

PX = 32


@pytest.fixture(scope="module")
def inputs(spark, tmp_path_factory):
    """Shoes that have a group, with everything that can be missing; hats, whose scope has none, with everything."""
    tmp_path = tmp_path_factory.mktemp("pictures")
    cutout, mask = np.zeros((PX, PX, 4), np.uint8), np.zeros((PX, PX), np.uint8)
    cutout[8:24, 8:24] = mask[8:24, 8:24] = 255
    Image.fromarray(cutout).save(tmp_path / "cutout.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for name, shade in {"a": 50, "b": 100}.items():
        Image.new("RGB", (PX, PX), (shade, 0, 0)).save(tmp_path / f"{name}.png")
    paths = {name: str(tmp_path / f"{name}.png") for name in ("cutout", "mask", "a", "b", "gone")}
    cutouts = {"whole": "cutout", "gone-cutout": "gone", "opaque-cutout": "a", "no-cutout": None, "hat": "cutout"}
    products = [
        {
            "product_id": name,
            "scope": "hats" if name == "hat" else "shoes",
            "title": f"one {name}",
            "price": 9.9,
            "cutout_path": cutout and paths[cutout],
        }
        for name, cutout in cutouts.items()
    ]
    creatives = {
        **{name: ("whole", paths[name]) for name in ("a", "b")},
        "no-picture": ("whole", None),
        **dict.fromkeys(("no-mask", "refused-mask", "refused-picture", "drawn"), ("whole", paths["a"])),
        "of-gone-cutout": ("gone-cutout", paths["a"]),
        "of-hat": ("hat", paths["a"]),
    }
    findings = {
        **{name: {"mask_path": paths["mask"]} for name in ("a", "b", "of-gone-cutout", "of-hat", "drawn")},
        "no-mask": {},
        "refused-mask": {"refusal": "mask_touches_border"},
        "refused-picture": {"refusal": "picture_missing"},
    }
    rates = [
        rate_row("a", ctr_rate=0.04),
        rate_row("a", group_id="root", is_root=True),
        rate_row("b", num_clicks=0),
        rate_row("no-mask"),
        rate_row("of-gone-cutout", "gone-cutout"),
    ]
    pairs = [
        pair_row("a", "b"),
        pair_row("a", "b", group_id="root"),
        pair_row("a", "no-mask"),
        pair_row("refused-mask", "b"),
        pair_row("of-gone-cutout", "of-gone-cutout", "gone-cutout"),
    ]
    features = [
        {"creative_id": name, "scope": "shoes", "feature_names": ["warmth", "texture"], "feature_values": values}
        for name, values in {"a": [0.1, 0.2], "b": [0.3, 0.6]}.items()
    ]
    rows = {
        "group_features": [group_row("g"), group_row("root", is_root=True)],
        "group_ctr": rates,
        "preference_pairs": pairs,
        "products": products,
        "product_splits": [{"product_id": name, "split": "train"} for name in cutouts],
        "creatives": [{"creative_id": name, "product_id": p, "image_path": i} for name, (p, i) in creatives.items()],
        "product_masks": [{"creative_id": name, **finding} for name, finding in findings.items()],
        "creative_features": features,
    }
    frames = {name: table_frame(spark, name, table) for name, table in rows.items()}
    frames["products"] = hash_cutouts(frames["products"]).persist()
    yield ExportInputs(**frames)
    frames["products"].unpersist()


def _write(inputs, folder):
    return write_export(inputs, folder, as_of_date="2026-03-01", table_versions={"creatives": 3})


@pytest.fixture(scope="module")
def export_folder(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "export"
    _write(inputs, folder)
    return folder


def _with_picture(inputs, creative_id, path):
    """The inputs with another picture of one creative."""
    other = F.when(F.col("creative_id") == creative_id, F.lit(str(path))).otherwise(F.col("image_path"))
    return replace(inputs, creatives=inputs.creatives.withColumn("image_path", other))


def test_what_has_pictures_is_exported_and_the_rest_is_counted(inputs, export_folder):
    export = load_export(export_folder, DataConfig())

    assert list(export.products.product_id) == ["whole"]
    shades = [round(255 * float(image[0, 0, 0])) for image in export.images]
    assert dict(zip(export.creatives.creative_id, shades, strict=True)) == {"a": 50, "b": 100}
    assert export.masks[0].sum() == export.cutouts[0][..., 3].sum() == 16 * 16
    # Of the product's three creatives that were shown, one has no mask: log(0.04) against the mean of three.
    assert export.examples.log_rate_lift.tolist() == pytest.approx([np.log(4) * 2 / 3, -np.log(4) / 3])
    assert len(export.pairs) == count_drawable_pairs(inputs) == 2
    assert export.num_examples_without_picture == export.num_pairs_without_picture == 0
    assert export.manifest.image_px == PX
    assert count_left_out(inputs) == {
        "num_products_cutout_missing": 1,
        "num_products_cutout_opaque": 1,
        "num_products_of_scope_without_groups": 1,
        "num_products_without_cutout": 1,
        "num_creatives_mask_touches_border": 1,
        "num_creatives_of_product_left_out": 1,
        "num_creatives_of_scope_without_groups": 1,
        "num_creatives_picture_missing": 1,
        "num_creatives_without_evidence": 1,
        "num_creatives_without_mask": 1,
        "num_creatives_without_picture": 1,
        "num_pairs_without_pictures": 3,
    }


def test_a_scope_without_groups_leaves_no_trace(export_folder):
    for name in EXPORT_TABLES:
        table = pd.concat(pd.read_parquet(path) for path in sorted((export_folder / name).glob("*.parquet")))
        texts = [str(value) for column in table for value in table[column] if isinstance(value, str)]
        assert not [text for text in texts if "hat" in text], name


def test_groups_are_told_by_their_features(inputs):
    groups = {row["group_id"]: row["features"] for row in build_export_frames(inputs)["groups"].collect()}

    # z and error of two preferences, means of the two top exemplars, no bottom ones, log users, shares by name.
    expected = [4.0, 0.0, 0.5, 0.0, 0.2, 0.4, 0.0, 0.0, np.log(100), 0.25, 0.75]
    assert groups["g"] == pytest.approx(expected, rel=1e-6)


def test_a_value_told_by_one_scope_and_not_by_another_is_among_the_others_in_both(spark, inputs):
    shares = {
        "g": {"age=18-24": 0.4, "age=25+": 0.6, "city=a": 0.5, "city=b": 0.3, "city=other values": 0.2},
        "h": {"age=18-24": 1.0, "city=a": 0.1, "city=c": 0.7, "city=other values": 0.2},
        "whole": {"age=25+": 1.0, "city=a": 0.9, "city=d": 0.1},
    }
    rows = [group_row(name) | {"attribute_shares": shares[name]} for name in shares]
    groups = add_feature_vectors(table_frame(spark, "group_features", rows), inputs.creative_features)

    layout = group_feature_layout(groups)
    names = ["share:age=18-24", "share:age=25+", "share:city=a", "share:city=other values"]
    assert [name for name in layout if name.startswith("share:")] == names
    found = {row["group_id"]: dict(zip(layout, row["features"], strict=True)) for row in groups.collect()}
    expected = {"g": [0.4, 0.6, 0.5, 0.5], "h": [1.0, 0.0, 0.1, 0.9], "whole": [0.0, 1.0, 0.9, 0.1]}
    for group, told in expected.items():
        assert [found[group][name] for name in names] == pytest.approx(told, rel=1e-6)


@pytest.mark.parametrize("broadcast_bytes", ["-1", "10MB"])
def test_the_same_tables_give_the_same_export_however_they_are_joined(
    spark, inputs, export_folder, tmp_path, broadcast_bytes
):
    shuffled = {name: frame.orderBy(F.rand(3)) for name, frame in vars(inputs).items()}
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", broadcast_bytes)
    try:
        again = _write(replace(inputs, **shuffled), tmp_path / "again")
    finally:
        spark.conf.unset("spark.sql.autoBroadcastJoinThreshold")
    assert again == ExportManifest.read(export_folder)


def test_nothing_with_a_mask_is_an_error_that_says_so(inputs, tmp_path):
    without = replace(inputs, product_masks=inputs.product_masks.where("mask_path IS NULL"))

    assert count_drawable_pairs(without) == 0
    with pytest.raises(ValueError, match="no creative has a picture and a usable mask"):
        _write(without, tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("size", [(PX, PX + 2), (2 * PX, 2 * PX)])
def test_a_picture_of_another_size_is_named(inputs, tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "other.png")

    with pytest.raises(Exception, match=rf"other\.png has \({size[0]}, {size[1]}\) pixels, .* 32 x 32"):
        _write(_with_picture(inputs, "b", tmp_path / "other.png"), tmp_path / "export")


def test_a_picture_that_has_gone_since_is_told_with_the_remedy(inputs, tmp_path):
    with pytest.raises(Exception, match=r"gone\.png .*It could be read when `product_masks` was made"):
        _write(_with_picture(inputs, "b", tmp_path / "gone.png"), tmp_path / "export")
