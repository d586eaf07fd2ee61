"""Exposures, their daily sums and the ledgers, by dictionaries.

Written from the documented rules of the pipeline, not from its code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import ROUND_HALF_UP, Decimal

from tests.oracle.clicks import ClickRules
from tests.oracle.events import Ingested, Row

STATS_KEYS = ("event_date", "scope", "cell", "user_fold", "product_id", "creative_id", "slot_type", "position")
EXPOSURE_COLUMNS = (
    "impression_id",
    "user_id",
    "product_id",
    "creative_id",
    "impressed_at",
    "position",
    "slot_type",
    "propensity",
    "experiment_id",
    "arm",
    "model_version",
)


def form_exposures(
    impressions: list[Row],
    judged_clicks: list[Row],
    attributes_of_user: dict[str, dict[str, str | None]],
    scope_of_product: dict[str, str],
    rules: ClickRules,
) -> list[Row]:
    """Returns every impression that no bot saw, with its user's cell and its click."""
    clicked_at = {
        (click["event_date"], click["impression_id"]): click["clicked_at"]
        for click in judged_clicks
        if click["outcome"] == "attributed"
    }
    names = sorted({name for attributes in attributes_of_user.values() for name in attributes})
    exposures = []
    for row in impressions:
        if row["num_user_impressions"] > rules.max_impressions_per_user_day:
            continue
        click_time = clicked_at.get((row["source_date"], row["impression_id"]))
        exposures.append(
            {
                **{name: row[name] for name in EXPOSURE_COLUMNS},
                "event_date": row["source_date"],
                "scope": scope_of_product[row["product_id"]],
                "cell": name_cell(attributes_of_user.get(row["user_id"], {}), names),
                "is_clicked": click_time is not None,
                "clicked_at": click_time,
            }
        )
    return exposures


def name_cell(attributes: dict[str, str | None], names: list[str]) -> str:
    """Returns `name=value` of every attribute, joined by bars; a missing or blank value is unknown."""
    conditions = []
    for name in names:
        value = (attributes.get(name) or "").strip(" ") or "unknown"
        conditions.append("=".join(text.replace("|", "_").replace("=", "_") for text in (name, value)))
    return "|".join(conditions) or "unknown"


def sum_exposures(exposures: list[Row], fold_of_user: dict[str, int]) -> list[Row]:
    """Returns `creative_stats`: the sums of each day, cell, fold, creative and place, of what no model drew."""
    behind = defaultdict(list)
    for exposure in exposures:
        if exposure["model_version"] is not None:
            continue
        keyed = {**exposure, "user_fold": fold_of_user.get(exposure["user_id"])}
        behind[tuple(keyed[name] for name in STATS_KEYS)].append(exposure)
    stats = []
    for key, rows in behind.items():
        propensities = [row["propensity"] for row in rows]
        stats.append(
            {
                **dict(zip(STATS_KEYS, key, strict=True)),
                "num_impressions": len(rows),
                "num_clicks": sum(row["is_clicked"] for row in rows),
                "inverse_propensity_millis": None
                if None in propensities
                else sum(round_half_up(1000 / propensity) for propensity in propensities),
            }
        )
    return stats


def round_half_up(value: float) -> int:
    """Returns the nearest integer, halves away from zero."""
    return int(Decimal(repr(value)).quantize(Decimal(1), ROUND_HALF_UP))


def ingest_ledger(impressions: Ingested, clicks: Ingested) -> Counter:
    """Returns how many events of each (source_date, event_type) were kept, deduplicated or quarantined."""
    ledger: Counter = Counter()
    for event_type, ingested in (("impression", impressions), ("click", clicks)):
        ledger.update((row["source_date"], event_type, "kept") for row in ingested.kept)
        ledger.update((refusal.source_date, event_type, "quarantined") for refusal in ingested.refused)
        for day, num_copies in ingested.num_copies.items():
            ledger[day, event_type, "deduplicated"] += num_copies
    return +ledger


def attribution_ledger(impressions: list[Row], judged_clicks: list[Row], rules: ClickRules) -> Counter:
    """Returns how many bronze rows of each (source_date, event_type) came to which outcome."""
    ledger: Counter = Counter()
    for row in impressions:
        is_bot = row["num_user_impressions"] > rules.max_impressions_per_user_day
        ledger[row["source_date"], "impression", "bot" if is_bot else "exposure"] += 1
    ledger.update((click["source_date"], "click", click["outcome"]) for click in judged_clicks)
    return ledger
