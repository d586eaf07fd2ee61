"""The parts that a scene is drawn from: what its seed decides, and the fields of light, grain, props and shadow.

How parts are weighed so that a scene shows a wished style belongs to `scenes`.

Shapes: `B` scenes, `H W` pixels, `K` waves of the grain, `C` cells of the props' lattice along each side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osmf_models.image_features import Array
from osmf_models.simulator.scene_features import find_foot

_NUM_SCALARS = 13
_NUM_WAVES = 6
_NUM_CELLS = 9
_CELL_FIELDS = 5
_COLUMN = (slice(None), None, None)  # turns (B,) into (B, 1, 1)


@dataclass(frozen=True)
class Nuisance:
    """What a scene's seed decides, apart from any style; every field (B,) where no shape is given."""

    wall_is_warm: Array  # 1 or -1
    contrast: Array  # of hue between wall and table, 1 where warm and cold alone make the saturation
    wall_green: Array  # place of green between the smallest channel (-1) and the largest (1)
    table_green: Array
    table_luma: Array  # luma step from wall to table
    light_x: Array
    light_strength: Array
    wave_slope: Array  # wave number along y as multiple of that along x, (B, K)
    wave_phase: Array  # radians, (B, K)
    lattice: Array  # cells along the picture's side
    lattice_x: Array
    lattice_y: Array
    is_leaf: Array  # 1 for leaves, 0 for discs
    green_share: Array  # share of props that are greener, the others more magenta
    cells: Array  # rank of appearance, place in x and y, size, kind; in [0, 1], (5, B, C, C)


def draw_nuisance(seeds: NDArray[np.int64]) -> Nuisance:
    """Returns what each of `seeds` (B,) decides."""
    num_draws = _NUM_SCALARS + 2 * _NUM_WAVES + _CELL_FIELDS * _NUM_CELLS**2
    draws = np.stack([np.random.default_rng(int(seed)).random(num_draws) for seed in seeds])
    scalars, rest = draws[:, :_NUM_SCALARS].T, draws[:, _NUM_SCALARS:]
    waves, cells = rest[:, : 2 * _NUM_WAVES].reshape(-1, 2, _NUM_WAVES), rest[:, 2 * _NUM_WAVES :]
    return Nuisance(
        wall_is_warm=np.where(scalars[0] < 0.5, 1.0, -1.0),
        contrast=np.minimum(0.55 + 0.9 * scalars[1], 1.0),
        wall_green=_away_from_zero(scalars[2]),
        table_green=_away_from_zero(scalars[3]),
        table_luma=0.08 * (scalars[4] - 0.5),
        light_x=0.2 + 0.6 * scalars[5],
        light_strength=0.03 + 0.08 * scalars[6],
        wave_slope=(0.5 + 1.3 * scalars[12:13].T) * (waves[:, 0] - 0.5),
        wave_phase=2 * np.pi * waves[:, 1],
        lattice=4.2 + 2.3 * scalars[7],
        lattice_x=scalars[8],
        lattice_y=scalars[9],
        is_leaf=np.where(scalars[10] < 0.5, 1.0, 0.0),
        green_share=np.where(scalars[11] < 0.3, 0.5, np.where(scalars[2] < 0.5, 1.0, 0.0)),
        cells=cells.reshape(-1, _CELL_FIELDS, _NUM_CELLS, _NUM_CELLS).swapaxes(0, 1),
    )


def _away_from_zero(draw: Array) -> Array:
    return np.sign(draw - 0.5) * (0.1 + 1.6 * np.abs(draw - 0.5))


def centres(num_px: int) -> Array:
    """Returns pixel centres as shares of the side, (num_px,)."""
    return (np.arange(num_px) + 0.5) / num_px


def wall_cover(horizon: Array, image_px: int) -> Array:
    """Returns the share of each row that is wall, its edge about a pixel and a half soft, (B, H, 1)."""
    softness_px = 1.5
    return np.clip((horizon[:, None] - centres(image_px)) * image_px / softness_px + 0.5, 0, 1)[..., None]


