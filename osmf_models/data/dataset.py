"""Reads the tables of a training export into memory and its pictures on demand; refuses one that is not whole.

How pictures lie on disk belongs in `unpacked.py`, drawing batches in `collate.py`, the export's contract in
`records.py`.

Shapes: `G` groups, `F` entries of a group's feature vector, `C` creatives, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from osmf_models.config import DataConfig
from osmf_models.data.png import Floats, PngFormat
from osmf_models.data.shards import read_shard
from osmf_models.data.unpacked import PngColumn, unpacked_rows
from osmf_models.records import EXPORT_TABLES, ExportFile, ExportManifest

_CLIP = 8.0  # a group further than this many deviations from the mean says no more
PICTURE_COLUMNS = {
    "products": {"cutout_png": ("cut-out", "RGBA")},
    "creatives": {"image_png": ("picture", "RGB"), "mask_png": ("mask", "L")},
}  # kind and mode of Pillow, by table and column


class Pictures:
    """A column of pictures, read and decoded when asked for; the most recent ones are kept decoded.

    Args:
        names: of what they show, for messages.
        pngs: their bytes, on disk.
        png_format: what they are like.
        num_cached: how many are kept.
    """

    def __init__(self, names: Sequence[str], pngs: PngColumn, png_format: PngFormat, num_cached: int):
        self._names, self._pngs, self._format = names, pngs, png_format
        self._decoded = lru_cache(maxsize=num_cached)(self._decode)

    def __getitem__(self, index: int) -> Floats:
        """Returns picture `index` with values in [0, 1]: (H, W, channels), or (H, W) for masks."""
        return self._decoded(int(index))

    def _decode(self, index: int) -> Floats:
        return self._format.decode(self._names[index], self._pngs[index])


@dataclass(frozen=True)
class TrainingExport:
    """A whole export; `*_index` columns point at rows of the other frames.

    Attributes:
        manifest: what it says of itself.
        groups: group_id, scope, is_scope_root, description; is_held_out, of those whose rows are not seen.
        group_features: normalised by the manifest's mean and scale, clipped, (G, F).
        raw_group_features: as exported, (G, F).
        products: product_id, scope, title, split.
        cutouts: RGBA by row of `products`.
        creatives: creative_id, product_index.
        images, masks: RGB, and share of each pixel under the product, by row of `creatives`.
        examples: group_index, creative_index, product_index, log_rate_lift, split.
        pairs: group_index, chosen_index, rejected_index, product_index, chosen_better_probability, log_rate_ratio,
            is_scope_root, is_contradiction, scope, split.
        num_examples_without_picture, num_pairs_without_picture: rows left out because a creative, or its product, has
            no picture in the export; those of groups held out are not among them.
    """

    manifest: ExportManifest
    groups: pd.DataFrame
    group_features: Floats
    raw_group_features: Floats
    products: pd.DataFrame
    cutouts: Pictures
    creatives: pd.DataFrame
    images: Pictures
    masks: Pictures
    examples: pd.DataFrame
    pairs: pd.DataFrame
    num_examples_without_picture: int
    num_pairs_without_picture: int


def load_export(folder: Path, config: DataConfig) -> TrainingExport:
    """Returns the export in `folder`, verified.

    Args:
        folder: of the export.
        config: how pictures are kept, and `held_out_groups`: their examples and pairs are left out.

    Raises:
        ValueError: when a file is missing or altered, a table is absent or has other columns, a row points at a group
            that is not there, a picture is missing or says that it is none of the export's, or a group to hold out is
            none of the export's.
    """
    manifest = ExportManifest.read(folder)
    formats = {
        table: {name: PngFormat(*one, manifest.image_px, config.max_image_px) for name, one in columns.items()}
        for table, columns in PICTURE_COLUMNS.items()
    }
    tables: dict[str, pd.DataFrame] = {}
    pictures: dict[str, Pictures] = {}
    for name in EXPORT_TABLES:
        if name in formats:
            tables[name], pngs = unpacked_rows(folder, _files(folder, manifest, name), formats[name])
            named = list(tables[name].iloc[:, 0])
            pictures |= {
                column: Pictures(named, pngs[column], one, config.num_cached_pictures)
                for column, one in formats[name].items()
            }
        else:
            tables[name] = _read_table(folder, manifest, name)
    groups, products, creatives = tables["groups"], tables["products"], tables["creatives"]
    groups["is_held_out"] = _held_out(groups, config)
    for name in ("generation_examples", "preference_pairs"):
        tables[name] = tables[name][~tables[name].group_id.isin(config.held_out_groups)]
    raw = _feature_matrix(groups, manifest)
    creatives["product_index"] = pd.Index(products.product_id).get_indexer(creatives.product_id)
    examples, num_examples_left = _linked("generation_examples", tables, {"creative": "creative_id"})
    columns = {"chosen": "chosen_creative_id", "rejected": "rejected_creative_id"}
    pairs, num_pairs_left = _linked("preference_pairs", tables, columns)
    return TrainingExport(
        manifest=manifest,
        groups=groups.drop(columns="features"),
        group_features=normalised_features(raw, manifest.group_feature_mean, manifest.group_feature_scale),
        raw_group_features=raw,
        products=products,
        cutouts=pictures["cutout_png"],
        creatives=creatives[["creative_id", "product_index"]],
        images=pictures["image_png"],
        masks=pictures["mask_png"],
        examples=examples,
        pairs=pairs,
        num_examples_without_picture=num_examples_left,
        num_pairs_without_picture=num_pairs_left,
    )


def read_groups(folder: Path) -> pd.DataFrame:
    """Returns the groups of the export in `folder`, verified, without its pictures.

    Raises:
        ValueError: when a file is missing or altered.
    """
    return _read_table(folder, ExportManifest.read(folder), "groups").drop(columns="features")


def normalised_features(raw: NDArray[np.floating], mean: Sequence[float], scale: Sequence[float]) -> Floats:
    """Returns group features (…, F) with mean 0 and deviation 1 over the export's groups, clipped to +-8."""
    values = (np.asarray(raw, np.float64) - np.asarray(mean)) / np.asarray(scale)
    return np.clip(values, -_CLIP, _CLIP).astype(np.float32)


