"""From a source's events to bronze rows, refused rows and the ledger that accounts for every one of them."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.spark.deduplicate import CONFLICT_REASON, deduplicate_events
from osmf_pipelines.spark.quarantine import ParsedEvents, as_quarantined
from osmf_pipelines.tables import TABLES


@dataclass(frozen=True)
class IngestedEvents:
    """What came of one kind of events.

    Attributes:
        bronze: rows of the bronze table, without `ingested_at`.
        quarantined: rows of `quarantined_events`, without `ingested_at`.
        duplicates: further copies of rows in `bronze`.
    """

    bronze: DataFrame
    quarantined: DataFrame
    duplicates: DataFrame


def ingest_events(parsed: ParsedEvents, table: str) -> IngestedEvents:
    """Returns parsed events with one row per id.

    Grain: every parsed event is in exactly one of the three frames.

    Args:
        parsed: typed and refused events.
        table: bronze_impressions or bronze_clicks.
    """
    id_column, event_type = {
        "bronze_impressions": ("impression_id", "impression"),
        "bronze_clicks": ("click_id", "click"),
    }[table]
    columns = [name for name in TABLES[table].column_names if name != "ingested_at"]
    payload = [name for name in columns if name not in (id_column, "source_date", "source_file")]
    events = deduplicate_events(
        parsed.accepted.select(*columns, "payload"), id_column=id_column, payload_columns=payload
    )
    conflicts = events.conflicts.withColumn("reasons", F.array(F.lit(CONFLICT_REASON)))
    return IngestedEvents(
        bronze=events.unique.select(*columns),
        quarantined=parsed.quarantined.unionByName(as_quarantined(conflicts, event_type)),
        duplicates=events.duplicates.select("source_date"),
    )


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
