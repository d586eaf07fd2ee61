"""Random small logs as a team might deliver them, with everything that goes wrong in logs put in on purpose."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import product as every

from tests.oracle.clicks import ClickRules
from tests.oracle.events import Line, Row

FIRST_DAY = date(2026, 3, 1)
BAD_TIMES = ("yesterday", "", "2026-02-30 10:00:00", "2026-03-02 25:00:00", "02/03/2026 10:00", "1772445600")
AGES = ("18-24", "25-34", " 35+ ", None)
CITIES = ("north|east", "south", "x=y", "", " ")
PROPENSITIES = (0.5, 0.64, "0.64", "0.07", 0.3, 1.0, "1", None)
WRITTEN_IN = (UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-5, minutes=-30)))
_TICK = timedelta(microseconds=1)


@dataclass
class Log:
    """The delivered lines of each source day, and what the team knows of users, products and creatives."""

    impressions: dict[date, list[Line]] = field(default_factory=dict)
    clicks: dict[date, list[Line]] = field(default_factory=dict)
    attributes_of_user: dict[str, dict[str, str | None]] = field(default_factory=dict)
    scope_of_product: dict[str, str] = field(default_factory=dict)
    product_of_creative: dict[str, str] = field(default_factory=dict)
    split_of_product: dict[str, str] = field(default_factory=dict)

    def add(self, other: Log) -> None:
        """Takes in another log of other ids."""
        for name in ("impressions", "clicks"):
            for day, lines in getattr(other, name).items():
                getattr(self, name).setdefault(day, []).extend(lines)
        for name in ("attributes_of_user", "scope_of_product", "product_of_creative", "split_of_product"):
            getattr(self, name).update(getattr(other, name))


def draw_log(seed: int, rules: ClickRules) -> Log:
    """Returns a log of 4 to 6 days whose ids all begin with the seed."""
    rng, writer = random.Random(seed), random.Random(f"{seed} as written")
    log = _draw_market(rng, f"{seed}-")
    days = [FIRST_DAY + timedelta(days=number) for number in range(rng.randint(4, 6))]
    log.impressions, log.clicks = {day: [] for day in days}, {day: [] for day in days}
    shown = _draw_impressions(rng, f"{seed}-", days, log)
    _draw_clicks(rng, f"{seed}-", shown, log, rules)
    for lines, id_name, time_name in (
        (log.impressions, "impression_id", "impressed_at"),
        (log.clicks, "click_id", "clicked_at"),
    ):
        for day in days:
            for line in list(lines[day]):
                lines[day] += _draw_copies(rng, line, time_name)
            to_spoil = rng.sample(lines[day], min(len(lines[day]), 8))
            bad = [_spoil(rng, {**line, id_name: f"{line[id_name]}-bad"}, time_name) for line in to_spoil]
            lines[day] += bad
            rng.shuffle(lines[day])
            lines[day] = [_write_nothing(writer, line) for line in lines[day]]
    return log


def draw_groups(seed: int, cells: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Returns the group of each (scope, cell), by the age in it, up to three in a scope; some cells have none."""
    rng = random.Random(seed)
    num_groups = {scope: rng.randint(1, 3) for scope in sorted({scope for scope, _ in cells})}
    ages = sorted({cell.split("|")[0] for _, cell in cells})
    return {
        (scope, cell): f"{scope}/{ages.index(cell.split('|')[0]) % num_groups[scope]}"
        for scope, cell in sorted(set(cells))
        if rng.random() < 0.9
    }


def _draw_market(rng: random.Random, prefix: str) -> Log:
    log = Log()
    for scope in ("shoes", "lamps"):
        for number in range(rng.randint(2, 3)):
            product = f"{prefix}{scope}{number}"
            log.scope_of_product[product] = f"{prefix}{scope}"
            log.product_of_creative |= {f"{product}-c{creative}": product for creative in range(3)}
            split = rng.choice(["train", "train", "train", "validation", "test", None])
            if split:
                log.split_of_product[product] = split
    for number in range(12):  # of 14 users: two are not known
        attributes = {"age": rng.choice(AGES), "home=city": rng.choice(CITIES)}
        log.attributes_of_user[f"{prefix}u{number}"] = attributes
    return log


def _draw_impressions(rng: random.Random, prefix: str, days: list[date], log: Log) -> list[tuple[Row, datetime]]:
    """Puts impressions into the log, and returns them with their times; some ids come again on a later day."""
    users = [f"{prefix}u{number}" for number in range(14)]
    places = list(every(["feed", "banner", None], [1, 2, 3, None, "2"]))
    shown: list[tuple[Row, datetime]] = []
    for day in days:
        ids = {f"{prefix}{day:%d}-{number}" for number in range(rng.randint(40, 60))}
        for name in sorted(ids | {line["impression_id"] for line, _ in shown if rng.random() < 0.08}):
            at = datetime.combine(day, _draw_time(rng), UTC)
            creative = rng.choice(list(log.product_of_creative))
            slot_type, position = rng.choice(places)
            line = {
                "impression_id": name,
                "user_id": rng.choices(users, [4, 2, 2] + [1] * 11)[0],
                "product_id": log.product_of_creative[creative],
                "creative_id": creative,
                "impressed_at": _write_time(rng, at),
                "position": position,
                "slot_type": slot_type,
                "propensity": rng.choice(PROPENSITIES),
                "experiment_id": rng.choice(["e1", None]),
                "arm": rng.choice(["a", None]),
                "model_version": rng.choice(["7", None, None, None]),
            }
            log.impressions[day].append(line)
            shown.append((line, at))
    return shown