def _files(folder: Path, manifest: ExportManifest, name: str) -> list[ExportFile]:
    """Returns the shards of one table, in order."""
    files = [file for file in manifest.files if file.table == name]
    if not files:
        raise ValueError(f"{folder}: the manifest lists no file for table {name!r}: export again.")
    return sorted(files, key=lambda file: file.path)


def _read_table(folder: Path, manifest: ExportManifest, name: str) -> pd.DataFrame:
    """Reads and verifies all shards of one table without pictures."""
    return pa.concat_tables([read_shard(folder, file) for file in _files(folder, manifest, name)]).to_pandas()


def _feature_matrix(groups: pd.DataFrame, manifest: ExportManifest) -> Floats:
    """Returns the raw group features, (G, F), checked for length and finiteness."""
    num_features = len(manifest.group_feature_names)
    if groups.empty or any(len(row) != num_features for row in groups.features):
        raise ValueError(f"groups: every row needs {num_features} features, as the manifest names them.")
    raw = np.stack([np.asarray(row, np.float32) for row in groups.features])
    if not np.isfinite(raw).all():
        raise ValueError("groups: a feature is not a finite number.")
    return raw


def _held_out(groups: pd.DataFrame, config: DataConfig) -> pd.Series:
    """Returns which groups are held out."""
    unknown = sorted(set(config.held_out_groups) - set(groups.group_id))
    if unknown:
        raise ValueError(f"data.held_out_groups: group {unknown[0]!r} is not in the export.")
    return groups.group_id.isin(config.held_out_groups)


def _linked(name: str, tables: dict[str, pd.DataFrame], creative_columns: dict[str, str]) -> tuple[pd.DataFrame, int]:
    """Returns a table with row numbers instead of ids, and how many rows were left out for want of a picture."""
    rows, groups, creatives = tables[name].copy(), tables["groups"], tables["creatives"]
    rows["group_index"] = pd.Index(groups.group_id).get_indexer(rows.group_id)
    unknown = rows.group_id[rows.group_index < 0]
    if len(unknown):
        told = f"{name}: {len(unknown)} rows are of groups that are not in table groups, as {unknown.iloc[0]!r}"
        raise ValueError(f"{told}: export again.")
    creative_ids, product_index = pd.Index(creatives.creative_id), creatives.product_index.to_numpy()
    has_picture = np.ones(len(rows), bool)
    for kind, column in creative_columns.items():
        index = creative_ids.get_indexer(rows[column])
        rows[f"{kind}_index"] = index
        rows["product_index"] = product_index[index]
        has_picture &= (index >= 0) & (product_index[index] >= 0)
    return rows[has_picture].reset_index(drop=True), int((~has_picture).sum())
