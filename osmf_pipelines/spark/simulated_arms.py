"""A simulated shop that tests pictures on its users: who is shown which arm's, who clicks, and the day's log of it.

Pictures that models drew are creatives like the logged ones: in the log, in the table of creatives, and to the truth,
which goes by their pixels. Draws are those of the shop's other days, so that days of both kinds make one history. Which
arms there are belongs in `osmf_pipelines/bench/closed_loop_round.py`.

Shapes: `N` impressions, `P` products, `C` creatives of the catalogue, `S` most segments of a scope, `G` most groups of
a scope and its root, `M` pictures that an arm chooses among, `V` users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from osmf_models.simulator.drawn import DrawnCreative, drawn_rates, measure_drawn
from osmf_models.simulator.draws import Draws, Index
from osmf_models.simulator.events import Impressions, Shop, draw_clicks, draw_visits, rates_of_day
from osmf_models.simulator.mess import CLEAN
from osmf_models.simulator.shapes import Array
from osmf_models.simulator.wrong_events import click_rows, deliveries, impression_rows
from osmf_pipelines.spark.simulated_files import (
    ShownAds,
    logged_creative_ids,
    named,
    write_clicks,
    write_shown,
    write_table,
)

_CREATIVES = Path("dimensions") / "creatives.parquet"


class Catalogue:
    """Every picture that the shop can show, C of them: the logged ones in the order of the market, then drawn ones.

    Args:
        shop: whose logged creatives these are.
        drawn: each id once.
    """

    def __init__(self, shop: Shop, drawn: Sequence[DrawnCreative]):
        self._shop, self._drawn, market = shop, drawn, shop.market
        logged, names = logged_creative_ids(market), [one.product_id for one in market.products]
        self.ids = [*logged, *(one.creative_id for one in drawn)]
        self.versions: list[str | None] = [*[None] * len(logged), *(one.version for one in drawn)]
        own = np.repeat(np.arange(len(names)), market.num_creatives_per_product)
        self.products: Index = np.concatenate([own, [names.index(one.product_id) for one in drawn]]).astype(np.int64)
        self._measured = measure_drawn(market, drawn)

    def rates(self, day_index: int) -> Array:
        """Returns the true click rate at position 1 of each picture in each segment of its scope, (C, S), else 0."""
        market, day = self._shop.market, self._shop.day(day_index)
        return np.concatenate(
            [rates_of_day(self._shop, day_index), drawn_rates(market, self._drawn, self._measured, day)]
        )

    def write(self, drop: Path) -> None:
        """Adds the drawn pictures to the shop's table of creatives; those that are there stay."""
        there = pq.read_table(drop / _CREATIVES)
        known = set(there["ad"].to_pylist())
        new = [one for one in self._drawn if one.creative_id not in known]
        columns = {
            "ad": [one.creative_id for one in new],
            "item": [one.product_id for one in new],
            "picture": [str(Path(one.image_path).absolute()) for one in new],
            "mask": [f"pictures/masks/{one.product_id}.png" for one in new],
        }
        if new:
            added = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
            write_table(pa.concat_tables([there, added.cast(there.schema)]), drop / _CREATIVES)


@dataclass(frozen=True)
class ServedArm:
    """What some of the users are shown.

    Attributes:
        name: of the arm; None for users who are in no arm.
        share: of the users.
        pictures: places in the catalogue of the pictures of a product for a group, one of which is shown, each as
            often, (P, G, M).
    """

    name: str | None
    share: float
    pictures: Index


@dataclass(frozen=True)
class ShopTest:
    """A shop's A/B test.

    Attributes:
        experiment_id: as the logs tell it.
        arms: shares together 1.
        group_of_user: place of each user's group in each scope, 0 for its root, (V, scopes).
    """

    experiment_id: str
    arms: tuple[ServedArm, ...]
    group_of_user: NDArray[np.int64]

    def arm_of(self, seed: int, users: Index) -> Index:
        """Returns the place of each user's arm: a keyed hash of user and experiment, whatever else happens."""
        cumulative = np.cumsum([arm.share for arm in self.arms])
        return Draws(seed).choice(f"experiment {self.experiment_id}", users, cumulative / cumulative[-1])


