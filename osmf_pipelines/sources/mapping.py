"""`mapping.toml`: where a team's tables are, and which of their columns is which of ours. This is its reference.

One form serves `OSMF_SOURCE=files` and `OSMF_SOURCE=table`; `OSMF_SOURCE_PATH` is the folder that holds the file.

```toml
image_root = "/mnt/shop/pictures"   # before picture paths that are relative; default: this folder
settle_hours = 6                    # `table` only: hours after a day's end (UTC) when its rows are complete; default 6

[impressions]
table = "warehouse.ads.impressions" # any table that Spark's catalogs know
day_column = "dt"                   # a date, or a text or timestamp that is cast to one; best what partitions the table
[impressions.columns]               # ours = theirs
impression_id = "imp_id"
user_id = "uid"
product_id = "item"
creative_id = "ad"
impressed_at = "ts"                 # UTC
position = "pos"                    # and slot_type, propensity, experiment_id, arm, model_version: where you have them

[clicks]
format = "jdbc"                     # any format that Spark reads: delta, parquet, jdbc, iceberg ...
options = { url = "jdbc:postgresql://db/ads", dbtable = "clicks", user = "osmf", password = "env:ADS_PASSWORD" }
day_column = "ds"
day_format = "%Y%m%d"               # where the day is a text or number such as 20260302
columns = { click_id = "click", impression_id = "imp_id", clicked_at = "ts" }

[users]
files = "users/*.parquet"           # Parquet, CSV, JSON Lines (the last two may be .gz), below this folder
columns = { user_id = "uid" }
attributes = ["age_band", "gender"] # their columns that describe a user; groups are cut along them

[products]                          # and title, price, cutout_path: where you have them
format = "delta"
path = "s3a://shop/products"        # a relative path lies below this folder
columns = { product_id = "item", scope = "category" }

[creatives]                         # and image_path, mask_path: where you have them
files = "creatives.csv"
columns = { creative_id = "ad", product_id = "item" }

[preference_pairs]                  # optional: ready pairs of groups, from elsewhere; also log_rate_ratio
files = "pairs/{date}/*.parquet"    # {date}, or day_column for a table, where each day has its own
[preference_pairs.columns]
group_id = "group"
scope = "category"
product_id = "item"
chosen_creative_id = "better"
rejected_creative_id = "worse"
chosen_better_probability = "p"
```

Each section has one of `files`, `table` and `format`. With `OSMF_SOURCE=files`, impressions and clicks have `files`
that name the day's folder once as `{date}` (2026-03-02), and a day is taken when `_SUCCESS` lies beside its files. With
`OSMF_SOURCE=table` they have `table` or `format`, and `day_column`. The other sections are free in both. An option
`"env:NAME"` is read from the environment variable NAME, so that no secret stands here. Pictures are opened as files:
one that lies in an object store counts as missing until the store is mounted.

The file is read in `read_mapping.py`, the tables in `mapped.py`; nothing here knows Spark.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from osmf_pipelines.tables import TABLES

DATE = "{date}"
_ANY_DAY = date(2026, 3, 2)
Name = Annotated[str, Field(min_length=1)]


class TableMapping(BaseModel):
    """One table: where it is, and which of its columns is which of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fields: ClassVar[tuple[str, ...]]
    optional_fields: ClassVar[frozenset[str]] = frozenset()
    day_counts: ClassVar[tuple[int, ...]] = (0,)

    files: Annotated[Name | None, Field(description="path or glob below the folder; {date} is the day")] = None
    table: Annotated[Name | None, Field(description="name of a table in Spark's catalogs")] = None
    format: Annotated[Name | None, Field(description="a format that Spark reads")] = None
    path: Annotated[Name | None, Field(description="with `format`: where the table is")] = None
    options: Annotated[dict[str, str | bool | int | float], Field(description="options of Spark's reader")] = {}
    columns: Annotated[dict[str, Name], Field(description="our name = their name")]

    @property
    def origin(self) -> str:
        """The table in a few words, without any option that could be secret."""
        return self.files or self.table or self.path or f"{self.format} {self.options.get('dbtable', '')}".strip()

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        missing = [name for name in cls.fields if name not in columns and name not in cls.optional_fields]
        unknown = sorted(columns.keys() - set(cls.fields))
        problems = [f"lacks {name}" for name in missing]
        problems += [f"maps {name}, which is not one of {', '.join(cls.fields)}" for name in unknown]
        if problems:
            raise ValueError("; ".join(problems))
        return columns

    @model_validator(mode="after")
    def _check_location(self) -> Self:
        given = [name for name in ("files", "table", "format") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs one of files, table and format, and has {' and '.join(given) or 'none'}")
        if self.path is not None and self.format is None:
            raise ValueError("has a path without a format")
        if self.options and self.files is not None:
            raise ValueError("has options, which go with table or format, not with files")
        return self

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if self.files is None:
            return self
        if self.files.count(DATE) not in self.day_counts:
            raise ValueError(
                f"files must {'name the day once, as {date}' if 1 in self.day_counts else 'not name a day'}"
            )
        path = PurePosixPath(self.files)
        if path.is_absolute():
            raise ValueError("files must be below the folder of this file; elsewhere, give format and path")
        if DATE in self.files and (DATE not in str(path.parent) or set(str(path.parent)) & set("*?[")):
            raise ValueError(
                "files must have {date} in a folder and no wildcard in the folders: the marker lies beside the files"
            )
        return self


class DailyMapping(TableMapping):
    """A table that may have a part for each day."""

    day_counts: ClassVar[tuple[int, ...]] = (0, 1)

    day_column: Annotated[Name | None, Field(description="with `table` or `format`: column of the day")] = None
    day_format: Annotated[Name | None, Field(description="the day as that column writes it, in strftime's form")] = None

    @property
    def is_daily(self) -> bool:
        """Each day has its own rows."""
        return self.day_column is not None or DATE in (self.files or "")

    @model_validator(mode="after")
    def _check_day(self) -> Self:
        if self.day_column is not None and self.files is not None:
            raise ValueError("has a day_column, which goes with table or format; files name the day as {date}")
        if self.day_format is not None and self.day_column is None:
            raise ValueError("has a day_format without a day_column")
        if self.day_format is not None and not _is_day_format(self.day_format):
            raise ValueError(f"day_format = {self.day_format!r} does not tell days apart; %Y%m%d writes 20260302")
        return self


class EventMapping(DailyMapping):
    """A table of events: always by day."""

    day_counts: ClassVar[tuple[int, ...]] = (1,)

    @model_validator(mode="after")
    def _check_is_daily(self) -> Self:
        if not self.is_daily:
            raise ValueError("needs a day_column, so that one day can be read")
        return self


class ImpressionsMapping(EventMapping):
    """Section [impressions]."""

    fields = (
        *("impression_id", "user_id", "product_id", "creative_id", "impressed_at"),
        *("position", "slot_type", "propensity", "experiment_id", "arm", "model_version"),
    )
    optional_fields = frozenset(("position", "slot_type", "propensity", "experiment_id", "arm", "model_version"))


class ClicksMapping(EventMapping):
    """Section [clicks]."""

    fields = ("click_id", "impression_id", "clicked_at")


class UsersMapping(TableMapping):
    """Section [users]."""

    fields = ("user_id",)

    attributes: Annotated[list[Name], Field(description="their columns that describe a user")] = []

    @field_validator("attributes")
    @classmethod
    def _check_attributes(cls, attributes: list[str]) -> list[str]:
        if len(set(attributes)) < len(attributes):
            raise ValueError("names a column twice")
        return attributes


class ProductsMapping(TableMapping):
    """Section [products]."""

    fields = tuple(TABLES["products"].column_names)
    optional_fields = frozenset(("title", "price", "cutout_path"))


class CreativesMapping(TableMapping):
    """Section [creatives]."""

    fields = ("creative_id", "product_id", "image_path", "mask_path")
    optional_fields = frozenset(("image_path", "mask_path"))


class PairsMapping(DailyMapping):
    """Section [preference_pairs]."""

    fields = (
        *("group_id", "scope", "product_id", "chosen_creative_id", "rejected_creative_id"),
        *("chosen_better_probability", "log_rate_ratio"),
    )
    optional_fields = frozenset(("log_rate_ratio",))


class Mapping(BaseModel):
    """The whole of `mapping.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_root: str = ""
    settle_hours: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 6
    impressions: ImpressionsMapping
    clicks: ClicksMapping
    users: UsersMapping
    products: ProductsMapping
    creatives: CreativesMapping
    preference_pairs: PairsMapping | None = None

    @field_validator("image_root")
    @classmethod
    def _check_image_root(cls, root: str) -> str:
        if "://" in root:
            raise ValueError(f"is {root!r}, and pictures are opened as files: mount the store, and give a folder")
        return root


def _is_day_format(text: str) -> bool:
    try:
        return datetime.strptime(_ANY_DAY.strftime(text), text).date() == _ANY_DAY
    except ValueError:
        return False
