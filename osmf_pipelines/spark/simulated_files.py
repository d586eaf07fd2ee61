"""Rows of simulated logs as Parquet files, the same bytes for the same rows.

A file appears under its name when it is whole. Which rows there are belongs in `osmf_models.simulator`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from osmf_models.simulator.events import Shop
from osmf_models.simulator.market import Market, creatives_of
from osmf_models.simulator.mess import CLICK_KINDS, IMPRESSION_KINDS
from osmf_models.simulator.wrong_events import NOBODY, ClickRows, ImpressionRows

SLOT_TYPE = "feed"
_UNKNOWN_CREATIVE = "ad-unknown"
_UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class ShownAds:
    """What rows of an impression log show, by the shop's names; every field (R,).

    Attributes:
        item: product.
        ad: creative.
        experiment, arm, version: of an A/B test and of the model that drew the creative; null where there is none.
    """

    item: pa.Array
    ad: pa.Array
    experiment: pa.Array
    arm: pa.Array
    version: pa.Array


def write_impressions(rows: ImpressionRows, shop: Shop, path: Path, *, is_drifted: bool) -> None:
    """Writes rows of the impression log of a shop that tests nothing.

    Args:
        rows: to write.
        shop: whose creatives they show.
        path: of the file; its folder is made.
        is_drifted: whether the column `ad` has become `advert`.
    """
    market = shop.market
    creatives = np.where(rows.creative < 0, -1 - rows.creative, rows.creative)
    products = creatives // market.num_creatives_per_product
    ads = np.where(rows.creative < 0, len(market.products) * market.num_creatives_per_product, rows.creative)
    none = pa.nulls(len(ads), pa.string())
    item = named(products, [product.product_id for product in market.products])
    ad = named(ads, [*logged_creative_ids(market), _UNKNOWN_CREATIVE])
    write_shown(rows, ShownAds(item, ad, none, none, none), path, ad_column="advert" if is_drifted else "ad")


def write_shown(rows: ImpressionRows, shown: ShownAds, path: Path, *, ad_column: str = "ad") -> None:
    """Writes rows of the impression log, whatever they show.

    Args:
        rows: to write; their creatives are told by `shown`. A propensity that is NaN is null in the file.
        shown: by row.
        path: of the file; its folder is made.
        ad_column: name of the column of creatives.
    """
    columns = {
        "imp_id": _event_ids(rows.kind, rows.number, IMPRESSION_KINDS),
        "uid": user_ids(rows.user),
        "item": shown.item,
        ad_column: shown.ad,
        "ts": _timestamps(rows.micros),
        "pos": pa.array(rows.position, pa.int32()),
        "slot": named(np.zeros(len(rows.number), np.int64), [SLOT_TYPE]),
        "p": pa.array(rows.propensity, from_pandas=True),
        "test": shown.experiment,
        "arm": shown.arm,
        "drawn_by": shown.version,
    }
    write_table(pa.table(columns), path)


def write_clicks(rows: ClickRows, path: Path) -> None:
    """Writes rows of the click log; the file's folder is made."""
    numbers = pa.array(rows.number)
    letters = [chr(int(code)) if code else None for code in np.unique(rows.impression_letter)]
    places = np.searchsorted(np.unique(rows.impression_letter), rows.impression_letter)
    columns = {
        "click": _event_ids(rows.kind, rows.number, CLICK_KINDS),
        "imp_id": pc.binary_join_element_wise(named(places, letters), _digits(numbers, 12), ""),
        "ts": _timestamps(rows.micros),
    }
    write_table(pa.table(columns), path)


def write_table(table: pa.Table, path: Path) -> None:
    """Writes one Parquet file, which nobody sees before it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    pq.write_table(table, unfinished, compression="snappy")
    unfinished.replace(path)


def remove_unfinished(folder: Path) -> None:
    """Removes what a task that was killed left below `folder`."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink()


def user_ids(users: NDArray[np.int64]) -> pa.Array:
    """Returns the shop's ids of users; null for `NOBODY`."""
    known = pa.array(users, mask=users == NOBODY)
    return pc.binary_join_element_wise("u", _digits(known, 9), "")


def _event_ids(kinds: NDArray[np.int64], numbers: NDArray[np.int64], letters: dict[str, str]) -> pa.Array:
    return pc.binary_join_element_wise(named(kinds, list(letters.values())), _digits(pa.array(numbers), 12), "")


def logged_creative_ids(market: Market) -> list[str]:
    """Returns the ids of a market's logged creatives, in the order of its products."""
    return [one.creative_id for product in market.products for one in creatives_of(market, product.product_id)]


def _digits(numbers: pa.Array, width: int) -> pa.Array:
    return pc.utf8_lpad(pc.cast(numbers, pa.string()), width, "0")


def named(places: NDArray[np.int64], names: Sequence[str | None]) -> pa.Array:
    """Returns the name of each place."""
    return pc.take(pa.array(names, pa.string()), pa.array(places))


def _timestamps(micros: NDArray[np.int64]) -> pa.Array:
    return pa.array(micros).cast(pa.timestamp("us", tz="UTC"))
