"""The first rows of each table under our names, so that a mapping can be judged before a day is ingested."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from osmf_pipelines.sources.mapped import MappedSource
from osmf_pipelines.sources.mapping import TableMapping
from osmf_pipelines.sources.source import quoted
from osmf_pipelines.spark.quarantine import hash_user_id, parse_clicks, parse_impressions

NULL = "null"


@dataclass(frozen=True)
class TablePreview:
    """The first rows of one table.

    Attributes:
        section: of mapping.toml.
        origin: files or table that the rows are from.
        columns: our names.
        their_columns: for each of `columns` the name that it has there, or "" where it is not mapped.
        rows: values of `columns` as text, "null" where there is none; a user's id as its keyed hash.
        reasons: for each row why it would be refused; empty where it would be taken.
    """

    section: str
    origin: str
    columns: tuple[str, ...]
    their_columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    reasons: tuple[tuple[str, ...], ...]


def preview_mapping(
    source: MappedSource, spark: SparkSession, day: date, *, user_key: str, num_rows: int = 20
) -> list[TablePreview]:
    """Returns the first rows of impressions, clicks, users, products, creatives and, where mapped, preference pairs.

    Reads a few rows of each table, and of creatives those that the impressions show.

    Args:
        source: a source with a mapping.
        spark: the session.
        day: of the events and pairs.
        user_key: key of the hash that replaces user ids.
        num_rows: rows of each table, at most.

    Raises:
        ValueError: when a table cannot be read as mapped; it names the file, the column and the remedy.
    """
    mapping = source.mapping
    impressions = _take(source.impressions(spark, day), num_rows)
    clicks = _take(source.clicks(spark, day), num_rows)
    shown = [row["creative_id"] for row in impressions.select(F.col("creative_id").cast("string")).collect()]
    creatives = source.creatives(spark)
    known = creatives.where(F.col("creative_id").isin(shown))
    previews = [
        _preview(
            "impressions",
            mapping.impressions,
            impressions,
            _reasons(parse_impressions(impressions, known, user_key=user_key).quarantined),
            user_key,
        ),
        _preview("clicks", mapping.clicks, clicks, _reasons(parse_clicks(clicks).quarantined), user_key),
        _preview("users", mapping.users, _take(source.users(spark), num_rows), {}, user_key),
        _preview("products", mapping.products, _take(source.products(spark), num_rows), {}, user_key),
        _preview("creatives", mapping.creatives, _take(creatives, num_rows), {}, user_key),
    ]
    pairs = source.ready_pairs(spark, day)
    if mapping.preference_pairs is not None and pairs is not None:
        taken = _take(pairs, num_rows)
        unreadable = taken.where("is_corrupt").withColumn("reasons", F.array(F.lit("unreadable")))
        previews.append(_preview("preference_pairs", mapping.preference_pairs, taken, _reasons(unreadable), user_key))
    return previews


def _take(frame: DataFrame, num_rows: int) -> DataFrame:
    """The first rows, read once and kept on the driver, each with its number as `payload`: reasons find it by that."""
    # A timestamp would pass through this machine's time zone.
    columns = [
        quoted(name).cast("string").alias(name) if type_ == "timestamp" else quoted(name)
        for name, type_ in frame.dtypes
        if name != "payload"
    ]
    taken = frame.limit(num_rows).select(*columns)
    rows = [{**row.asDict(), "payload": str(index)} for index, row in enumerate(taken.collect())]
    return frame.sparkSession.createDataFrame(rows, StructType(taken.schema.fields).add("payload", "string"))


def _reasons(refused: DataFrame) -> dict[str, tuple[str, ...]]:
    """Reasons by the number of the row."""
    return {row["payload"]: tuple(row["reasons"]) for row in refused.select("payload", "reasons").collect()}


def _preview(
    section: str, mapping: TableMapping, taken: DataFrame, reasons: dict[str, tuple[str, ...]], user_key: str
) -> TablePreview:
    their_columns = {field: mapping.columns.get(field, "") for field in mapping.fields}
    attributes = getattr(mapping, "attributes", [])
    if attributes:
        their_columns["attributes"] = ", ".join(attributes)
    values = [F.coalesce(_shown(field, user_key), F.lit(NULL)).alias(field) for field in their_columns]
    rows = sorted(taken.select("payload", *values).collect(), key=lambda row: int(row["payload"]))
    return TablePreview(
        section=section,
        origin=mapping.origin,
        columns=tuple(their_columns),
        their_columns=tuple(their_columns.values()),
        rows=tuple(tuple(row[field] for field in their_columns) for row in rows),
        reasons=tuple(reasons.get(row["payload"], ()) for row in rows),
    )


def _shown(field: str, user_key: str) -> Column:
    return hash_user_id(F.col(field), user_key) if field == "user_id" else F.col(field).cast("string")