def light_pool(nuisance: Nuisance, image_px: int) -> Array:
    """Returns the luma that a soft lamp adds to the wall, (B, H, W)."""
    y, x = centres(image_px)[:, None], centres(image_px)
    pool = np.exp(-(((x - nuisance.light_x[_COLUMN]) / 0.45) ** 2) - ((y - 0.4) / 0.5) ** 2)
    return nuisance.light_strength[_COLUMN] * pool


def waves(nuisance: Nuisance, wavelength_px: Array, image_px: int) -> Array:
    """Returns a grain of waves that share one wavelength along x, (B,) in pixels, and differ along y, (B, H, W)."""
    pixels, frequency = np.arange(image_px), 2 * np.pi / wavelength_px
    across = frequency[:, None] * pixels
    down = frequency[_COLUMN] * nuisance.wave_slope[..., None] * pixels + nuisance.wave_phase[..., None]
    even, odd = np.cos(down).sum(1), np.sin(down).sum(1)
    return even[:, :, None] * np.cos(across)[:, None] - odd[:, :, None] * np.sin(across)[:, None]


def shadow_shape(alpha: Array) -> Array:
    """Returns how dark a product's shadow is around its foot, in [0, 1], (H, W); zeros without a product."""
    foot = find_foot(alpha[None])
    y, x = centres(alpha.shape[0])[:, None], centres(alpha.shape[1])
    across, down = (x - foot.centre) / (0.8 * foot.half_width), (y - foot.row - 0.015) / 0.08
    return np.exp(-(across**2) - down**2)[0] * (alpha.max() > 0.5)


def props(nuisance: Nuisance, density: Array, image_px: int) -> Array:
    """Returns the props' colour, from -1 (magenta) over 0 (none) to 1 (green), (B, H, W).

    Each cell of a staggered lattice holds at most one disc or leaf, so that props never touch; a denser scene keeps
    those of a sparser one.

    Args:
        nuisance: of the scenes.
        density: share of the cells that hold a prop, (B,) in [0, 1].
        image_px: side of the picture.
    """
    place = centres(image_px)[None] * nuisance.lattice[:, None]
    down = place + nuisance.lattice_y[:, None]
    row = np.floor(down).astype(int)
    across = (place + nuisance.lattice_x[:, None])[:, None] + 0.5 * (row % 2)[..., None]
    column = np.floor(across).astype(int)
    sizes, kinds, at_x, at_y, angles = _cell_props(nuisance, density)
    cell = (np.arange(len(density))[_COLUMN], row[..., None], column)
    size, angle = sizes[cell], angles[cell]
    dx, dy = across - column - at_x[cell], (down - row)[..., None] - at_y[cell]
    narrow = 1.0 + 1.2 * nuisance.is_leaf[_COLUMN]
    along, aside = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    inside_px = (size - np.sqrt(along**2 + (narrow * aside) ** 2)) * image_px / nuisance.lattice[_COLUMN]
    return kinds[cell] * np.clip(inside_px / narrow + 0.5, 0.0, 1.0) * (size > 0)


def _cell_props(nuisance: Nuisance, density: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Size, colour, place in x and y, and angle of the prop in each cell, (B, C, C) each, in units of a cell."""
    rank, x, y, size, kind = nuisance.cells
    grown = np.clip(4.0 * (0.35 + 0.6 * density[_COLUMN] - 0.9 * rank), 0.0, 1.0)
    sizes = np.sqrt(grown) * (0.2 + 0.8 * density[_COLUMN]) * (0.26 + 0.2 * size)
    kinds = np.where((7.31 * kind) % 1.0 < nuisance.green_share[_COLUMN], 1.0, -1.0)
    room = 0.5 - sizes
    return sizes, kinds, 0.5 + (2 * x - 1) * room, 0.5 + (2 * y - 1) * room, 2 * np.pi * kind
