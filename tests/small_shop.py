"""A drop folder of a shop so small that every count is known: 60 users, 8 products, two pictures each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

NUM_USERS, NUM_PRODUCTS, PICTURE_PX = 60, 8, 16
# Of 60 users who see both pictures of a product, 30 click the warm one and 3 the cold one.
CLICKED_EVERY = {"warm": 2, "cold": 20}
NUM_IMPRESSIONS = NUM_USERS * NUM_PRODUCTS * len(CLICKED_EVERY)
NUM_CLICKS = NUM_PRODUCTS * (30 + 3)

_MAPPING = """\
[impressions]
files = "days/{date}/shown.csv"
[impressions.columns]
impression_id = "nr"
user_id = "person"
product_id = "article"
creative_id = "banner"
impressed_at = "at"

[clicks]
files = "days/{date}/clicked.csv"
columns = { click_id = "nr", impression_id = "shown_nr", clicked_at = "at" }

[users]
files = "people.csv"
columns = { user_id = "person" }
attributes = ["age"]

[products]
files = "articles.csv"
columns = { product_id = "article", scope = "shelf", title = "name", price = "euro", cutout_path = "cutout" }

[creatives]
files = "banners.csv"
columns = { creative_id = "banner", product_id = "article", image_path = "picture", mask_path = "mask" }
"""


def write_small_shop(drop: Path, days: Sequence[date]) -> None:
    """Writes the shop into `drop`: CSV with column names of its own, PNG pictures, complete logs of `days`."""
    (drop / "pictures").mkdir(parents=True)
    (drop / "mapping.toml").write_text(_MAPPING)
    for index in range(NUM_PRODUCTS):
        _draw_product(drop / "pictures", index)
    articles = [
        (f"a{index}", "mugs", f"mug number {index}", 5.0 + index, f"pictures/cutout-{index}.png")
        for index in range(NUM_PRODUCTS)
    ]
    banners = [
        (f"a{index}-{style}", f"a{index}", f"pictures/{style}-{index}.png", f"pictures/mask-{index}.png")
        for index in range(NUM_PRODUCTS)
        for style in CLICKED_EVERY
    ]
    people = [(f"p{user}", "young" if user % 2 else "old") for user in range(NUM_USERS)]
    _write(drop / "articles.csv", articles, "article shelf name euro cutout")
    _write(drop / "banners.csv", banners, "banner article picture mask")
    _write(drop / "people.csv", people, "person age")
    for day in days:
        _write_day(drop / "days" / str(day), day)


def _draw_product(folder: Path, index: int) -> None:
    """A square in the middle, of a grey of its own, on a warm and on a cold ground."""
    inside = np.zeros((PICTURE_PX, PICTURE_PX), dtype=bool)
    inside[4:12, 4:12] = True
    cutout = np.zeros((PICTURE_PX, PICTURE_PX, 4), dtype=np.uint8)
    cutout[inside] = (60 + 20 * index,) * 3 + (255,)
    Image.fromarray(cutout).save(folder / f"cutout-{index}.png")
    Image.fromarray(cutout[..., 3].copy()).save(folder / f"mask-{index}.png")
    for style, ground in {"warm": (220, 120 + 10 * index, 40), "cold": (40, 120 + 10 * index, 220)}.items():
        picture = np.where(inside[..., None], cutout[..., :3], np.array(ground, dtype=np.uint8))
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{style}-{index}.png")


def _write_day(folder: Path, day: date) -> None:
    shown, clicked = [], []
    for user in range(NUM_USERS):
        for index in range(NUM_PRODUCTS):
            for style, every in CLICKED_EVERY.items():
                nr = f"{day}-{len(shown)}"
                shown.append((nr, f"p{user}", f"a{index}", f"a{index}-{style}", f"{day} 10:{user:02d}:00"))
                if user % every == 0:
                    clicked.append((f"c{nr}", nr, f"{day} 10:{user:02d}:30"))
    folder.mkdir(parents=True)
    _write(folder / "shown.csv", shown, "nr person article banner at")
    _write(folder / "clicked.csv", clicked, "nr shown_nr at")
    (folder / "_SUCCESS").touch()


def _write(path: Path, rows: list[tuple[object, ...]], columns: str) -> None:
    pd.DataFrame(rows, columns=columns.split()).to_csv(path, index=False)
