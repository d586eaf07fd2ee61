"""A team's own products for the simulated market, read from a folder: a table and one cut-out per product.

The folder comes from outside, so nothing in it is believed: each file is checked before it is decoded, and all of them
before any product is used. How a cut-out is placed and drawn does not belong here, nor what the market does with it.
"""

from __future__ import annotations

import base64
import csv
import io
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from osmf_models.simulator.products import (
    OWN_VARIANT,
    PRICE_BANDS,
    Product,
    draw_base_rate,
    draw_placement,
    nearest_colour_name,
)
from osmf_models.simulator.shapes import Colour

TABLE_NAME = "products.csv"
COLUMNS = ("file", "category", "title", "price")

_FORMATS = ("PNG", "WEBP")
_MAX_BYTES = 20 * 1024**2
_MAX_TABLE_BYTES = 4 * 1024**2
_MAX_PIXELS = 64 * 1000**2
_MAX_STORED_PX = 256
_CATEGORY = re.compile(r"[a-z0-9_]{1,40}")
_OPAQUE, _CLEAR = 250, 5  # alpha from which a pixel counts as solid, and up to which as free, of 255


@dataclass(frozen=True)
class _Row:
    """One checked row of the table; `place` says where it stands, for messages."""

    place: str
    path: Path
    category: str
    title: str
    price: float


@dataclass(frozen=True)
class _CutOut:
    """A decoded cut-out: its PNG as base64, and the mean colour of its solid pixels, RGB in [0, 1]."""

    png: str
    colour: Colour


def read_own_products(folder: Path, seed: int, base_rate: float) -> tuple[Product, ...]:
    """Returns the products of a folder with `products.csv` and the cut-outs that it names, in the table's order.

    Args:
        folder: holds `products.csv` with the columns file, category, title and price, and RGBA PNG or WebP files.
        seed: of the market; decides placements and base rates.
        base_rate: median click rate of the market's products, in (0, 1).

    Raises:
        ValueError: for anything that is missing, malformed or unsafe, with the file, its row and the remedy.
    """
    rows = _read_table(folder)
    cut_outs = [_read_cut_out(row) for row in rows]
    products: list[Product] = []
    for row, cut_out in zip(rows, cut_outs, strict=True):
        number = sum(product.scope == row.category for product in products)
        prices = [other.price for other in rows if other.category == row.category]
        products.append(_product(row, cut_out, number, _price_band(row.price, prices), seed, base_rate))
    return tuple(products)


def _product(row: _Row, cut_out: _CutOut, number: int, price_band: str, seed: int, base_rate: float) -> Product:
    rng = np.random.default_rng([seed, number, *row.category.encode()])
    return Product(
        product_id=f"{row.category}-{number:03d}",
        scope=row.category,
        title=row.title,
        price=row.price,
        price_band=price_band,
        attributes=(("colour", nearest_colour_name(cut_out.colour)),),
        base_rate=draw_base_rate(rng, base_rate),
        variant=OWN_VARIANT,
        colour=cut_out.colour,
        accent=cut_out.colour,
        proportions=(0.0, 0.0, 0.0),
        placement=draw_placement(rng),
        cutout_png=cut_out.png,
    )


