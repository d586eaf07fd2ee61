"""What became of each click, by dictionaries: its impression, and one outcome.

Written from the documented rules of the pipeline, not from its code.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta

from tests.oracle.events import Row

OUTCOMES = {
    "attributed",
    "repeat",
    "outside_window",
    "before_impression",
    "bot",
    "duplicate",
    "conflict",
    "past_lookback",
    "orphan",
}


@dataclass(frozen=True)
class ClickRules:
    """The settings that decide about clicks and bots."""

    attribution_window_hours: int
    click_lookback_days: int
    max_impressions_per_user_day: int


def judge_clicks(impressions: list[Row], clicks: list[Row], rules: ClickRules) -> list[Row]:
    """Returns each click with `event_date`, the day of its impression or None, and `outcome`."""
    shown, same_click = defaultdict(list), defaultdict(list)
    for impression in impressions:
        shown[impression["impression_id"]].append(impression)
    for click in clicks:
        same_click[click["click_id"]].append(click)
    judged, valid = [], defaultdict(list)
    for click in clicks:
        impression = _find_impression(click, shown[click["impression_id"]], rules)
        fault = _find_fault(click, impression, same_click[click["click_id"]], rules)
        row = {**click, "event_date": impression and impression["source_date"], "outcome": fault}
        judged.append(row)
        if fault is None:
            valid[row["event_date"], row["impression_id"]].append(row)
    for rows in valid.values():
        first = min(rows, key=lambda row: (row["clicked_at"], row["click_id"]))
        for row in rows:
            row["outcome"] = "attributed" if row is first else "repeat"
    return judged


def _find_impression(click: Row, shown: list[Row], rules: ClickRules) -> Row | None:
    """The latest impression of that id shown before the click, else the earliest after it."""
    reach = timedelta(days=rules.click_lookback_days + math.ceil(rules.attribution_window_hours / 24))
    near = [row for row in shown if click["source_date"] - reach <= row["source_date"] <= click["source_date"]]
    before = [row for row in near if row["impressed_at"] <= click["clicked_at"]]
    if before:
        return max(before, key=lambda row: row["impressed_at"])
    return min(near, key=lambda row: row["impressed_at"], default=None)


def _find_fault(click: Row, impression: Row | None, same_click: list[Row], rules: ClickRules) -> str | None:
    if impression is None:
        return "orphan"
    day, lookback = impression["source_date"], timedelta(days=rules.click_lookback_days)
    if click["source_date"] > day + lookback:
        return "past_lookback"
    story = (click["impression_id"], click["clicked_at"])
    for other in same_click:
        is_near = day - lookback <= other["source_date"] <= day + lookback
        if is_near and (other["impression_id"], other["clicked_at"]) != story:
            return "conflict"
    for other in same_click:
        if day - lookback <= other["source_date"] < click["source_date"]:
            return "duplicate"
    if impression["num_user_impressions"] > rules.max_impressions_per_user_day:
        return "bot"
    if click["clicked_at"] < impression["impressed_at"]:
        return "before_impression"
    if click["clicked_at"] > impression["impressed_at"] + timedelta(hours=rules.attribution_window_hours):
        return "outside_window"
    return None
