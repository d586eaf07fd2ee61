"""A drop folder small enough to be ingested in seconds, with column names of its own.

Two scopes with three products, four creatives each (16 px pictures with masks), users with two attributes; clicks
follow the creative. No model drew any, which some writers tell by an empty text. `Drop` holds the events as rows that a
test may change before it writes a day.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

FIRST_DAY = date(2026, 3, 2)
SCOPES = ("shoe", "lamp")
MAPPING = """
[impressions]
files = "{date}/impressions.parquet"
[impressions.columns]
impression_id = "imp"
user_id = "who"
product_id = "item"
creative_id = "ad"
impressed_at = "ts"
position = "pos"
model_version = "by"
[clicks]
files = "{date}/clicks.parquet"
columns = {click_id="click", impression_id="imp", clicked_at="ts"}
[users]
files = "users.csv"
columns = {user_id="who"}
attributes = ["age", "city"]
[products]
files = "products.csv"
columns = {product_id="item", scope="category", cutout_path="cutout"}
[creatives]
files = "creatives.csv"
columns = {creative_id="ad", product_id="item", image_path="picture", mask_path="mask"}
"""


@dataclass
class Drop:
    """Events of some days.

    Attributes:
        folder: the drop folder.
        impressions, clicks: rows by source day.
    """

    folder: Path
    impressions: dict[date, list[dict[str, object]]] = field(default_factory=dict)
    clicks: dict[date, list[dict[str, object]]] = field(default_factory=dict)

    def day(self, number: int) -> date:
        """The day with this number, 0 the first."""
        return FIRST_DAY + timedelta(days=number)

    def write(self, *days: date) -> None:
        """Writes these days, all without any named, markers last."""
        for day in days or sorted(self.impressions):
            folder = self.folder / day.isoformat()
            folder.mkdir(parents=True, exist_ok=True)
            for name, rows in (("impressions", self.impressions[day]), ("clicks", self.clicks[day])):
                pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet", coerce_timestamps="us")
            (folder / "_SUCCESS").touch()


def make_drop(
    folder: Path,
    *,
    num_days: int,
    num_impressions: int = 1500,
    num_users: int = 150,
    seed: int = 0,
    delays_seconds: Sequence[int] = (5, 60, 3 * 3600),
    days_late: Sequence[int] = (0,) * 8 + (1, 2),
) -> Drop:
    """Returns a drop whose dimensions are written and whose days are not yet.

    A click comes one of `delays_seconds` after its impression and is delivered one of `days_late` after its day.
    """
    rng = random.Random(seed)
    drop = Drop(folder)
    users = [f"user-{number:04d}" for number in range(num_users)]
    products = {f"{scope}-{number}": scope for scope in SCOPES for number in range(3)}
    creatives = {f"{product}-{letter}": product for product in products for letter in "abcd"}
    _write_dimensions(folder, users, products, creatives, rng)
    for number in range(num_days):
        day = drop.day(number)
        drop.impressions[day], drop.clicks[day] = [], []
    for number in range(num_days):
        for count in range(num_impressions):
            user, creative = rng.choice(users), rng.choice(list(creatives))
            impression = _show(drop, number, count, user, creative, creatives, rng)
            _click(drop, impression, delays_seconds, days_late, rng)
    return drop


def _show(
    drop: Drop, number: int, count: int, user: str, creative: str, creatives: dict[str, str], rng: random.Random
) -> dict[str, object]:
    """One impression."""
    day = drop.day(number)
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=rng.randrange(86_400))
    name = f"i-{number}-{count}"
    row: dict[str, object] = {"imp": name, "who": user, "item": creatives[creative], "ad": creative, "ts": at}
    row |= {"pos": 1 + count % 3, "by": ""}
    drop.impressions[day].append(row)
    return row


def _click(
    drop: Drop,
    impression: dict[str, object],
    delays_seconds: Sequence[int],
    days_late: Sequence[int],
    rng: random.Random,
) -> None:
    """By chance the click of an impression: usually at once, sometimes across midnight or delivered late."""
    rates = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    if rng.random() < rates[str(impression["ad"])[-1]]:
        shown_at, name = impression["ts"], str(impression["imp"])
        assert isinstance(shown_at, datetime)
        clicked_at = shown_at + timedelta(seconds=rng.choice(delays_seconds))
        delivered = clicked_at.date() + timedelta(days=rng.choice(days_late))
        if delivered in drop.clicks:
            drop.clicks[delivered].append({"click": name.replace("i", "k", 1), "imp": name, "ts": clicked_at})


def _write_dimensions(
    folder: Path, users: list[str], products: dict[str, str], creatives: dict[str, str], rng: random.Random
) -> None:
    folder.mkdir(parents=True)
    (folder / "mapping.toml").write_text(MAPPING)
    attributes = [
        {"who": user, "age": rng.choice(["young", "old"]), "city": rng.choice(["north", "south"])} for user in users
    ]
    pd.DataFrame(attributes).to_csv(folder / "users.csv", index=False)
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[4:12, 5:11] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    for product in products:
        pixels = np.dstack([np.full((16, 16, 3), rng.randrange(256), dtype=np.uint8), mask])
        Image.fromarray(pixels).save(folder / f"{product}.png")
    for creative in creatives:
        colour = [rng.randrange(256) for _ in range(3)]
        Image.fromarray(np.full((16, 16, 3), colour, dtype=np.uint8)).save(folder / f"{creative}.png")
    pd.DataFrame(
        [{"item": product, "category": scope, "cutout": f"{product}.png"} for product, scope in products.items()]
    ).to_csv(folder / "products.csv", index=False)
    pd.DataFrame(
        [
            {"ad": creative, "item": product, "picture": f"{creative}.png", "mask": "mask.png"}
            for creative, product in creatives.items()
        ]
    ).to_csv(folder / "creatives.csv", index=False)
