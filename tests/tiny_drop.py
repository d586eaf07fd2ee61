"""A drop folder small enough to be ingested in seconds, with column names of its own.

Two scopes with three products, four creatives each (16 px pictures with masks), users with two attributes; clicks
follow the creative. `Drop` holds the events as rows that a test may change before it writes a day.
"""

from __future__ import annotations

import random
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
columns = {impression_id="imp", user_id="who", product_id="item", creative_id="ad", impressed_at="ts", position="pos"}
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


def make_drop(folder: Path, *, num_days: int, num_impressions: int = 1500, num_users: int = 150, seed: int = 0) -> Drop:
    """Returns a drop whose dimensions are written and whose days are not yet."""
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
            _show(drop, number, count, rng.choice(users), rng.choice(list(creatives)), creatives, rng)
    return drop


def _show(
    drop: Drop, number: int, count: int, user: str, creative: str, creatives: dict[str, str], rng: random.Random
) -> None:
    """One impression and, by chance, its click: usually at once, sometimes across midnight or delivered late."""
    day = drop.day(number)
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=rng.randrange(86_400))
    name = f"i-{number}-{count}"
    row = {"imp": name, "who": user, "item": creatives[creative], "ad": creative, "ts": at, "pos": 1 + count % 3}
    drop.impressions[day].append(row)
    rates = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    if rng.random() < rates[creative[-1]]:
        clicked_at = at + timedelta(seconds=rng.choice([5, 60, 3 * 3600]))
        delivered = clicked_at.date() + timedelta(days=rng.choice([0] * 8 + [1, 2]))
        if delivered in drop.clicks:
            drop.clicks[delivered].append({"click": f"k-{number}-{count}", "imp": name, "ts": clicked_at})


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
