"""Writes a training export of a simulated market whose groups are its planted segments."""

from __future__ import annotations

import hashlib
import io
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from osmf_models.image_features import FEATURE_NAMES
from osmf_models.records import EXPORT_TABLES, ExportFile, ExportManifest, group_feature_names
from osmf_models.simulator.market import Market, creatives_of, segment_shares_of
from osmf_models.simulator.pictures import creative_pixels, cutout_pixels
from osmf_models.simulator.users import combination_shares

BINS = ("gender=female", "gender=male")


def group_id_of(scope: str, segment: str) -> str:
    return f"{scope}:{segment}"


def cell_shares(market: Market) -> dict[str, float]:
    attributes = market.population.attributes
    names = [attribute.name for attribute in attributes]
    values = itertools.product(*(attribute.values for attribute in attributes))
    cells = ["|".join(sorted(f"{name}={value}" for name, value in zip(names, row, strict=True))) for row in values]
    return dict(zip(cells, combination_shares(attributes).tolist(), strict=True))


def write_group_cells(market: Market, path: Path) -> None:
    rows = [
        (group_id_of(scope.name, *segment_shares_of(market, scope.name, cell)), scope.name, cell, round(1e6 * share))
        for scope in market.scopes
        for cell, share in cell_shares(market).items()
    ]
    pd.DataFrame(rows, columns=["group_id", "scope", "cell", "num_impressions"]).to_parquet(path)


def write_market_export(market: Market, folder: Path) -> None:
    """Of each scope's products the first four are for training, the fifth for validation, the others for test."""
    names = group_feature_names(FEATURE_NAMES, BINS)
    rng = np.random.default_rng(0)
    groups, products, creatives = [], [], []
    for scope in market.scopes:
        for segment in scope.segments:
            features = [*(10 * np.array(segment.taste.linear[:5])), *rng.normal(size=len(names) - 5)]
            row = (
                group_id_of(scope.name, segment.name),
                scope.name,
                False,
                f"{segment.name} of {scope.name}",
                features,
            )
            groups.append(row)
        groups.append((f"{scope.name}:root", scope.name, True, f"everyone of {scope.name}", [0.0] * len(names)))
    for product in market.products:
        number = int(product.product_id[-3:])
        split = "train" if number < 4 else "validation" if number == 4 else "test"
        cutout = cutout_pixels(market, product.product_id)
        row = (product.product_id, product.scope, product.title, product.price, split, png(cutout))
        products.append(row)
        pictures = creative_pixels(market, product.product_id)
        for creative, pixels in zip(creatives_of(market, product.product_id), pictures, strict=True):
            creatives.append((creative.creative_id, product.product_id, png(pixels), png(cutout[..., 3])))
    write_tables(folder, dict(zip(EXPORT_TABLES, (groups, products, creatives, [], []), strict=True)), market, names)


def write_tables(folder: Path, rows: dict[str, list[tuple]], market: Market, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    files = []
    for name, table in rows.items():
        path = folder / f"{name}.parquet"
        pd.DataFrame(table, columns=list(EXPORT_TABLES[name])).to_parquet(path, index=False)
        content = path.read_bytes()
        files.append(ExportFile(name, path.name, len(table), len(content), hashlib.sha256(content).hexdigest()))
    mean, scale = (0.0,) * len(names), (1.0,) * len(names)
    ExportManifest("2026-03-07", market.image_px, names, mean, scale, {"groups": 1}, tuple(files)).write(folder)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()
