"""From impressions and clicks to exposures: bots out, each click to its impression, users to their cells.

Repeated and malformed events are gone before (`deduplicate`, `quarantine`); counting exposures belongs in `stats`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from osmf_pipelines.tables import TABLES

UNKNOWN = "unknown"


@dataclass(frozen=True)
class BotFilter:
    """Impressions and clicks, each in exactly one of two frames; columns as given."""

    impressions: DataFrame
    clicks: DataFrame
    bot_impressions: DataFrame
    bot_clicks: DataFrame


@dataclass(frozen=True)
class AttributedClicks:
    """What came of impressions and clicks.

    Attributes:
        exposures: schema `silver_exposures`.
        click_ledger: every click given, with `outcome`: attributed, repeat (a later valid click of the same
            impression), outside_window (after the window, or before its impression) or orphan (no such impression).
    """

    exposures: DataFrame
    click_ledger: DataFrame


def filter_bots(impressions: DataFrame, clicks: DataFrame, *, max_impressions_per_user_day: int) -> BotFilter:
    """Returns the events without those of users who saw more than a person can on that day (UTC).

    Grain: one row per event given. A null `user_id` is nobody's and is kept. Clicks follow their impression; an orphan
        click is kept.
    """
    of_user_day = Window.partitionBy("user_id", F.to_date("impressed_at")).rowsBetween(
        Window.unboundedPreceding, Window.unboundedFollowing
    )
    counted = impressions.withColumn("_num_impressions", F.count("user_id").over(of_user_day))
    is_bot = F.col("_num_impressions") > max_impressions_per_user_day
    bots = counted.where(is_bot).select(*impressions.columns)
    bot_ids = bots.select("impression_id").distinct()
    return BotFilter(
        impressions=counted.where(~is_bot).select(*impressions.columns),
        clicks=clicks.join(bot_ids, on="impression_id", how="left_anti").select(*clicks.columns),
        bot_impressions=bots,
        bot_clicks=clicks.join(bot_ids, on="impression_id", how="left_semi").select(*clicks.columns),
    )


def attribute_clicks(
    impressions: DataFrame,
    clicks: DataFrame,
    users: DataFrame,
    products: DataFrame,
    *,
    attribution_window_hours: int,
    num_user_folds: int = 5,
    fold_key: str,
) -> AttributedClicks:
    """Returns exposures and what became of every click; the earliest valid click of an impression wins.

    A click is valid when impressed_at <= clicked_at <= impressed_at + window; equal times go to the smaller `click_id`.

    Grain: exposures have one row per impression; clicks never add or remove one. Impressions of a product that is not
        in `products` have no scope and must have been quarantined before: the join is inner. A user who is not in
        `users` has every attribute `unknown`.

    Args:
        impressions: bronze_impressions of the days refreshed, one row per `impression_id`.
        clicks: bronze_clicks of those days and of the following ones inside the window, one row per `click_id`. A click
            whose impression is of a day that is not given counts as an orphan here.
        users: one row per user.
        products: one row per product.
        attribution_window_hours: longest time from impression to click.
        num_user_folds: folds for held-out users.
        fold_key: secret that makes the fold unpredictable from the id.
    """
    ledger = _judge_clicks(impressions, clicks, attribution_window_hours)
    first_clicks = ledger.where(F.col("outcome") == "attributed").select("impression_id", "clicked_at")
    cells = assign_cells(users)
    unknown_cell = cells.where(F.col("user_id").isNull()).select(F.col("cell").alias("_unknown_cell"))
    joined = (
        impressions.join(first_clicks, on="impression_id", how="left")
        .join(products.select("product_id", "scope"), on="product_id", how="inner")
        .join(cells.where(F.col("user_id").isNotNull()), on="user_id", how="left")
        .join(F.broadcast(unknown_cell), how="cross")
    )
    columns = {
        "event_date": F.to_date("impressed_at"),
        "cell": F.coalesce("cell", "_unknown_cell"),
        "user_fold": F.pmod(F.xxhash64(F.lit(fold_key), F.col("user_id")), F.lit(num_user_folds)).cast("int"),
        "is_clicked": F.col("clicked_at").isNotNull(),
    }
    table = TABLES["silver_exposures"]
    exposures = joined.select(*(columns.get(name, F.col(name)).alias(name) for name in table.column_names))
    return AttributedClicks(exposures, ledger.select(*clicks.columns, "outcome"))


def assign_cells(users: DataFrame) -> DataFrame:
    """Returns the cell of each user, and in one row with null `user_id` the cell of a user who is not known.

    Every cell names every attribute that occurs in `users`, sorted, as `name=value` joined by bars; a missing or empty
    value is `unknown`, and bars and equal signs in names and values become underscores. Without any attribute the cell
    is `unknown`.

    Grain: one row per user given, plus one.
    """
    attribute_names = users.select(F.explode(F.map_keys("attributes")).alias("name")).agg(
        F.sort_array(F.collect_set("name")).alias("_names")
    )
    nobody = users.sparkSession.range(1).select(
        F.lit(None).cast("string").alias("user_id"), F.lit(None).cast("map<string,string>").alias("attributes")
    )
    conditions = F.transform(
        "_names", lambda name: F.concat(_clean(name), F.lit("="), _value(F.col("attributes")[name]))
    )
    cell = F.array_join(conditions, "|")
    return (
        users.select("user_id", "attributes")
        .unionByName(nobody)
        .join(F.broadcast(attribute_names), how="cross")
        .select("user_id", F.when(cell == "", UNKNOWN).otherwise(cell).alias("cell"))
    )


def _judge_clicks(impressions: DataFrame, clicks: DataFrame, attribution_window_hours: int) -> DataFrame:
    """The clicks with `outcome`; one row per click."""
    shown = impressions.select("impression_id", "impressed_at")
    delay_seconds = F.unix_micros("clicked_at") - F.unix_micros("impressed_at")
    is_orphan = F.col("impressed_at").isNull()
    is_valid = F.coalesce(delay_seconds.between(0, attribution_window_hours * 3_600_000_000), F.lit(False))
    in_order = Window.partitionBy("impression_id", "_is_valid").orderBy("clicked_at", "click_id")
    is_first = F.row_number().over(in_order) == 1
    return (
        clicks.join(shown, on="impression_id", how="left")
        .withColumn("_is_valid", is_valid)
        .withColumn(
            "outcome",
            F.when(is_orphan, "orphan")
            .when(~F.col("_is_valid"), "outside_window")
            .when(is_first, "attributed")
            .otherwise("repeat"),
        )
    )


def _clean(text: Column) -> Column:
    return F.regexp_replace(text, r"[|=]", "_")


def _value(value: Column) -> Column:
    return F.when(F.trim(value) != "", _clean(F.trim(value))).otherwise(UNKNOWN)
