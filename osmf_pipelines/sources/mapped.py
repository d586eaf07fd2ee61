"""What sources with a `mapping.toml` have in common: each section read, and its columns under our names.

Which days there are belongs in `files.py` and `table.py`.
"""

from __future__ import annotations

from datetime import date
from functools import reduce
from operator import or_
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.sources.mapping import DATE, DailyMapping, EventMapping, Mapping, TableMapping
from osmf_pipelines.sources.read_files import is_hidden, read_files
from osmf_pipelines.sources.read_mapping import MAPPING_NAME
from osmf_pipelines.sources.read_table import absolute_path, picture_path, read_table, rows_of_day
from osmf_pipelines.sources.source import CORRUPT_RECORD, event_frame, is_corrupt, mapped_column, payload_of, quoted
from osmf_pipelines.tables import TABLES

MARKER_NAME = "_SUCCESS"


class MappedSource:
    """Logs that `mapping.toml` describes.

    Args:
        folder: holds mapping.toml.
        mapping: what it says.
    """

    def __init__(self, folder: Path, mapping: Mapping):
        self.folder = folder
        self.mapping = mapping

    def impressions(self, spark: SparkSession, day: date) -> DataFrame:
        """Returns the impression events of one day.

        Raises:
            ValueError: when the day is not complete, or its rows cannot be read as mapped; it names the remedy.
        """
        return self._events(spark, "impressions", self.mapping.impressions, day)

    def clicks(self, spark: SparkSession, day: date) -> DataFrame:
        """Returns the click events of one day.

        Raises:
            ValueError: when the day is not complete, or its rows cannot be read as mapped; it names the remedy.
        """
        return self._events(spark, "clicks", self.mapping.clicks, day)

    def users(self, spark: SparkSession) -> DataFrame:
        """Returns (user_id, attributes)."""
        mapping = self.mapping.users
        frame = self._read(spark, "users", mapping, extra=mapping.attributes)
        pairs = [part for name in mapping.attributes for part in (F.lit(name), quoted(name).cast("string"))]
        return frame.select(
            _refuse_corrupt(frame, "users", quoted(mapping.columns["user_id"]).cast("string")).alias("user_id"),
            F.create_map(*pairs).cast("map<string,string>").alias("attributes"),
        )

    def products(self, spark: SparkSession) -> DataFrame:
        """Returns the columns of the table `products`; picture paths become absolute."""
        return self._dimension(spark, "products", self.mapping.products)

    def creatives(self, spark: SparkSession) -> DataFrame:
        """Returns the columns of the table `creatives`; picture paths become absolute."""
        return self._dimension(spark, "creatives", self.mapping.creatives).select(
            "*",
            F.lit(None).cast("array<double>").alias("feature_values"),
            F.lit(None).cast("array<string>").alias("feature_names"),
        )

    def ready_pairs(self, spark: SparkSession, day: date) -> DataFrame | None:
        """Returns the ready preference pairs of one day, or None where none are mapped; see `Source`."""
        mapping = self.mapping.preference_pairs
        if mapping is None:
            return None
        frame = self._read(spark, "preference_pairs", mapping, day=day)
        types = {column.name: column.type for column in TABLES["preference_pairs"].columns}
        values = {field: mapped_column(mapping.columns, field) for field in mapping.fields}
        casts = {field: value.try_cast(types[field]) for field, value in values.items()}
        lost = [value.isNotNull() & casts[field].isNull() for field, value in values.items()]
        return frame.select(
            *[cast.alias(field) for field, cast in casts.items()],
            payload_of(frame).alias("payload"),
            reduce(or_, lost, is_corrupt(frame)).alias("is_corrupt"),
        )

    def _events(self, spark: SparkSession, name: str, mapping: EventMapping, day: date) -> DataFrame:
        frame = self._read(spark, name, mapping, day=day)
        origin = mapping.origin if mapping.files is None else None
        return event_frame(frame, mapping.columns, mapping.fields, day, origin)

    def _dimension(self, spark: SparkSession, name: str, mapping: TableMapping) -> DataFrame:
        frame = self._read(spark, name, mapping)
        types = {column.name: column.type for column in TABLES[name].columns}
        id_field, *fields = mapping.fields
        return frame.select(
            _refuse_corrupt(frame, name, self._dimension_column(mapping, id_field, types)).alias(id_field),
            *[self._dimension_column(mapping, field, types).alias(field) for field in fields],
        )

    def _dimension_column(self, mapping: TableMapping, field: str, types: dict[str, str]) -> Column:
        value = mapped_column(mapping.columns, field)
        if field not in mapping.columns:
            return value.cast(types[field])
        if field.endswith("_path"):
            return picture_path(value.cast("string"), absolute_path(self.folder, self.mapping.image_root))
        cast = value.try_cast(types[field])
        message = (
            f"{mapping.origin}: {mapping.columns[field]!r}, mapped to {field}, has a value that is no {types[field]}"
        )
        return F.when(value.isNotNull() & cast.isNull(), F.raise_error(F.lit(message))).otherwise(cast)

    def _read(
        self,
        spark: SparkSession,
        section: str,
        mapping: TableMapping,
        *,
        day: date | None = None,
        extra: list[str] | None = None,
    ) -> DataFrame:
        """Their rows: of files all columns, of a table those that are mapped, since it may have hundreds."""
        columns = {*mapping.columns.values(), *(extra or ())}
        if mapping.files is not None:
            return read_files(spark, section, self._paths(section, mapping.files, day), columns)
        day_column = mapping.day_column if isinstance(mapping, DailyMapping) else None
        table = read_table(spark, self.folder, section, mapping, columns | ({day_column} if day_column else set()))
        if isinstance(mapping, DailyMapping) and day_column is not None and day is not None:
            table = rows_of_day(table, section, day_column, day, mapping.day_format)
        return table.select(*[quoted(name) for name in sorted(columns)])

    def _paths(self, section: str, files: str, day: date | None) -> list[Path]:
        if day is not None and DATE in files:
            marker = marker_of(self.folder, files, day)
            if not marker.is_file():
                raise ValueError(
                    f"day {day} is not complete: {marker} is missing; deliver the day's files, then the marker."
                )
        pattern = files.replace(DATE, str(day))
        paths = sorted(path for path in self.folder.glob(pattern) if not is_hidden(path))
        if not paths:
            raise ValueError(
                f"{self.folder / MAPPING_NAME}: [{section}] files = {files!r} finds no file at {self.folder / pattern}."
            )
        return paths


def marker_of(folder: Path, files: str, day: date) -> Path:
    """Returns the file that says that the day's `files` are complete: it lies beside them."""
    return folder / Path(files.replace(DATE, day.isoformat())).parent / MARKER_NAME


def _refuse_corrupt(frame: DataFrame, section: str, value: Column) -> Column:
    """`value`, or an error that ends the query where the row is a line that could not be read."""
    if CORRUPT_RECORD not in frame.columns:
        return value
    message = F.concat(F.lit(f"[{section}]: a line cannot be read in "), F.col("_metadata.file_name"))
    return F.when(is_corrupt(frame), F.raise_error(message)).otherwise(value)
