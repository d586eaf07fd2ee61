"""A drop folder: Parquet, CSV or JSON Lines per day, and a `mapping.toml` that says which column is which.

A day is taken only when its folder holds the marker `_SUCCESS`. See `Mapping` for the file's form.
"""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from osmf_pipelines.sources.source import CLICK_FIELDS, CORRUPT_RECORD, IMPRESSION_FIELDS, event_frame
from osmf_pipelines.tables import TABLES

MAPPING_NAME = "mapping.toml"
MARKER_NAME = "_SUCCESS"
_OPTIONAL = {
    "impressions": {"position", "slot_type", "propensity", "experiment_id", "arm", "model_version"},
    "clicks": set(),
    "users": set(),
    "products": {"title", "price", "cutout_path"},
    "creatives": {"image_path", "mask_path"},
}
_FIELDS = {
    "impressions": IMPRESSION_FIELDS,
    "clicks": CLICK_FIELDS,
    "users": ("user_id",),
    "products": tuple(TABLES["products"].column_names),
    "creatives": ("creative_id", "product_id", "image_path", "mask_path"),
}


class TableMapping(BaseModel):
    """One table of the drop folder: where its files are and which of their columns is which of ours."""

    model_config = ConfigDict(extra="forbid")

    files: Annotated[str, Field(description="path or glob below the drop folder; {date} is the day")]
    columns: Annotated[dict[str, str], Field(description="our name = their name")]
    attributes: Annotated[list[str], Field(description="users only: their columns that describe a user")] = []


class Mapping(BaseModel):
    """The form of `mapping.toml`: a table for each of these."""

    model_config = ConfigDict(extra="forbid")

    impressions: TableMapping
    clicks: TableMapping
    users: TableMapping
    products: TableMapping
    creatives: TableMapping


