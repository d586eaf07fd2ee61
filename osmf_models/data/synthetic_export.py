"""A training export of any size with made-up pictures: for measuring how fast it is read, where nothing is learned.

Batches without an export belong in `synthetic.py`, a market with tastes to learn in `osmf_models/simulator`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from osmf_models.data.synthetic import synthetic_manifest, synthetic_texts
from osmf_models.records import EXPORT_TABLES, ExportFile

_NUM_SHARDS = 8  # of each table with pictures
_NUM_GROUPS = 8
_SCOPE = "synthetic"
_COARSE_PX, _NOISE = 8, 4  # PNGs are as large as of drawn scenes: soft colours, and grain of +-4 of 255


def write_synthetic_export(
    folder: Path, num_pictures: int, image_px: int, seed: int, advance: Callable[[int], None]
) -> None:
    """Writes an export of as many products as pictures, so that cut-outs, too, are as many as samples have.

    Args:
        folder: of the export; must not exist.
        num_pictures: shared evenly by the shards.
        image_px: their side.
        seed: the same one writes the same pictures.
        advance: called with the number of pictures written since its last call.
    """
    folder.mkdir(parents=True)
    manifest = synthetic_manifest(image_px)
    names, titles = manifest.group_feature_names, synthetic_texts(num_pictures, 6, seed)
    groups = [
        (f"g{g}", _SCOPE, g == _NUM_GROUPS, f"group {g}", np.zeros(len(names)).tolist()) for g in range(_NUM_GROUPS + 1)
    ]
    numbers = range(num_pictures)
    examples = [(f"g{i % _NUM_GROUPS}", f"p{i}", f"c{i}", 0.0, "train") for i in numbers]
    files = [
        _write(folder, "groups", 0, groups),
        _write(folder, "generation_examples", 0, examples),
        _write(folder, "preference_pairs", 0, []),
    ]
    for shard, rows in enumerate(np.array_split(numbers, _NUM_SHARDS)):
        products, creatives = [], []
        for i in map(int, rows):
            rng = np.random.default_rng((seed, i))
            mask = _mask(rng, image_px)
            cutout = np.dstack([_soft_picture(rng, image_px), mask])
            products.append((f"p{i}", _SCOPE, titles[i], 1.0, "train", _png(cutout)))
            creatives.append((f"c{i}", f"p{i}", _png(_soft_picture(rng, image_px)), _png(mask)))
            advance(1)
        files += [_write(folder, "products", shard, products), _write(folder, "creatives", shard, creatives)]
    replace(manifest, files=tuple(files)).write(folder)


def _write(folder: Path, table: str, number: int, rows: list[tuple]) -> ExportFile:
    path = folder / table / f"{number:05d}.parquet"
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=list(EXPORT_TABLES[table])).to_parquet(path, index=False)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return ExportFile(table, str(path.relative_to(folder)), len(rows), len(content), digest)


def _soft_picture(rng: np.random.Generator, image_px: int) -> NDArray[np.uint8]:
    """Returns soft colours with a little grain, (H, W, 3)."""
    coarse = Image.fromarray(rng.integers(0, 256, (_COARSE_PX, _COARSE_PX, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((image_px, image_px), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-_NOISE, _NOISE + 1, soft.shape, dtype=np.int16)
    return np.clip(soft + grain, 0, 255).astype(np.uint8)


def _mask(rng: np.random.Generator, image_px: int) -> NDArray[np.uint8]:
    """Returns an ellipse with a soft edge, (H, W)."""
    y, x = (np.mgrid[0:image_px, 0:image_px] + 0.5) / image_px * 2.0 - 1.0
    distance = np.hypot(x / rng.uniform(0.3, 0.6), y / rng.uniform(0.3, 0.6))
    return np.round(255.0 * np.clip((1.0 - distance) * 6.0, 0.0, 1.0)).astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
