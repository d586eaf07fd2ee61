"""From impressions and clicks to exposures: bots out, each click to its impression, users to their cells.

Events repeated within a day and malformed ones are gone before (`deduplicate`, `quarantine`); counting exposures
belongs in `stats`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from osmf_pipelines.tables import TABLES

UNKNOWN = "unknown"


CLICK_OUTCOMES = (
    "attributed",  # the earliest valid click of its impression
    "repeat",  # a later valid one
    "outside_window",  # too long after its impression
    "before_impression",  # a clock is wrong
    "bot",  # its impression was shown to a bot
    "duplicate",  # the same click was delivered on an earlier day
    "conflict",  # another day's log tells another story under the same click id
    "past_lookback",  # delivered when the impression's day was final
    "orphan",  # no such impression
)


def judge_clicks(
    impressions: DataFrame,
    clicks: DataFrame,
    *,
    attribution_window_hours: int,
    click_lookback_days: int,
    max_impressions_per_user_day: int,
) -> DataFrame:
    """Returns the clicks with the day of their impression, `event_date`, and their `outcome`, of `CLICK_OUTCOMES`.

    What becomes of the clicks of a day's impressions depends on that day's impressions and on the clicks delivered from
    `click_lookback_days` before it to as many days after it, on nothing else: days can be judged one by one, in any
    order. An impression id that several days use belongs, for a click, to the latest of them shown before the click.

    Grain: one row per click given; `event_date` is null for orphans.

    Args:
        impressions: `bronze_impressions` of the days that `days_to_read` names.
        clicks: `bronze_clicks` of the days that `days_to_read` names, one row per (source_date, click_id).
        attribution_window_hours: longest time from impression to click.
        click_lookback_days: days after an impression's day in which its clicks may be delivered.
        max_impressions_per_user_day: users above this are taken for bots.
    """
    shown = impressions.select(
        "impression_id",
        F.col("source_date").alias("event_date"),
        "impressed_at",
        (F.col("num_user_impressions") > max_impressions_per_user_day).alias("_is_bot"),
    )
    found = _find_impressions(clicks, shown, click_lookback_days + _in_days(attribution_window_hours))
    is_late = F.date_diff("source_date", "event_date") > click_lookback_days
    delay_micros = F.unix_micros("clicked_at") - F.unix_micros("impressed_at")
    faults = {
        "orphan": F.col("event_date").isNull(),
        "past_lookback": is_late,
        "conflict": _has_copy(click_lookback_days, lambda copy: copy["payload"] != F.col("_payload")),
        "duplicate": _has_copy(
            click_lookback_days,
            lambda copy: (copy["payload"] == F.col("_payload")) & (copy["source_date"] < F.col("source_date")),
        ),
        "bot": F.col("_is_bot"),
        "before_impression": delay_micros < 0,
        "outside_window": delay_micros > attribution_window_hours * 3_600_000_000,
    }
    fault = F.coalesce(*[F.when(condition, F.lit(name)) for name, condition in faults.items()])
    in_order = Window.partitionBy("event_date", "impression_id", "_fault").orderBy("clicked_at", "click_id")
    is_first = F.row_number().over(in_order) == 1
    return found.withColumn("_fault", fault).select(
        *clicks.columns,
        "event_date",
        F.coalesce("_fault", F.when(is_first, "attributed").otherwise("repeat")).alias("outcome"),
    )


def days_to_read(
    days: Iterable[date], *, attribution_window_hours: int, click_lookback_days: int
) -> tuple[tuple[date, ...], tuple[date, ...]]:
    """Returns the days of impressions and the days of clicks to judge `days` with, and every day that they re-open.

    The clicks of `days` touch days of impressions up to the look-back before and after them, which in turn are judged
    by the clicks delivered up to the look-back around them.
    """
    first, last = min(days), max(days) + timedelta(days=2 * click_lookback_days)
    before = click_lookback_days + _in_days(attribution_window_hours)
    return (
        _each_day(first - timedelta(days=before), last),
        _each_day(first - timedelta(days=2 * click_lookback_days), last),
    )


def form_exposures(
    impressions: DataFrame,
    judged_clicks: DataFrame,
    users: DataFrame,
    products: DataFrame,
    *,
    max_impressions_per_user_day: int,
    num_user_folds: int = 5,
    fold_key: str,
) -> DataFrame:
    """Returns `silver_exposures`: impressions of people, each with its click if there is one.

    Grain: one row per impression that no bot saw; clicks never add or remove one. Impressions of a product that is not
        in `products` have no scope and must have been quarantined before: the join is inner. A user who is not in
        `users` has every attribute `unknown`.

    Args:
        impressions: `bronze_impressions` of the days wanted.
        judged_clicks: from `judge_clicks`.
        users: one row per user.
        products: one row per product.
        max_impressions_per_user_day: users above this are taken for bots.
        num_user_folds: folds for held-out users.
        fold_key: secret that makes the fold unpredictable from the id.
    """
    cells = assign_cells(users)
    unknown_cell = cells.where(F.col("user_id").isNull()).select(F.col("cell").alias("_unknown_cell"))
    joined = (
        impressions.where(F.col("num_user_impressions") <= max_impressions_per_user_day)
        .withColumn("event_date", F.col("source_date"))
        .join(products.select("product_id", "scope"), on="product_id", how="inner")
        .join(cells.where(F.col("user_id").isNotNull()), on="user_id", how="left")
        .join(F.broadcast(unknown_cell), how="cross")
    )
    columns = {
        "cell": F.coalesce("cell", "_unknown_cell"),
        "user_fold": F.pmod(F.xxhash64(F.lit(fold_key), F.col("user_id")), F.lit(num_user_folds)).cast("int"),
        "is_clicked": F.lit(False),
        "clicked_at": F.lit(None).cast("timestamp"),
    }
    table = TABLES["silver_exposures"]
    exposures = joined.select(*(columns.get(name, F.col(name)).alias(name) for name in table.column_names))
    return set_clicks(exposures, judged_clicks)


def set_clicks(exposures: DataFrame, judged_clicks: DataFrame) -> DataFrame:
    """Returns exposures with `is_clicked` and `clicked_at` as the judged clicks say, everything else as it was.

    Grain: as given. This is how late clicks re-open a day: its users keep the attributes that they had then.
    """
    is_attributed = F.col("outcome") == "attributed"
    attributed = judged_clicks.where(is_attributed).select("event_date", "impression_id", "clicked_at")
    return (
        exposures.drop("is_clicked", "clicked_at")
        .join(attributed, on=["event_date", "impression_id"], how="left")
        .withColumn("is_clicked", F.col("clicked_at").isNotNull())
        .select(*TABLES["silver_exposures"].column_names)
    )


def days_touched(judged_clicks: DataFrame, source_days: Iterable[date], *, click_lookback_days: int) -> DataFrame:
    """Returns the days of impressions whose clicks the logs of `source_days` may have changed.

    A click touches the day of its impression, and the days of the impressions that other clicks of the same id name;
    both only where the look-back reaches.

    Grain: one row per `event_date`.
    """
    delivered = judged_clicks.where(F.col("source_date").isin(list(source_days))).select(
        "click_id", F.col("source_date").alias("_delivered")
    )
    is_in_reach = F.abs(F.date_diff("_delivered", "event_date")) <= click_lookback_days
    touched = judged_clicks.join(delivered, on="click_id", how="inner").where(is_in_reach)
    return touched.select("event_date").distinct()


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
        "_names", lambda name: F.concat(clean_text(name), F.lit("="), value_or_unknown(F.col("attributes")[name]))
    )
    cell = F.array_join(conditions, "|")
    return (
        users.select("user_id", "attributes")
        .unionByName(nobody)
        .join(F.broadcast(attribute_names), how="cross")
        .select("user_id", F.when(cell == "", UNKNOWN).otherwise(cell).alias("cell"))
    )


def clean_text(text: Column) -> Column:
    """Returns a name or value as cells hold it: bars and equal signs are underscores."""
    return F.regexp_replace(text, r"[|=]", "_")


def value_or_unknown(value: Column) -> Column:
    """Returns a value as cells hold it, without the spaces around it; `unknown` where it is null or empty."""
    return F.when(F.trim(value) != "", clean_text(F.trim(value))).otherwise(UNKNOWN)


def _find_impressions(clicks: DataFrame, shown: DataFrame, num_days: int) -> DataFrame:
    """The clicks with their impression's columns, null for orphans, and what other clicks have the same id."""
    by_id = Window.partitionBy("click_id").rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    payload = F.struct("impression_id", "clicked_at")
    with_copies = clicks.withColumn("_payload", payload).withColumn(
        "_copies", F.collect_list(F.struct("source_date", F.col("_payload").alias("payload"))).over(by_id)
    )
    candidates = with_copies.join(shown, on="impression_id", how="inner").where(
        F.date_diff("source_date", "event_date").between(0, num_days)
    )
    is_before = F.col("impressed_at") <= F.col("clicked_at")
    # The latest impression before the click, or else the earliest after it.
    by_click = Window.partitionBy("source_date", "click_id").orderBy(
        is_before.desc(), F.when(is_before, F.col("impressed_at")).desc(), F.col("impressed_at")
    )
    matched = candidates.withColumn("_rank", F.row_number().over(by_click)).where("_rank = 1").drop("_rank")
    orphans = with_copies.join(
        matched.select("source_date", "click_id"), on=["source_date", "click_id"], how="left_anti"
    )
    return matched.unionByName(orphans, allowMissingColumns=True)


def _has_copy(num_days: int, is_such: Callable[[Column], Column]) -> Column:
    """Whether another click of the same id, delivered within reach of the impression's day, is such."""

    def is_in_reach(copy: Column) -> Column:
        return F.abs(F.date_diff(copy["source_date"], F.col("event_date"))) <= num_days

    return F.exists("_copies", lambda copy: is_in_reach(copy) & is_such(copy))


def _each_day(first: date, last: date) -> tuple[date, ...]:
    return tuple(first + timedelta(days=number) for number in range((last - first).days + 1))


def _in_days(hours: int) -> int:
    return -(-hours // 24)