def _draw_clicks(
    rng: random.Random, prefix: str, shown: list[tuple[Row, datetime]], log: Log, rules: ClickRules
) -> None:
    """Puts clicks into the log: creatives please ages differently; at awkward times, late, and lost ones."""
    window = timedelta(hours=rules.attribution_window_hours)
    usual = (_TICK * 0, timedelta(seconds=1), timedelta(hours=1), timedelta(hours=5))
    awkward = (-timedelta(seconds=2), -_TICK, window, window + _TICK, window * 1.5)
    taste = {key: rng.choice([0.2, 0.6, 1.0]) for key in every(log.product_of_creative, AGES)}
    number = 0
    for line, at in [*shown, *rng.sample(shown, 8)]:
        age = log.attributes_of_user.get(line["user_id"], {}).get("age")
        rate = taste[line["creative_id"], age] / int(line["position"] or 1)
        for _ in range(rng.choice([1, 1, 1, 2, 3]) if rng.random() < rate else 0):
            number += 1
            clicked_at = at + rng.choice(usual if rng.random() < 0.75 else awkward)
            is_lost = rng.random() < 0.03
            click = {
                "click_id": f"{prefix}k{number}" if rng.random() < 0.95 else f"{prefix}k{rng.randint(1, number)}",
                "impression_id": f"{prefix}lost" if is_lost else line["impression_id"],
                "clicked_at": _write_time(rng, clicked_at),
            }
            days_late = rng.choice([0, 0, 0, 0, 1, 2, 3, 4, 5, 6])
            _deliver(log, click, clicked_at.date() + timedelta(days=days_late))
            if rng.random() < 0.2:  # delivered again, now and then with another story
                again = {
                    **click,
                    "clicked_at": _write_time(rng, clicked_at + rng.choice([_TICK * 0, _TICK * 0, _TICK])),
                }
                _deliver(log, again, clicked_at.date() + timedelta(days=days_late + rng.randint(1, 4)))


def _deliver(log: Log, click: Row, day: date) -> None:
    """A click that the log's last day does not reach is never delivered; one from before the first comes with it."""
    day = max(day, min(log.clicks))
    if day in log.clicks:
        log.clicks[day].append(click)


def _draw_copies(rng: random.Random, line: Row, time_name: str) -> list[Row]:
    """Mostly none; else the same event again, perhaps written otherwise, or another event under its id."""
    kind = rng.random()
    if kind < 0.9:
        return []
    copy = dict(line)
    if kind < 0.95:
        copy[time_name] = _write_time(rng, _read_time(line[time_name]))
        if "position" in copy:
            copy["position"] = str(copy["position"] or 1)
    elif time_name == "clicked_at":
        copy["impression_id"] = rng.choice([f"{line['impression_id']}x", line["impression_id"]])
    else:
        copy[rng.choice(["arm", "slot_type", "user_id"])] = "another"
    return [line] * rng.choice([0, 0, 1]) + [copy]


def _spoil(rng: random.Random, line: Row, time_name: str) -> Line:
    """One thing is wrong with the line."""
    moved = _read_time(line[time_name]) + timedelta(days=rng.choice([7, 30]))
    faults: list[Row] = [{name: None} for name in line if name.endswith("_id") and name != "experiment_id"]
    faults += [{time_name: None}, {time_name: rng.choice(BAD_TIMES)}, {time_name: moved.isoformat(" ")}]
    if "position" in line:
        faults += [{"position": value} for value in (0, "-1", "first", "", "3000000000")]
        faults += [{"propensity": value} for value in (0, 1.7, "-0.5", "NaN", "rare", "")]
        faults += [{"creative_id": "nobody's"}, {"product_id": "another"}]
    fault = rng.choice([*faults, {}])
    return {**line, **fault} if fault else '{"impression_id": "' + rng.choice(["cut off", "\\u00"])


def _write_nothing(rng: random.Random, line: Line) -> Line:
    """What is not there, as different writers leave it."""
    if isinstance(line, str):
        return line
    return {name: rng.choice([None, "", "  "]) if value is None else value for name, value in line.items()}


def _draw_time(rng: random.Random) -> time:
    return rng.choice(
        [
            time(rng.randint(0, 23), rng.randint(0, 59)),
            time(12),
            time(0),
            time(23, 59, 59, 999_999),
            time(9, 5, 1, 250_000),
        ]
    )


def _read_time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _write_time(rng: random.Random, moment: datetime) -> str:
    """The moment in one of the forms that logs have it in; without an offset it is UTC."""
    form = rng.randrange(3)
    if form == 0:
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ")
    if form == 1:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return moment.astimezone(rng.choice(WRITTEN_IN)).isoformat(rng.choice([" ", "T"]))
