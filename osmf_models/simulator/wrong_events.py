"""Rows of a simulated shop's logs: right events, and what a real log gets wrong beside them.

Every wrong event is an extra one or another delivery of a right one, so that the market's truth stays exact. Settings
belong in `mess.py`, right events in `events.py`, files in `osmf_pipelines.spark.simulate_logs`.

Shapes: `R` rows of a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.draws import Draws, Index
from osmf_models.simulator.events import DAY_MICROS, MICROS, Impressions, Shop
from osmf_models.simulator.mess import BOT_IMPRESSIONS, CLICK_KINDS, IMPRESSION_KINDS, UNDELIVERED, Mess
from osmf_models.simulator.shapes import Array

NOBODY, NEVER = -1, -1
_BOT_CLICK_SHARE = 0.2
_SKEW_MICROS, _OUTSIDE_MICROS = 600 * MICROS, 90_000 * MICROS
_INSTANT_MICROS = 400_000  # events lie on whole seconds, so that this never reaches the next day
_LATE_DAYS = (0.70, 0.90, 0.97, 1.0)  # cumulative shares of late clicks delivered 1, 2, 3 and 4 days late
_NEVER_ATTRIBUTED = (
    "click delivered twice",
    "click without an impression",
    "click without an impression id",
    "click told in two ways",
)


@dataclass(frozen=True)
class ImpressionRows:
    """Rows of the impression log; every field (R,).

    Attributes:
        kind: place in `IMPRESSION_KINDS`.
        number: in the id, after the kind's letter.
        user: index; -1 for none.
        creative: place of the creative; -1 - place for one of its product that nobody knows.
        position: from 1; 0 is wrong.
        propensity: of the creative.
        micros: when it was shown, as told.
        day_index: of the log that it comes with; -1 where it never comes.
    """

    kind: Index
    number: Index
    user: Index
    creative: Index
    position: Index
    propensity: Array
    micros: Index
    day_index: Index


@dataclass(frozen=True)
class ClickRows:
    """Rows of the click log; every field (R,).

    Attributes:
        kind: place in `CLICK_KINDS`.
        number: in the id, after the kind's letter.
        impression_letter: that the impression's id begins with, as its code point; 0 without an id.
        is_undelivered: whether the impression is never delivered.
        micros: when, as told.
        day_index: of the log that it comes with; -1 where it never comes.
        age_days: from the impression's day to that log's.
    """

    kind: Index
    number: Index
    impression_letter: Index
    is_undelivered: NDArray[np.bool_]
    micros: Index
    day_index: Index
    age_days: Index


_Rows = TypeVar("_Rows", ImpressionRows, ClickRows)
_TWICE = {ImpressionRows: "impression delivered twice", ClickRows: "click delivered twice"}


def impression_rows(shop: Shop, mess: Mess, events: Impressions, day_index: int) -> ImpressionRows:
    """Returns what the logs say of the impressions of a day, this day's and later ones'; the wrong ones among them."""
    draws, count = Draws(shop.seed), len(events.number)
    shown = ImpressionRows(
        np.zeros(count, np.int64),
        events.number,
        events.user,
        events.creative,
        events.position,
        events.propensity,
        events.micros,
        np.full(count, day_index),
    )

    def some(kind: str, share: float) -> ImpressionRows:
        return _as_kind(kind, _take(shown, draws.some(kind, events.number, share)))

    withheld = _is_withheld(shop, mess, events.number, day_index)
    twice = ~withheld & draws.some("impression delivered twice", events.number, mess.duplicate_share)
    comes = ~withheld & (day_index not in mess.missing_days)
    again = comes & draws.some("impression delivered again a day later", events.number, mess.redelivered_share)
    without_user = some("impression without a user", mess.malformed_share)
    unknown = some("impression of an unknown creative", mess.malformed_share)
    nowhere = some("impression at position 0", mess.malformed_share)
    two_ways = some("impression told in two ways", mess.conflict_share)
    skewed = some("impression by a wrong clock", mess.skewed_share)
    return _together(
        replace(shown, day_index=np.where(withheld, NEVER, day_index)),
        _as_kind("impression delivered twice", _take(shown, twice)),
        replace(
            _as_kind("impression delivered again a day later", _take(shown, again)),
            day_index=np.full(again.sum(), day_index + 1),
        ),
        _by_bots(shop, mess, shown, day_index),
        replace(without_user, user=np.full_like(without_user.user, NOBODY)),
        replace(unknown, creative=-1 - unknown.creative),
        replace(nowhere, position=np.zeros_like(nowhere.position)),
        two_ways,
        replace(two_ways, position=two_ways.position + 1),
        replace(skewed, micros=skewed.micros + DAY_MICROS),
    )


def click_rows(shop: Shop, mess: Mess, events: Impressions, day_index: int) -> ClickRows:
    """Returns what the logs say of clicks on the impressions of a day, each with the log that it is delivered in."""
    draws, numbers = Draws(shop.seed), events.number
    is_undelivered = _is_withheld(shop, mess, numbers, day_index) | (day_index in mess.missing_days)

    def clicks(kind: str, which: NDArray[np.bool_], micros: Index, letter: str = "i") -> ClickRows:
        day = _day_of(shop, micros[which])
        return ClickRows(
            np.full(len(day), list(CLICK_KINDS).index(kind)),
            numbers[which],
            np.full(len(day), ord(letter) if letter else 0),
            is_undelivered[which] if letter == "i" else np.full(len(day), day_index in mess.missing_days),
            micros[which],
            day,
            day - day_index,
        )

    def some(kind: str, share: float, micros: Index, letter: str = "i") -> ClickRows:
        return clicks(kind, draws.some(kind, numbers, share), micros, letter)

    right = _late(clicks("click", events.is_clicked, events.clicked_micros), draws, mess.late_share)
    again = _again(_some_of("click delivered again a day later", right, draws, mess.redelivered_share), mess)
    double = _some_of("second click on an impression", right, draws, mess.double_click_share)
    bots = _is_by_bot(shop, mess, numbers) & draws.some("click of a bot", numbers, _BOT_CLICK_SHARE)
    torn = events.is_clicked & draws.some("click told in two ways", numbers, mess.conflict_share)
    two_ways = clicks("click told in two ways", torn, events.micros)
    nameless = events.is_clicked & draws.some("click without an impression id", numbers, mess.malformed_share)
    early = some("click before its impression", mess.skewed_share, events.micros)
    rows = _together(
        right,
        _some_of("click delivered twice", right, draws, mess.duplicate_share),
        again,
        replace(double, micros=double.micros + _INSTANT_MICROS),
        some("click without an impression", mess.orphan_share, events.micros, "o"),
        replace(early, micros=early.micros - _SKEW_MICROS),
        some("click a day after its impression", mess.outside_share, events.micros + _OUTSIDE_MICROS),
        clicks("click of a bot", bots, events.micros + _INSTANT_MICROS, "b"),
        clicks("click without an impression id", nameless, events.micros, ""),
        two_ways,
        replace(two_ways, micros=two_ways.micros + _INSTANT_MICROS),
    )
    is_lost = rows.is_undelivered & (rows.day_index == day_index)
    return replace(rows, day_index=np.where(is_lost, NEVER, rows.day_index))


def count_impressions(rows: ImpressionRows) -> dict[str, int]:
    """Returns how many rows of each kind there are."""
    counts = np.bincount(rows.kind, minlength=len(IMPRESSION_KINDS)).tolist()
    return {kind: count for kind, count in zip(IMPRESSION_KINDS, counts, strict=True) if count}


def count_clicks(rows: ClickRows) -> dict[str, dict[str, int]]:
    """Returns how many rows of each kind there are, by `age_days`; clicks on undelivered impressions are one kind."""
    names = [*CLICK_KINDS, UNDELIVERED]
    can_be_attributed = ~np.isin(rows.kind, [names.index(name) for name in _NEVER_ATTRIBUTED])
    kinds = np.where(rows.is_undelivered & can_be_attributed, names.index(UNDELIVERED), rows.kind)
    found: dict[str, dict[str, int]] = {}
    pairs, counts = np.unique(np.stack([kinds, rows.age_days]), axis=1, return_counts=True)
    for (kind, age), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        found.setdefault(names[kind], {})[str(age)] = count
    return found


def deliveries(rows: _Rows, day_index: int) -> Iterator[tuple[int, str, _Rows]]:
    """Yields the rows by day of delivery and file: `day_index` always, and what comes twice a day in another file."""
    for day in sorted({day_index, *rows.day_index.tolist()}):
        of_day = _take(rows, rows.day_index == day)
        is_second = of_day.kind == _kinds(rows).index(_TWICE[type(rows)])
        yield day, "", _take(of_day, ~is_second)
        if is_second.any():
            yield day, "-again", _take(of_day, is_second)


def _is_withheld(shop: Shop, mess: Mess, numbers: Index, day_index: int) -> NDArray[np.bool_]:
    """Which right impressions a half-delivered day lacks, and clicks of that day with them."""
    return Draws(shop.seed).some("withheld", numbers, 0.5 if day_index in mess.half_days else 0.0)


def _is_by_bot(shop: Shop, mess: Mess, numbers: Index) -> NDArray[np.bool_]:
    """Which impressions a bot sees too: the first of each day."""
    return numbers % shop.impressions_per_day < mess.num_bots * BOT_IMPRESSIONS


def _by_bots(shop: Shop, mess: Mess, shown: ImpressionRows, day_index: int) -> ImpressionRows:
    rows = _as_kind("impression shown to a bot", _take(shown, _is_by_bot(shop, mess, shown.number)))
    bot = rows.number % shop.impressions_per_day // BOT_IMPRESSIONS
    return replace(rows, user=shop.market.population.num_users + day_index * mess.num_bots + bot)


def _late(rows: ClickRows, draws: Draws, share: float) -> ClickRows:
    days = 1 + draws.choice("late days", rows.number, np.array(_LATE_DAYS))
    late = np.where(draws.some("late", rows.number, share), days, 0)
    return replace(rows, day_index=rows.day_index + late, age_days=rows.age_days + late)


def _again(rows: ClickRows, mess: Mess) -> ClickRows:
    """Delivers clicks a day later; where the day before is missing, that is the first time."""
    is_first = np.isin(rows.day_index, mess.missing_days)
    kind = np.where(is_first, _kinds(rows).index("click"), rows.kind)
    return replace(rows, kind=kind, day_index=rows.day_index + 1, age_days=rows.age_days + 1)


def _some_of(kind: str, rows: ClickRows, draws: Draws, share: float) -> ClickRows:
    return _as_kind(kind, _take(rows, draws.some(kind, rows.number, share)))


def _day_of(shop: Shop, micros: Index) -> Index:
    return (micros - shop.midnight_micros(0)) // DAY_MICROS


def _as_kind(kind: str, rows: _Rows) -> _Rows:
    return replace(rows, kind=np.full_like(rows.kind, _kinds(rows).index(kind)))


def _kinds(rows: _Rows) -> list[str]:
    return list(IMPRESSION_KINDS if isinstance(rows, ImpressionRows) else CLICK_KINDS)


def _take(rows: _Rows, which: NDArray[np.bool_]) -> _Rows:
    return replace(rows, **{field.name: getattr(rows, field.name)[which] for field in fields(rows)})


def _together(*parts: _Rows) -> _Rows:
    names = [field.name for field in fields(parts[0])]
    return replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
