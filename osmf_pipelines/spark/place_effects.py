"""What the place and the day do to clicks, whatever the creative: rates are meant at position 1 on an average day.

Rates of creatives belong in `ctr`.

Source: position-based model, Craswell et al. (2008), "An experimental comparison of click position-bias models", with
creative effects, fitted by alternating maximum likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

_PRIOR_CLICKS = 1.0
_MAX_ITERATIONS = 500
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class PlaceEffects:
    """What multiplies the click rate, whatever the creative.

    Attributes:
        examination_rates: per (slot_type, position), 1 at the lowest position of the most shown slot type.
        day_factors: per day, mean 1 over impressions.
    """

    examination_rates: dict[tuple[str | None, int | None], float]
    day_factors: dict[date, float]


def fit_place_effects(creative_stats_window: DataFrame, *, max_creatives: int = 20_000) -> PlaceEffects:
    """Returns examination rates and day factors: clicks ~ Poisson(impressions * creative * place * day).

    Creatives have effects of their own, so that good creatives in good places are not taken for good places. One
    pseudo-click at factor 1 keeps a place without clicks above 0.

    Grain: any; rows add up. A null slot type or position is a place of its own. Collected to the driver: sums by
        creative, day and place, of the most shown creatives only.

    Args:
        creative_stats_window: `creative_stats` of the days of the window.
        max_creatives: creatives to fit on.

    Raises:
        ValueError: when the window is empty.
    """
    most_shown = (
        creative_stats_window.groupBy("creative_id")
        .agg(F.sum("num_impressions").alias("_shown"))
        .orderBy(F.desc("_shown"), "creative_id")
        .limit(max_creatives)
        .select("creative_id")
    )
    keys = ["creative_id", "event_date", "slot_type", "position"]
    sums = (
        creative_stats_window.join(most_shown, on="creative_id", how="left_semi")
        .groupBy(*keys)
        .agg(F.sum("num_impressions").alias("num_impressions"), F.sum("num_clicks").alias("num_clicks"))
    )
    counts = pd.DataFrame(sums.toPandas())
    if counts.empty:
        raise ValueError("there are no creative_stats in the window: place effects cannot be fitted.")
    return fit_effects(counts)


def count_by_place(creative_stats_window: DataFrame) -> list[tuple[str | None, int | None, int, int]]:
    """Returns (slot_type, position, impressions, clicks) of each place, in order."""
    sums = creative_stats_window.groupBy("slot_type", "position").agg(
        F.sum("num_impressions").alias("num_impressions"), F.sum("num_clicks").alias("num_clicks")
    )
    return [tuple(row) for row in sums.orderBy("slot_type", "position").collect()]


def add_effective_impressions(creative_stats: DataFrame, place_effects: PlaceEffects) -> DataFrame:
    """Returns `creative_stats` with `effective_impression_millis`, impressions times place and day effect, rounded.

    Thousandths as integers, so that sums do not depend on partitioning.

    Grain: as given. A place or day that `place_effects` does not know fails the run.
    """
    spark = creative_stats.sparkSession
    rates = [(*place, rate) for place, rate in place_effects.examination_rates.items()]
    places = spark.createDataFrame(rates, "_slot_type string, _position int, _examination_rate double")
    days = spark.createDataFrame(list(place_effects.day_factors.items()), "_event_date date, _day_factor double")
    is_same_place = F.col("slot_type").eqNullSafe(F.col("_slot_type")) & F.col("position").eqNullSafe(
        F.col("_position")
    )
    effect = _known("_examination_rate") * _known("_day_factor")
    millis = F.round(F.col("num_impressions") * effect * 1000).cast("bigint")
    return (
        creative_stats.join(F.broadcast(places), on=is_same_place, how="left")
        .join(F.broadcast(days), on=F.col("event_date") == F.col("_event_date"), how="left")
        .select(*creative_stats.columns, millis.alias("effective_impression_millis"))
    )


def fit_effects(counts: pd.DataFrame) -> PlaceEffects:
    """Returns the effects, from sums of impressions and clicks per creative, day, slot type and position.

    Args:
        counts: creative_id, event_date, slot_type, position, num_impressions, num_clicks; not empty, in any order.
    """
    counts = counts.sort_values(["creative_id", "event_date", "slot_type", "position"], ignore_index=True)
    creative, _ = pd.factorize(counts["creative_id"])
    day, days = pd.factorize(counts["event_date"], sort=True)
    position = counts["position"].astype(object).where(counts["position"].notna(), None)
    slot_type = counts["slot_type"].astype(object).where(counts["slot_type"].notna(), None)
    pairs = list(zip(slot_type, (None if p is None else int(p) for p in position), strict=True))
    places = sorted(set(pairs), key=lambda pair: (pair[0] or "", pair[1] is None, pair[1] or 0))
    index_of = {pair: index for index, pair in enumerate(places)}
    place = np.array([index_of[pair] for pair in pairs])
    shown, clicked = counts["num_impressions"].to_numpy(dtype=float), counts["num_clicks"].to_numpy(dtype=float)
    reference = _reference_place(places, np.bincount(place, shown).astype(np.float64))
    place_effect, day_effect = np.ones(len(places)), np.ones(len(days))
    for _ in range(_MAX_ITERATIONS):
        before = np.log(np.concatenate([place_effect, day_effect]))
        creative_effect = _ratio(creative, clicked, shown * place_effect[place] * day_effect[day], 0.0)
        place_effect = _ratio(place, clicked, shown * creative_effect[creative] * day_effect[day], _PRIOR_CLICKS)
        place_effect /= place_effect[reference]
        creative_effect = _ratio(creative, clicked, shown * place_effect[place] * day_effect[day], 0.0)
        day_effect = _ratio(day, clicked, shown * creative_effect[creative] * place_effect[place], _PRIOR_CLICKS)
        day_effect /= np.average(day_effect[day], weights=shown)
        if np.abs(np.log(np.concatenate([place_effect, day_effect])) - before).max() < _TOLERANCE:
            break
    return PlaceEffects(
        examination_rates=dict(zip(places, place_effect.tolist(), strict=True)),
        day_factors=dict(zip(days.tolist(), day_effect.tolist(), strict=True)),
    )


def _reference_place(places: list[tuple[str | None, int | None]], shown: NDArray[np.float64]) -> int:
    """The lowest position of the most shown slot type; `places` are sorted, so it comes first among its own."""
    totals: dict[str | None, float] = {}
    for (slot_type, _), amount in zip(places, shown.tolist(), strict=True):
        totals[slot_type] = totals.get(slot_type, 0.0) + amount
    most_shown = max(totals, key=lambda slot_type: totals[slot_type])
    return next(index for index, (slot_type, _) in enumerate(places) if slot_type == most_shown)


def _ratio(
    index: NDArray[np.int64], clicks: NDArray[np.float64], expected: NDArray[np.float64], prior_clicks: float
) -> NDArray[np.float64]:
    """Clicks over expected clicks per index, `prior_clicks` added to both; 0 where nothing is expected."""
    clicks_sum = np.bincount(index, weights=clicks) + prior_clicks
    expected_sum = np.bincount(index, weights=expected) + prior_clicks
    return np.divide(clicks_sum, expected_sum, out=np.zeros_like(clicks_sum), where=expected_sum > 0)


def _known(effect: str) -> Column:
    message = F.lit("creative_stats hold a place or a day that the place effects were not fitted on: fit them again.")
    return F.coalesce(effect, F.raise_error(message))
