"""From a source's events to bronze rows, refused rows and the ledger that accounts for every one of them."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from osmf_pipelines.spark.deduplicate import find_repeated_ids, label_copies
from osmf_pipelines.spark.quarantine import ParsedEvents, as_quarantined
from osmf_pipelines.tables import TABLES

CONFLICT_REASON = "conflicting_duplicate"
_EVENTS = {"bronze_impressions": ("impression_id", "impression"), "bronze_clicks": ("click_id", "click")}
_ADDED = ("ingested_at", "num_user_impressions")


@dataclass(frozen=True)
class IngestedEvents:
    """What came of one kind of events; every parsed event is in exactly one of the last three frames.

    Attributes:
        repeated: the ids that came more than once, and their labelled rows: few; persist both when reading more than
            one of the others, which are made of them.
        bronze: rows of the bronze table, without `ingested_at`.
        quarantined: rows of `quarantined_events`, without `ingested_at`.
        duplicates: further copies of rows in `bronze`.
    """

    repeated: tuple[DataFrame, DataFrame]
    bronze: DataFrame
    quarantined: DataFrame
    duplicates: DataFrame


def ingest_events(parsed: ParsedEvents, table: str) -> IngestedEvents:
    """Returns parsed events with one row per id and source day.

    Grain: every parsed event is in exactly one of three frames. An id that comes again on another source day is told
        apart in `attribute`, so that a day's bronze rows depend on that day alone.

    Args:
        parsed: typed and refused events.
        table: bronze_impressions or bronze_clicks.
    """
    id_column, event_type = _EVENTS[table]
    columns = [name for name in TABLES[table].column_names if name not in _ADDED]
    payload = [name for name in columns if name not in (id_column, "source_date", "source_file")]
    accepted = parsed.accepted.select(*columns, "payload")
    ids = ("source_date", id_column)
    repeated_ids = find_repeated_ids(accepted, ids)
    single, repeated = (
        accepted.join(F.broadcast(repeated_ids), on=list(ids), how=how).select(*accepted.columns)
        for how in ("left_anti", "left_semi")
    )
    labelled = label_copies(repeated, id_columns=ids, payload_columns=payload)
    first, copies, conflicts = (labelled.where(F.col("label") == label) for label in ("first", "copy", "conflict"))
    bronze = single.select(*columns).unionByName(first.select(*columns))
    conflicts = conflicts.withColumn("reasons", F.array(F.lit(CONFLICT_REASON)))
    return IngestedEvents(
        repeated=(repeated_ids, labelled),
        bronze=_count_user_impressions(bronze) if table == "bronze_impressions" else bronze,
        quarantined=parsed.quarantined.unionByName(as_quarantined(conflicts, event_type)),
        duplicates=copies.select(*columns),
    )


def _count_user_impressions(impressions: DataFrame) -> DataFrame:
    of_user_day = Window.partitionBy("source_date", "user_id").rowsBetween(
        Window.unboundedPreceding, Window.unboundedFollowing
    )
    return impressions.withColumn("num_user_impressions", F.count(F.lit(1)).over(of_user_day))


def count_by_day(**frames: DataFrame) -> DataFrame:
    """Returns how many rows each frame has per source day.

    Grain: one row per `source_date`, a column `num_<name>` for each frame; 0 where a frame has none.
    """
    labelled = [frame.select("source_date", F.lit(name).alias("name")) for name, frame in frames.items()]
    union = labelled[0]
    for frame in labelled[1:]:
        union = union.unionByName(frame)
    counts = [F.count(F.when(F.col("name") == name, 1)).alias(f"num_{name}") for name in frames]
    return union.groupBy("source_date").agg(*counts)
