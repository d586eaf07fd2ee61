"""Raw events to bronze rows, by dictionaries: which are refused and why, which copies are one event.

Written from the documented rules of the pipeline, not from its code. What becomes of clicks belongs in `clicks`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

Row = dict[str, Any]
Line = Row | str  # a line of a day's log: an object, or text that is none

_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?")
_NEEDED_BY_IMPRESSIONS = ("impression_id", "user_id", "product_id", "creative_id", "impressed_at")
_NEEDED_BY_CLICKS = ("click_id", "impression_id", "clicked_at")
_OPTIONAL_TEXTS = ("slot_type", "experiment_id", "arm", "model_version")
_PAYLOAD_OF_IMPRESSIONS = (*_NEEDED_BY_IMPRESSIONS[1:], "position", "propensity", *_OPTIONAL_TEXTS)


@dataclass(frozen=True)
class Refusal:
    """One event that was refused on its source day: why, and as it came."""

    source_date: date
    reasons: frozenset[str]
    line: Line


@dataclass
class Ingested:
    """What came of one kind of events; `num_copies` counts further copies of kept rows per source day."""

    kept: list[Row] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    num_copies: Counter[date] = field(default_factory=Counter)


def ingest_impressions(
    lines_of_day: dict[date, list[Line]], product_of_creative: dict[str, str], user_key: str
) -> Ingested:
    """Returns typed impressions with hashed users, defaults filled in, and `num_user_impressions`."""

    def find_faults(row: Row, source_date: date) -> set[str]:
        creative, product, propensity = row["creative_id"], row["product_id"], row["propensity"]
        known = product_of_creative.get(creative)
        faults = {
            "unknown_creative": creative is not None and known is None,
            "creative_of_another_product": None not in (product, known) and product != known,
            "outside_source_date": row["impressed_at"] is not None and row["impressed_at"].date() != source_date,
            "position_below_1": row["position"] is not None and row["position"] < 1,
            "propensity_not_in_0_1": propensity is not None and not 0 < propensity <= 1,
        }
        return {name for name, is_true in faults.items() if is_true}

    parsers = {**dict.fromkeys((*_NEEDED_BY_IMPRESSIONS, *_OPTIONAL_TEXTS), str), "impressed_at": _parse_time}
    parsers |= {"position": _parse_int, "propensity": _parse_float}
    accepted, result = _parse(lines_of_day, parsers, _NEEDED_BY_IMPRESSIONS, find_faults)
    for row, _ in accepted:
        row["user_id"] = hash_user(row["user_id"], user_key)
        row["position"] = 1 if row["position"] is None else row["position"]
        row["slot_type"] = "default" if row["slot_type"] is None else row["slot_type"]
    _keep_one_of_each(accepted, "impression_id", _PAYLOAD_OF_IMPRESSIONS, result)
    of_user_day = Counter((row["source_date"], row["user_id"]) for row in result.kept)
    for row in result.kept:
        row["num_user_impressions"] = of_user_day[row["source_date"], row["user_id"]]
    return result


def ingest_clicks(lines_of_day: dict[date, list[Line]]) -> Ingested:
    """Returns typed clicks; one of an earlier day is a late one, and kept."""

    def find_faults(row: Row, source_date: date) -> set[str]:
        is_after = row["clicked_at"] is not None and row["clicked_at"].date() > source_date
        return {"after_source_date"} if is_after else set()

    parsers = {"click_id": str, "impression_id": str, "clicked_at": _parse_time}
    accepted, result = _parse(lines_of_day, parsers, _NEEDED_BY_CLICKS, find_faults)
    _keep_one_of_each(accepted, "click_id", ("impression_id", "clicked_at"), result)
    return result


def hash_user(user_id: str, user_key: str) -> str:
    """Returns the keyed hash that stands for a user."""
    return hashlib.sha256(f"{user_key}:{user_id}".encode()).hexdigest()[:32]


def _parse(
    lines_of_day: dict[date, list[Line]],
    parsers: dict[str, Callable[[str], Any]],
    needed: tuple[str, ...],
    find_faults: Callable[[Row, date], set[str]],
) -> tuple[list[tuple[Row, Line]], Ingested]:
    """The accepted rows with their lines, and the refusals."""
    accepted, result = [], Ingested()
    for source_date, lines in lines_of_day.items():
        for line in lines:
            told = {} if isinstance(line, str) else line
            given = {name: value for name, value in told.items() if value is not None and str(value).strip()}
            row = {name: parse(str(given[name])) if name in given else None for name, parse in parsers.items()}
            reasons = {f"bad_{name}" for name in parsers if name in given and row[name] is None}
            reasons |= {f"missing_{name}" for name in needed if row[name] is None}
            reasons |= find_faults(row, source_date) | ({"unreadable"} if isinstance(line, str) else set())
            if reasons:
                result.refused.append(Refusal(source_date, frozenset(reasons), line))
            else:
                accepted.append(({"source_date": source_date, **row}, line))
    return accepted, result


def _keep_one_of_each(
    accepted: list[tuple[Row, Line]], id_name: str, payload: tuple[str, ...], result: Ingested
) -> None:
    """Copies that agree leave one row; copies that do not are all refused. An id of another day is another event."""
    same_id = defaultdict(list)
    for row, line in accepted:
        same_id[row["source_date"], row[id_name]].append((row, line))
    for (source_date, _), copies in same_id.items():
        if len({tuple(row[name] for name in payload) for row, _ in copies}) == 1:
            result.kept.append(copies[0][0])
            result.num_copies[source_date] += len(copies) - 1
        else:
            reason = frozenset({"conflicting_duplicate"})
            result.refused += [Refusal(source_date, reason, line) for _, line in copies]


def _parse_time(text: str) -> datetime | None:
    """The moment in UTC, which a text without an offset is in; None for anything but a date and a time of day."""
    if not _TIME.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _parse_int(text: str) -> int | None:
    number = int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else None
    return number if number is not None and -(2**31) <= number < 2**31 else None


def _parse_float(text: str) -> float | None:
    """Not-a-number is a number here, and no probability."""
    try:
        number = float(text)
    except ValueError:
        return None
    return -1.0 if math.isnan(number) else number