@dataclass(frozen=True)
class ServedDay:
    """What was shown on a day, and clicked.

    Attributes:
        day_index: of the shop.
        events: N of them; `creative` is a place in the catalogue, `propensity` NaN where an arm has one picture.
        arm: place of each user's arm, (N,).
    """

    day_index: int
    events: Impressions
    arm: Index

    def exact_rates(self, test: ShopTest) -> dict[str | None, float]:
        """Returns the expected clicks an impression of each arm, by the truth: of the very users and places shown."""
        of_arm = {one.name: self.events.click_rate[self.arm == place] for place, one in enumerate(test.arms)}
        return {name: float(rates.mean()) for name, rates in of_arm.items() if len(rates)}


def draw_served_day(
    shop: Shop, catalogue: Catalogue, test: ShopTest, day_index: int, num_impressions: int
) -> ServedDay:
    """Returns a day of a test.

    Args:
        shop: whose users come.
        catalogue: what there is to show.
        test: what is shown to whom.
        day_index: of the shop.
        num_impressions: N, at most the shop's own of a day.

    Raises:
        ValueError: when the shop has fewer impressions a day: numbers would be those of another day.
    """
    if not 0 < num_impressions <= shop.impressions_per_day:
        raise ValueError(
            f"{num_impressions} impressions: 1 to the shop's {shop.impressions_per_day} a day can be shown."
        )
    visits = draw_visits(shop, day_index * shop.impressions_per_day + np.arange(num_impressions))
    arm = test.arm_of(shop.seed, visits.user)
    group = test.group_of_user[visits.user, shop.scope_of_product[visits.product]]
    creative, propensity = np.zeros(num_impressions, np.int64), np.full(num_impressions, np.nan)
    for place, own in enumerate(test.arms):
        rows = np.flatnonzero(arm == place)
        choices = own.pictures[visits.product[rows], group[rows]]  # (rows, M)
        number = Draws(shop.seed).index("served picture", visits.number[rows], choices.shape[1])
        creative[rows] = choices[np.arange(len(rows)), number]
        if choices.shape[1] > 1:
            propensity[rows] = (choices == creative[rows, None]).mean(axis=1)
    anywhere = np.zeros(num_impressions, np.int64)
    return ServedDay(
        day_index, draw_clicks(shop, catalogue.rates(day_index), visits, creative, propensity, anywhere), arm
    )


def write_served_day(shop: Shop, catalogue: Catalogue, test: ShopTest, served: ServedDay, drop: Path) -> None:
    """Writes the day's log into the drop folder; clicks after midnight into the next day's. `deliver` completes it."""
    events, index, day = served.events, served.day_index, shop.day(served.day_index)
    products, names = [one.product_id for one in shop.market.products], [arm.name for arm in test.arms]
    experiments = [None if name is None else test.experiment_id for name in names]
    shown = ShownAds(
        item=named(catalogue.products[events.creative], products),
        ad=named(events.creative, catalogue.ids),
        experiment=named(served.arm, experiments),
        arm=named(served.arm, names),
        version=named(events.creative, catalogue.versions),
    )
    rows = impression_rows(shop, CLEAN, events, index)
    write_shown(rows, shown, drop / "days" / str(day) / "impressions.parquet" / f"of-{day}.parquet")
    for delivered, _, clicks in deliveries(click_rows(shop, CLEAN, events, index), index):
        write_clicks(clicks, drop / "days" / str(shop.day(delivered)) / "clicks.parquet" / f"of-{day}.parquet")
    catalogue.write(drop)


def deliver(day: date, drop: Path) -> None:
    """Marks a day's log as complete; one that is stays as it was delivered."""
    marker = drop / "days" / str(day) / "_SUCCESS"
    if not marker.is_file():
        marker.touch()