class FilesSource:
    """Logs in a drop folder.

    Args:
        folder: holds `mapping.toml`.

    Raises:
        ValueError: when the folder or its mapping is missing or wrong; it names the file, the field and the remedy.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.mapping = _read_mapping(folder / MAPPING_NAME)

    def days(self) -> list[date]:
        """Returns the days whose folder holds the marker, oldest first."""
        pattern = str(Path(self.mapping.impressions.files).parent / MARKER_NAME)
        before, after = pattern.split("{date}")
        found = []
        for marker in self.folder.glob(before + "*" + after):
            text = str(marker.relative_to(self.folder))
            found.append(date.fromisoformat(text.removeprefix(before).removesuffix(after)))
        return sorted(found)

    def impressions(self, spark: SparkSession, day: date) -> DataFrame:
        """Returns the impression events of one day."""
        return self._events(spark, "impressions", day)

    def clicks(self, spark: SparkSession, day: date) -> DataFrame:
        """Returns the click events of one day."""
        return self._events(spark, "clicks", day)

    def users(self, spark: SparkSession) -> DataFrame:
        """Returns (user_id, attributes)."""
        mapping = self.mapping.users
        frame = self._read(spark, "users", {*mapping.columns.values(), *mapping.attributes})
        pairs = [part for name in mapping.attributes for part in (F.lit(name), F.col(f"`{name}`").cast("string"))]
        return frame.select(
            F.col(f"`{mapping.columns['user_id']}`").cast("string").alias("user_id"),
            F.create_map(*pairs).alias("attributes"),
        )

    def products(self, spark: SparkSession) -> DataFrame:
        """Returns the columns of the table `products`; picture paths become absolute."""
        return self._dimension(spark, "products")

    def creatives(self, spark: SparkSession) -> DataFrame:
        """Returns the columns of the table `creatives`; picture paths become absolute."""
        return self._dimension(spark, "creatives").select(
            "*",
            F.lit(None).cast("array<double>").alias("feature_values"),
            F.lit(None).cast("array<string>").alias("feature_names"),
        )

    def _events(self, spark: SparkSession, name: str, day: date) -> DataFrame:
        mapping: TableMapping = getattr(self.mapping, name)
        marker = self.folder / Path(mapping.files.format(date=day)).parent / MARKER_NAME
        if not marker.is_file():
            raise ValueError(
                f"day {day} is not complete: {marker} is missing; deliver the day's files, then the marker."
            )
        frame = self._read(spark, name, set(mapping.columns.values()), day)
        return event_frame(frame, mapping.columns, _FIELDS[name], day)

    def _dimension(self, spark: SparkSession, name: str) -> DataFrame:
        columns = getattr(self.mapping, name).columns
        frame = self._read(spark, name, set(columns.values()))
        types = {column.name: column.type for column in TABLES[name].columns}
        return frame.select(*[self._dimension_column(columns, field, types[field]) for field in _FIELDS[name]])

    def _dimension_column(self, columns: dict[str, str], field: str, type_: str) -> Column:
        if field not in columns:
            return F.lit(None).cast(type_).alias(field)
        value = F.col(f"`{columns[field]}`")
        if field.endswith("_path"):
            value = F.when(value.startswith("/"), value).otherwise(F.concat(F.lit(f"{self.folder.absolute()}/"), value))
        return value.cast(type_).alias(field)

    def _read(self, spark: SparkSession, name: str, needed: set[str], day: date | None = None) -> DataFrame:
        mapping: TableMapping = getattr(self.mapping, name)
        pattern = mapping.files.format(date=day)
        files = sorted(self.folder.glob(pattern))
        if not files:
            raise ValueError(
                f"{self.folder / MAPPING_NAME}: [{name}] files = {mapping.files!r} finds no file at {pattern}."
            )
        frame = _read_files(spark, files, sorted(needed))
        missing = sorted(needed - set(frame.columns))
        if missing:
            raise ValueError(
                f"{files[0]} has no column {missing[0]!r} that {MAPPING_NAME} names in [{name}]; it has "
                f"{', '.join(column for column in frame.columns if column != CORRUPT_RECORD)}."
            )
        return frame


def _read_files(spark: SparkSession, files: list[Path], columns: list[str]) -> DataFrame:
    paths = [str(path) for path in files]
    suffix = files[0].suffix.lower()
    if suffix == ".parquet":
        return spark.read.parquet(*paths)
    if suffix in (".jsonl", ".json"):
        fields = [StructField(name, StringType()) for name in (*columns, CORRUPT_RECORD)]
        return spark.read.schema(StructType(fields)).json(paths)
    if suffix == ".csv":
        header = spark.read.option("header", True).csv(paths[0]).columns
        fields = [StructField(name, StringType()) for name in (*header, CORRUPT_RECORD)]
        return spark.read.option("header", True).option("enforceSchema", False).schema(StructType(fields)).csv(paths)
    raise ValueError(f"{files[0]}: {suffix or 'a file without an ending'} is not read; use .parquet, .csv or .jsonl.")


def _read_mapping(path: Path) -> Mapping:
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: a drop folder needs it. `osmf simulate` writes a drop folder to look at; "
            "OSMF_SOURCE_PATH names another one."
        )
    try:
        mapping = Mapping.model_validate(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ValueError(f"{path} is not a valid mapping: {error}") from error
    for name, fields in _FIELDS.items():
        columns = getattr(mapping, name).columns
        missing = sorted(set(fields) - _OPTIONAL[name] - columns.keys())
        unknown = sorted(columns.keys() - set(fields))
        if missing or unknown:
            problem = (
                f"lacks {missing[0]}" if missing else f"maps {unknown[0]}, which is not one of {', '.join(fields)}"
            )
            raise ValueError(f"{path}: [{name}.columns] {problem}.")
    for name in ("impressions", "clicks"):
        if getattr(mapping, name).files.count("{date}") != 1:
            raise ValueError(f"{path}: [{name}] files must name the day once, as {{date}}.")
    return mapping
