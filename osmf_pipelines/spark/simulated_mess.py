"""What a real log gets wrong, added to a simulated one.

Every wrong event is an extra one, so that the market's truth stays exact. The first letter of an event's id tells what
it is (see `KINDS`), for the tests and for no one else.

Deliveries that come twice or late belong in `simulate_logs`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.spark.simulated_users import Draws

KINDS = {
    "i": "impression",
    "b": "impression shown to a bot",
    "m": "impression without a user",
    "x": "impression told in two ways",
    "c": "click",
    "o": "click without an impression",
    "w": "click before its impression",
}
_BOT_IMPRESSIONS = 1_500
_SKEW_SECONDS = 600
_MICROS = 1_000_000


@dataclass(frozen=True)
class Mess:
    """How much of each; a share is of the day's impressions unless said otherwise.

    Attributes:
        duplicate_share: of impressions and of clicks that are delivered twice.
        late_share: of clicks that are delivered a day later.
        malformed_share: extra impressions without a user.
        conflict_share: extra impressions told in two ways under one id.
        orphan_share: extra clicks whose impression is nowhere.
        skewed_share: extra clicks before their impression.
        num_bots: users a day who see 1,500 pictures each.
    """

    duplicate_share: float = 0.002
    late_share: float = 0.0
    malformed_share: float = 0.0
    conflict_share: float = 0.0
    orphan_share: float = 0.0
    skewed_share: float = 0.0
    num_bots: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (name != "num_bots" and value >= 1):
                raise ValueError(f"{name} is {value}: it must lie in [0, 1), or be a number of bots.")


CLEAN = Mess()
USUAL = Mess(
    late_share=0.02,
    malformed_share=0.002,
    conflict_share=0.0005,
    orphan_share=0.0003,
    skewed_share=0.0003,
    num_bots=3,
)


def wrong_impressions(events: DataFrame, draws: Draws, mess: Mess) -> DataFrame:
    """Returns extra impressions of a day: of bots, without a user, or told in two ways.

    Grain: one row per extra row of the log; columns of `events`, with `prefix` (a key of `KINDS`) and `uid`.

    Args:
        events: the day's impressions, with `prefix` and `uid`.
        draws: of the market.
        mess: how much.
    """
    without_user = _some(events, draws, "malformed", mess.malformed_share).withColumns(
        {"prefix": F.lit("m"), "uid": F.lit(None).cast("string")}
    )
    two_ways = _some(events, draws, "conflict", mess.conflict_share).withColumn("prefix", F.lit("x"))
    other_way = two_ways.withColumn("position", F.col("position") + 1)
    first = events.agg(F.min("number").alias("_first"))
    by_bots = (
        events.join(F.broadcast(first), how="cross")
        .withColumn("_bot", F.floor((F.col("number") - F.col("_first")) / _BOT_IMPRESSIONS).cast("int"))
        .where(F.col("_bot") < mess.num_bots)
        .withColumns({"prefix": F.lit("b"), "uid": F.concat(F.lit("bot"), F.col("_bot").cast("string"))})
        .drop("_first", "_bot")
    )
    return without_user.unionByName(two_ways).unionByName(other_way).unionByName(by_bots)


def wrong_clicks(events: DataFrame, draws: Draws, mess: Mess, first_micros: int) -> DataFrame:
    """Returns extra clicks of a day: without an impression, or before it.

    Grain: one row per extra click: `prefix` of its id, `number`, `imp_prefix` of its impression's id, `clicked_micros`.

    Args:
        events: the day's impressions.
        draws: of the market.
        mess: how much.
        first_micros: the day's midnight, UTC, in microseconds.
    """

    def clicks(name: str, share: float, prefix: str, imp_prefix: str, clicked_micros: Column) -> DataFrame:
        return _some(events, draws, name, share).select(
            F.lit(prefix).alias("prefix"),
            F.col("number"),
            F.lit(imp_prefix).alias("imp_prefix"),
            clicked_micros.alias("clicked_micros"),
        )

    impressed = F.col("impressed_micros")
    orphans = clicks("orphan", mess.orphan_share, "o", "o", impressed)
    early = clicks("skewed", mess.skewed_share, "w", "i", impressed - _SKEW_SECONDS * _MICROS)
    return orphans.unionByName(early.where(F.col("clicked_micros") >= first_micros))


def _some(events: DataFrame, draws: Draws, name: str, share: float) -> DataFrame:
    return events.where(draws.uniform(name, F.col("number")) < share)
