"""Writes a small training export whose groups have planted, linear tastes over the measured features of a picture."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from osmf_models.image_features import FEATURE_NAMES, measure_images
from osmf_models.records import EXPORT_TABLES, ExportFile, ExportManifest, group_feature_names

PX = 32
BINS = ("age=old", "age=young", "device=app", "device=web")
SCOPES = ("shoes", "lamps", "bags", "mugs")
SHAPES = ("ellipse", "box", "diamond", "ring")


@dataclass(frozen=True)
class PlantedMarket:
    """What the export was made from: `tastes[g]` weighs the standardised features (`mean`, `scale`) of a picture."""

    group_ids: list[str]
    tastes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    splits: list[str]

    def scores(self, group: int, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return ((measure_images(images, masks) - self.mean) / self.scale) @ self.tastes[group]


def draw_product(rng: np.random.Generator, shape: str) -> tuple[np.ndarray, np.ndarray]:
    """A filled shape: colours (PX, PX, 3) and anti-aliased mask (PX, PX)."""
    y, x = (np.mgrid[0:PX, 0:PX] + 0.5) / PX * 2 - 1
    x, y = (x - rng.uniform(-0.15, 0.15)) / rng.uniform(0.35, 0.55), (y - 0.15) / rng.uniform(0.35, 0.5)
    distance = {
        "ellipse": np.hypot(x, y),
        "box": np.maximum(abs(x), abs(y)) * 1.1,
        "diamond": (abs(x) + abs(y)) * 0.85,
        "ring": abs(np.hypot(x, y) - 0.75) * 3,
    }[shape]
    mask = np.clip((1 - distance) * 6, 0, 1)
    colour = rng.uniform(0.1, 0.9, 3)
    return np.clip(colour * (1.1 - 0.3 * y[..., None]), 0, 1), mask


def draw_scene(style: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A gradient with a wave texture; `style` in [-1, 1]^5 moves the five measured features."""
    brightness, warmth, saturation, texture, gradient = style
    y, x = (np.mgrid[0:PX, 0:PX] + 0.5) / PX
    light = 0.5 + 0.25 * brightness - 0.25 * gradient * (2 * y - 1)
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 9)
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) * PX / period + rng.uniform(0, 6))
    light = light + 0.09 * (1 + texture) * wave
    tint = np.array([0.16 * warmth, 0.05 * rng.normal() + 0.08 * saturation, -0.16 * warmth])
    return np.clip(light[..., None] + tint * (1 + 0.3 * saturation), 0, 1)


def write_export(
    folder: Path,
    num_products: int = 12,
    num_creatives: int = 4,
    num_groups: int = 4,
    num_scopes: int = 2,
    seed: int = 0,
) -> PlantedMarket:
    """Writes an export and returns the truth behind it; the last sixth of each scope's products are held out."""
    rng = np.random.default_rng(seed)
    scopes = SCOPES[:num_scopes]
    products, creatives, measured = [], [], []
    for p in range(num_products):
        scope = scopes[p % num_scopes]
        rgb, mask = draw_product(rng, SHAPES[SCOPES.index(scope)])
        split = "train" if p < num_products * 2 // 3 else "validation" if p < num_products * 5 // 6 else "test"
        rgba = np.concatenate([rgb, mask[..., None]], -1)
        products.append((f"p{p}", scope, f"{scope[:-1]} model {p % 7} in colour {p % 5}", 9.9, split, _png(rgba)))
        for c in range(num_creatives):
            image = mask[..., None] * rgb + (1 - mask[..., None]) * draw_scene(rng.uniform(-1, 1, 5), rng)
            creatives.append((f"p{p}c{c}", f"p{p}", _png(image), _png(mask)))
            measured.append(measure_images(image[None], mask[None])[0])
    measured = np.array(measured)
    mean, scale = measured.mean(0), measured.std(0)
    tastes = rng.normal(size=(num_groups, 5)) * 0.8
    group_scope = [scopes[g % num_scopes] for g in range(num_groups)]
    roots = np.array([tastes[[s == scope for s in group_scope]].mean(0) for scope in scopes])
    all_tastes = np.concatenate([tastes, roots])
    group_ids = [f"g{g}" for g in range(num_groups)] + [f"root-{scope}" for scope in scopes]
    groups = _groups(rng, group_ids, group_scope + list(scopes), all_tastes, num_groups)
    z = ((measured - mean) / scale).reshape(num_products, num_creatives, 5)
    examples, pairs = _examples_and_pairs(rng, groups, products, z, all_tastes)
    tables = zip(EXPORT_TABLES, (groups, products, creatives, examples, pairs), strict=True)
    _write(folder, dict(tables), np.array([g[4] for g in groups[:num_groups]]))
    return PlantedMarket(group_ids[:num_groups], tastes, mean, scale, [p[4] for p in products])


def _groups(rng, group_ids, group_scope, tastes, num_groups) -> list[tuple]:
    rows = []
    for g, (group_id, scope, taste) in enumerate(zip(group_ids, group_scope, tastes, strict=True)):
        shares = rng.dirichlet(np.ones(len(BINS)))
        noise = rng.normal(size=5) * 0.2
        z = 10 * (taste + noise)
        features = [*z, *rng.uniform(0.05, 0.2, 5), *(taste * 0.3), *(-taste * 0.3), rng.uniform(5, 9), *shares]
        best, worst = FEATURE_NAMES[int(np.argmax(taste))], FEATURE_NAMES[int(np.argmin(taste))]
        text = f"Shoppers of {scope} who like pictures with more {best} and less {worst}."
        rows.append((group_id, scope, g >= num_groups, text, features))
    return rows


def _examples_and_pairs(rng, groups, products, z, tastes) -> tuple[list[tuple], list[tuple]]:
    examples, pairs = [], []
    for (group_id, scope, is_root, *_), taste in zip(groups, tastes, strict=True):
        for p, product in enumerate(products):
            if product[1] != scope:
                continue
            score = z[p] @ taste
            if not is_root:
                for c, lift in enumerate(0.3 * (score - score.mean())):
                    examples.append((group_id, f"p{p}", f"p{p}c{c}", float(lift), product[4]))
            for a in range(len(score)):
                for b in range(len(score)):
                    probability = 1 / (1 + np.exp(-3 * (score[a] - score[b])))
                    if probability > 0.9 and rng.uniform() < 0.7:
                        row = (group_id, scope, is_root, f"p{p}", f"p{p}c{a}", f"p{p}c{b}")
                        pairs.append((*row, float(probability), float(0.3 * (score[a] - score[b])), False, product[4]))
    return examples, pairs


def _png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.round(values * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _write(folder: Path, rows: dict[str, list[tuple]], features: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, table_rows in rows.items():
        path = folder / f"{name}-00000.parquet"
        pd.DataFrame(table_rows, columns=list(EXPORT_TABLES[name])).to_parquet(path, index=False)
        content = path.read_bytes()
        files.append(ExportFile(name, path.name, len(table_rows), len(content), hashlib.sha256(content).hexdigest()))
    deviation = features.std(0)
    ExportManifest(
        as_of_date="2026-01-07",
        image_px=PX,
        group_feature_names=group_feature_names(FEATURE_NAMES, BINS),
        group_feature_mean=tuple(map(float, features.mean(0))),
        group_feature_scale=tuple(map(float, np.where(deviation > 0, deviation, 1.0))),
        table_versions={"groups": 1},
        files=tuple(files),
    ).write(folder)
