"""One small shop, delivered as a drop folder: day 2026-03-02, four impressions of which one is good, two clicks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

DAY = date(2026, 3, 2)
IMPRESSIONS = pd.DataFrame(
    {
        "imp": ["i1", "i2", "i3", "i4"],
        "who": ["u1", None, "u1", "u1"],
        "item": ["p1", "p1", "p9", "p1"],
        "ad": ["c1", "c1", "c9", "c1"],
        "ts": ["2026-03-02 10:00:00", "2026-03-02 10:00:00", "2026-03-02 10:00:00", "yesterday"],
        "pos": ["2", "1", "1", "1"],
    }
)
CLICKS = pd.DataFrame({"id": ["k1", "k2"], "imp": ["i1", "i1"], "ts": ["2026-03-02 10:01:00", "2026-03-04 10:00:00"]})
PAIRS = pd.DataFrame(
    {
        "group": ["g1", "g2"],
        "category": ["shoe", "shoe"],
        "item": ["p1", "p1"],
        "better": ["c1", "c2"],
        "worse": ["c2", "c1"],
        "p": ["0.97", "surely"],
    }
)
EVENT_COLUMNS = """
[impressions.columns]
impression_id = "imp"
user_id = "who"
product_id = "item"
creative_id = "ad"
impressed_at = "ts"
position = "pos"
[clicks.columns]
click_id = "id"
impression_id = "imp"
clicked_at = "ts"
"""
DIMENSIONS = """
[users]
files = "users.csv"
columns = {user_id="who"}
attributes = ["age"]
[products]
files = "products.csv"
columns = {product_id="item", scope="category", price="cost"}
[creatives]
files = "creatives.csv"
columns = {creative_id="ad", product_id="item", image_path="picture"}
"""
PAIR_COLUMNS = """
[preference_pairs.columns]
group_id = "group"
scope = "category"
product_id = "item"
chosen_creative_id = "better"
rejected_creative_id = "worse"
chosen_better_probability = "p"
"""
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "parquet": lambda frame, path: frame.to_parquet(path),
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
}


def write_dimensions(folder: Path) -> None:
    """Writes one user, product and creative as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"who": ["u1"], "age": ["18-24"]}).to_csv(folder / "users.csv", index=False)
    pd.DataFrame({"item": ["p1"], "category": ["shoe"], "cost": ["9.5"]}).to_csv(folder / "products.csv", index=False)
    creatives = pd.DataFrame({"ad": ["c1", "c2"], "item": ["p1", "p1"], "picture": ["a.png", "s3://shop/b.png"]})
    creatives.to_csv(folder / "creatives.csv", index=False)


def write_drop(folder: Path, suffix: str = "csv", above: str = "") -> Path:
    """Writes the shop's drop folder; `above` is put at the top of mapping.toml."""
    write_dimensions(folder)
    events = "".join(f'[{name}]\nfiles = "{{date}}/{name}*.{suffix}"\n' for name in ("impressions", "clicks"))
    (folder / "mapping.toml").write_text(above + events + EVENT_COLUMNS + DIMENSIONS)
    (folder / str(DAY)).mkdir()
    WRITERS[suffix](IMPRESSIONS, folder / str(DAY) / f"impressions.{suffix}")
    WRITERS[suffix](CLICKS, folder / str(DAY) / f"clicks.{suffix}")
    (folder / str(DAY) / "_SUCCESS").touch()
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replaces a text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """The shop's drop folder, in CSV."""
    return write_drop(tmp_path / "drop")
