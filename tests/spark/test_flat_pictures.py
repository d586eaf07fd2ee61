"""A shop that has nothing but flat JPEG files: what a segmentation model makes of them, and what is left without it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from planted_tables import group_row, pair_row, rate_row, table_frame
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export
from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import Market, creatives_of
from osmf_models.simulator.pictures import creative_pixels, cutout_pixels
from osmf_pipelines.spark.export import ExportInputs, count_drawable_pairs, count_left_out, write_export
from osmf_pipelines.spark.masks import find_product_masks
from osmf_pipelines.spark.pictures import hash_cutouts, measure_creatives

pytestmark = pytest.mark.slow
PX = 32


def _jpeg(pixels: np.ndarray) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def _product_of(market: Market, product_id: str) -> np.ndarray:
    return cutout_pixels(market, product_id)[..., 3] >= 128


def _train_segmenter(market: Market, folder) -> str:
    """A SegFormer of 69 thousand weights that learns from `market` what a product is, in about half a minute."""
    products = [product.product_id for product in market.products for _ in creatives_of(market, product.product_id)]
    images = [_jpeg(pixels) for name in dict.fromkeys(products) for pixels in creative_pixels(market, name)]
    processor = SegformerImageProcessorPil(size={"height": PX, "width": PX})
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    is_product = torch.from_numpy(np.array([_product_of(market, name) for name in products])).long()
    config = SegformerConfig(
        num_labels=2,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 32, 32],
        num_attention_heads=[1, 1, 2, 2],
        patch_sizes=[5, 3, 3, 3],
        strides=[2, 2, 2, 2],
        sr_ratios=[8, 4, 2, 1],
        decoder_hidden_size=32,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more of them wait for one another on a busy machine
    model, num_steps = SegformerForSemanticSegmentation(config), 400
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=num_steps)
    for _ in range(num_steps):
        rows = torch.randint(len(pixels), (16,))
        model(pixel_values=pixels[rows], labels=is_product[rows]).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def flat_market(spark, tmp_path):
    """A shop's creatives as flat JPEG files, without masks: the truth is known here alone."""
    market = easy_market(3, image_px=PX, num_products_per_scope=4, num_creatives_per_product=4, num_users=10)
    products, creatives = [], []
    for product in market.products:
        path = tmp_path / f"{product.product_id}.png"
        Image.fromarray(cutout_pixels(market, product.product_id)).save(path)
        products.append({"product_id": product.product_id, "scope": product.scope, "cutout_path": str(path)})
        pictures = creative_pixels(market, product.product_id)
        for creative, pixels in zip(creatives_of(market, product.product_id), pictures, strict=True):
            path = tmp_path / f"{creative.creative_id}.jpg"
            _jpeg(pixels).save(path, "JPEG", quality=85)
            creatives.append(
                {"creative_id": creative.creative_id, "product_id": product.product_id, "image_path": str(path)}
            )
    return market, table_frame(spark, "products", products), table_frame(spark, "creatives", creatives)


def _market_inputs(spark, market, products, creatives, masks, features):
    """One group per scope, which prefers each product's first creative to its second."""
    names = [product.product_id for product in market.products]
    rows = {
        "group_features": [group_row(scope.name, scope=scope.name) for scope in market.scopes],
        "group_ctr": [
            rate_row(f"{name}-c{number:02d}", name, group_id=name.split("-")[0])
            for name in names
            for number in range(4)
        ],
        "preference_pairs": [
            pair_row(f"{name}-c00", f"{name}-c01", name, group_id=name.split("-")[0]) for name in names
        ],
        "product_splits": [{"product_id": name, "split": "train"} for name in names],
    }
    frames = {name: table_frame(spark, name, table) for name, table in rows.items()}
    return ExportInputs(
        **frames,
        products=hash_cutouts(products),
        creatives=creatives,
        product_masks=masks,
        creative_features=features,
    )


def _intersection_over_union(found: np.ndarray, true: np.ndarray) -> float:
    return (found & true).sum() / (found | true).sum()


def test_flat_pictures_are_exported_with_a_segmentation_model_and_serve_pairs_without(spark, flat_market, tmp_path):
    market, products, creatives = flat_market
    other_products = easy_market(77, image_px=PX, num_products_per_scope=80, num_creatives_per_product=2, num_users=10)
    model = _train_segmenter(other_products, tmp_path / "model")
    exports = {}
    for name in ("", model):
        found = find_product_masks(
            creatives, folder=tmp_path / "masks", segmentation_model=name, segmentation_labels=()
        ).persist()
        features = measure_creatives(creatives, products, found)
        exports[name] = _market_inputs(spark, market, products, creatives, found, features)

    # Without the model: features of the whole picture, which groups and pairs are made of; nothing to train on.
    rows = exports[""].creative_features.collect()
    assert len(rows) == creatives.count() == 64
    assert {row["mask_coverage"] for row in rows} == {None}
    assert count_left_out(exports[""]) == {"num_creatives_without_mask": 64, "num_pairs_without_pictures": 16}

    # With it: masks that are near the truth, and an export of what has one.
    masks = exports[model].product_masks.collect()
    overlaps = [
        _intersection_over_union(np.asarray(Image.open(row["mask_path"])) > 0, _product_of(market, row["product_id"]))
        for row in masks
        if row["mask_path"]
    ]
    assert {row["mask_source"] for row in masks} == {"segmented"}
    assert len(overlaps) >= 60
    assert np.median(overlaps) >= 0.8  # 0.87 when written, 0.72 at the 5% quantile
    write_export(exports[model], tmp_path / "export", as_of_date="2026-03-01", table_versions={})
    export = load_export(tmp_path / "export", DataConfig())
    assert len(export.creatives) == len(overlaps)
    assert len(export.pairs) == count_drawable_pairs(exports[model]) >= 14
