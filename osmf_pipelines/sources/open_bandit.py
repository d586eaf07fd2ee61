"""The Open Bandit Dataset, small version: real logs of a fashion shop, 2019-11-24 to 30, with true propensities.

Licence: Apache 2.0, as part of the package `obp`. Cite: Saito, Aihara, Matsutani, Narita, "Open Bandit Dataset and
Pipeline", NeurIPS 2021 Datasets and Benchmarks, arXiv 2008.07146. The data are read from where that package's source
archive puts them; none are kept here.

The logs have no user, no impression id, no click time and no pictures. What stands in for them is in `PROXIES`, which
every summary repeats.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from datetime import date, timedelta
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.sources.mapping import ClicksMapping, ImpressionsMapping
from osmf_pipelines.sources.source import event_frame
from osmf_pipelines.tables import TABLES

_FIRST_DATE, _NUM_DAYS = date(2019, 11, 24), 7
PROXIES = (
    "every row is its own pseudo-user, so the privacy floor counts impressions",
    "an impression's id is its file and row",
    "a click comes at its impression's time",
    "a cell is the four hashed user features",
    "a campaign is both scope and product; an item is a creative, so pairs compare items",
    "creative features are the item's context; there are no pictures, so nothing is exported for training",
)
_ARCHIVE = "obp-0.5.7"
_SHA256 = "3060d67fedfcfadf1e7a6f2608987f74412b5eb74d2c567edeb147595c68f2a0"
_CAMPAIGNS = ("all", "men", "women")
_POLICIES = ("random", "bts")
_USER_FEATURES = tuple(f"user_feature_{index}" for index in range(4))


class OpenBanditSource:
    """The six log files of the small Open Bandit Dataset.

    Args:
        folder: where the archive is kept and unpacked; fetched by pip on first use.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def days(self) -> list[date]:
        """Returns the seven days."""
        return [_FIRST_DATE + timedelta(days=index) for index in range(_NUM_DAYS)]

    def delivery_of(self, day: date) -> str:
        """Returns "": the data set never changes."""
        return ""

    def impressions(self, spark: SparkSession, day: date) -> DataFrame:
        """Returns the impression events of one day, of all campaigns and both policies."""
        columns = {name: f"_{name}" for name in ImpressionsMapping.fields}
        return event_frame(self._logs(spark, day), columns, ImpressionsMapping.fields, day)

    def clicks(self, spark: SparkSession, day: date) -> DataFrame:
        """Returns the click events of one day: the rows whose click flag is 1."""
        clicked = self._logs(spark, day).where("click = '1'")
        columns = {"click_id": "_impression_id", "impression_id": "_impression_id", "clicked_at": "_impressed_at"}
        return event_frame(clicked, columns, ClicksMapping.fields, day)

    def users(self, spark: SparkSession) -> DataFrame:
        """Returns (user_id, attributes): one pseudo-user per row of the logs."""
        pairs = [part for name in _USER_FEATURES for part in (F.lit(name), F.col(name))]
        return self._logs(spark).select(F.col("_user_id").alias("user_id"), F.create_map(*pairs).alias("attributes"))

    def products(self, spark: SparkSession) -> DataFrame:
        """Returns the three campaigns."""
        rows = [(name, name, f"campaign {name}", None, None) for name in _CAMPAIGNS]
        return spark.createDataFrame(rows, TABLES["products"].ddl)

    def creatives(self, spark: SparkSession) -> DataFrame:
        """Returns the items of each campaign, with their context as features."""
        return spark.createDataFrame(
            [row for campaign in _CAMPAIGNS for row in self._items(spark, campaign)], TABLES["creatives"].ddl
        )

    def ready_pairs(self, spark: SparkSession, day: date) -> DataFrame | None:
        """Returns None: the data set brings no pairs."""
        return None

    def _items(self, spark: SparkSession, campaign: str) -> list[tuple[object, ...]]:
        """Items of a campaign: the numeric context, and one indicator per level of the coarsest categorical one."""
        path = self._dataset() / "random" / campaign / "item_context.csv"
        items = sorted(spark.read.option("header", True).csv(str(path)).collect(), key=lambda row: int(row["item_id"]))
        levels = sorted({row["item_feature_3"] for row in items})
        names = ["item_feature_0", *[f"item_feature_3={level[:8]}" for level in levels[1:]]]
        return [
            (
                f"{campaign}-{row['item_id']}",
                campaign,
                None,
                None,
                [float(row["item_feature_0"]), *[float(row["item_feature_3"] == level) for level in levels[1:]]],
                names,
            )
            for row in items
        ]

    def _logs(self, spark: SparkSession, day: date | None = None) -> DataFrame:
        paths = [str(self._dataset() / policy / name / f"{name}.csv") for policy in _POLICIES for name in _CAMPAIGNS]
        path = F.col("_metadata.file_path")
        campaign, policy = (
            F.regexp_extract(path, r"/([a-z]+)/[a-z]+\.csv$", 1),
            F.regexp_extract(path, r"/([a-z]+)/[a-z]+/[a-z]+\.csv$", 1),
        )
        row_id = F.concat_ws("-", policy, campaign, F.col("_c0"))
        logs = spark.read.option("header", True).csv(paths)
        logs = logs if day is None else logs.where(F.col("timestamp").startswith(day.isoformat()))
        return logs.select(
            "click",
            *_USER_FEATURES,
            "_metadata",
            row_id.alias("_impression_id"),
            row_id.alias("_user_id"),
            campaign.alias("_product_id"),
            F.concat_ws("-", campaign, F.col("item_id")).alias("_creative_id"),
            F.col("timestamp").alias("_impressed_at"),
            F.col("position").alias("_position"),
            F.lit("recommendation").alias("_slot_type"),
            F.col("propensity_score").alias("_propensity"),
            F.lit("open_bandit").alias("_experiment_id"),
            policy.alias("_arm"),
            F.lit(None).cast("string").alias("_model_version"),
        )

    def _dataset(self) -> Path:
        dataset = self.folder / _ARCHIVE / "obp" / "dataset" / "obd"
        if not dataset.is_dir():
            _fetch(self.folder)
        return dataset


def _fetch(folder: Path) -> None:
    """Downloads the archive by pip, checks its hash, unpacks it."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{_ARCHIVE}.tar.gz"
    if not archive.is_file():
        name, version = _ARCHIVE.split("-")
        options = ["--no-deps", "--no-binary", name, "--ignore-requires-python", "--quiet", "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", f"{name}=={version}", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"the Open Bandit Dataset could not be fetched ({' '.join(command)}): {done.stderr.strip()[-300:]} "
                f"Put {archive.name} into {folder} yourself to go on without a package registry."
            )
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise ValueError(
            f"{archive} is not the archive that was published (sha256 {digest}): delete it, then run again."
        )
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