def _price_band(price: float, prices: list[float]) -> str:
    """Returns the band by terciles of the category's prices; equal prices share a band."""
    rank = sum(other < price for other in prices)
    return PRICE_BANDS[len(PRICE_BANDS) * rank // len(prices)]


def _read_table(folder: Path) -> list[_Row]:
    path = folder / TABLE_NAME
    _check_file(path, path.name, folder, _MAX_TABLE_BYTES)
    try:
        lines = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(lines, newline=""), strict=True)
        missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
        table = [(reader.line_num, record) for record in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV table in UTF-8 ({error}); export it again as CSV UTF-8.") from error
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; its first line must be {','.join(COLUMNS)}.")
    if not table:
        raise ValueError(f"{path} has no rows; add one line per product.")
    rows = [_checked_row(record, f"{path}, line {line}", folder) for line, record in table]
    _check_duplicates(rows)
    return rows


def _checked_row(record: dict[str, str | None], place: str, folder: Path) -> _Row:
    if None in record or any(record[column] is None for column in COLUMNS):
        raise ValueError(f"{place}: the number of values differs from the header; quote titles that contain a comma.")
    name, category, title, price = (" ".join((record[column] or "").split()) for column in COLUMNS)
    if not _CATEGORY.fullmatch(category):
        raise ValueError(f"{place}: category {category!r} must be made of at most 40 of a-z, 0-9 and _; rename it.")
    if not title:
        raise ValueError(f"{place}: the title is empty; give the product a title.")
    if not title.isprintable():
        raise ValueError(f"{place}: the title {title!r} holds what cannot be printed; give the product another.")
    if not name or not name.isprintable():
        raise ValueError(f"{place}: {name!r} is no file name; name a PNG or WebP file in {folder}.")
    path = folder / name
    _check_file(path, f"{place}: {name}", folder, _MAX_BYTES)
    return _Row(place, path, category, title, _checked_price(price, place))


def _checked_price(text: str, place: str) -> float:
    try:
        price = float(text)
    except ValueError as error:
        raise ValueError(
            f"{place}: price {text!r} is not a number; write it like 19.99, without a currency."
        ) from error
    if not math.isfinite(price) or price <= 0:
        raise ValueError(f"{place}: price {text!r} must be above 0 and finite; correct it.")
    return price


def _check_duplicates(rows: list[_Row]) -> None:
    first: dict[tuple[str, object], str] = {}
    for row in rows:
        for key in (("file", row.path.resolve()), ("title", (row.category, row.title))):
            if key in first:
                raise ValueError(
                    f"{row.place}: the same {key[0]} as in {first[key]}; remove one or change its {key[0]}."
                )
            first[key] = row.place


def _check_file(path: Path, name: str, folder: Path, max_bytes: int) -> None:
    """Refuses what is missing, lies outside the folder, is reached through a link or is too large to read."""
    root = folder.resolve()
    if not path.is_relative_to(folder) or ".." in path.relative_to(folder).parts:
        raise ValueError(f"{name} lies outside {folder}; copy the file into the folder and name it by its place there.")
    inside = path.resolve()
    if inside != root / path.relative_to(folder):
        raise ValueError(f"{name} is reached through a symbolic link; copy the file itself into {folder}.")
    if not inside.is_file():
        raise ValueError(f"{name} is no file in {folder}; add it or correct its name.")
    if inside.stat().st_size > max_bytes:
        raise ValueError(f"{name} is larger than {max_bytes // 1024**2} MB; make it smaller.")


def _read_cut_out(row: _Row) -> _CutOut:
    name = f"{row.place}: {row.path.name}"
    picture = _decode(row.path.read_bytes(), name)
    alpha = np.asarray(picture.getchannel("A"))
    if not (alpha >= _OPAQUE).any() or not (alpha <= _CLEAR).any():
        raise ValueError(f"{name} needs something opaque and something transparent; cut the product out.")
    box = Image.fromarray(np.where(alpha > _CLEAR, alpha, 0).astype(np.uint8)).getbbox()
    picture = picture.crop(box)
    picture.thumbnail((_MAX_STORED_PX, _MAX_STORED_PX), Image.Resampling.LANCZOS, reducing_gap=None)
    values = np.asarray(picture, dtype=np.float64) / 255.0
    solid = values[values[..., 3] >= _OPAQUE / 255.0]
    if not len(solid):
        raise ValueError(
            f"{name} has too few opaque pixels at {_MAX_STORED_PX} px; use a cut-out with a solid product."
        )
    red, green, blue = (round(float(channel), 4) for channel in solid[:, :3].mean(0))
    stored = io.BytesIO()
    picture.save(stored, format="PNG")
    return _CutOut(base64.b64encode(stored.getvalue()).decode("ascii"), (red, green, blue))


def _decode(content: bytes, name: str) -> Image.Image:
    """Returns the picture as RGBA; its header is judged before any pixel is decoded."""
    picture = _or_refused(lambda: Image.open(io.BytesIO(content), formats=_FORMATS), name)
    _check_header(picture, name)
    return _or_refused(lambda: picture.convert("RGBA"), name)


def _or_refused(decode: Callable[[], Image.Image], name: str) -> Image.Image:
    """Pillow's answer, or its many ways to fail on a malformed file as the one that names the file."""
    try:
        return decode()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be decoded as PNG or WebP ({error}); export it again.") from error


def _check_header(picture: Image.Image, name: str) -> None:
    width, height = picture.size
    if width * height > _MAX_PIXELS:
        raise ValueError(f"{name} has {width} x {height} pixels, more than {_MAX_PIXELS // 1000**2} Mpx; shrink it.")
    if getattr(picture, "n_frames", 1) > 1:
        raise ValueError(f"{name} is animated; export one still frame.")
    if picture.mode != "RGBA":
        raise ValueError(
            f"{name} has no alpha channel (mode {picture.mode}); export it as RGBA with a free background."
        )
