"""Groups, rates and pairs at a scale that no laptop's logs reach: from made-up sums of as many groups as asked for.

Every scope has sixteen cells of users, two attributes of four values each, whose tastes point sixteen ways: as many
groups, if all are found. No logs, no lake: the same functions that the assets call, their results written as Parquet.

python -m osmf_pipelines.bench.many_groups REQUEST.json RESULT.json
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.bench.part_process import Steps
from osmf_pipelines.bench.process_memory import driver_heap
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.ctr import group_ctr
from osmf_pipelines.spark.group import form_groups, list_group_features, list_user_groups
from osmf_pipelines.spark.pairs import preference_pairs
from osmf_pipelines.spark.place_effects import fit_place_effects
from osmf_pipelines.spark.session import get_spark

GROUPS_PER_SCOPE = 16
PARTS = ("sums", "place_effects", "groups", "group_ctr", "preference_pairs")
_DAY = date(2026, 3, 2)
_NUM_PRODUCTS, _NUM_CREATIVES = 5, 4
_IMPRESSIONS, _BASE_RATE = 3_000, 0.03
_USERS_PER_CELL = 60
_SCOPES_PER_TASK = 250


@dataclass(frozen=True)
class MadeUpSums:
    """What groups are formed from.

    Attributes:
        creative_stats: of one day, (scope, cell, product, creative).
        cell_users: 60 users a cell.
        creative_features: two features of each creative.
        product_splits: every product is in `train`.
    """

    creative_stats: DataFrame
    cell_users: DataFrame
    creative_features: DataFrame
    product_splits: DataFrame


def make_up_sums(spark: SparkSession, num_groups: int, seed: int) -> MadeUpSums:
    """Returns sums of `num_groups` groups, rounded up to whole scopes; the same seed gives the same sums."""
    num_scopes = -(-num_groups // GROUPS_PER_SCOPE)
    scopes = spark.range(0, num_scopes, 1, -(-num_scopes // _SCOPES_PER_TASK)).select(
        F.col("id").alias("scope_number"), F.format_string("scope-%07d", "id").alias("scope")
    )
    product = F.format_string("%s-p%d", "scope", "product_number").alias("product_id")
    creative = F.format_string("%s-p%d-c%d", "scope", "product_number", "creative_number").alias("creative_id")
    products = scopes.withColumn("product_number", _each(_NUM_PRODUCTS))
    creatives = products.withColumn("creative_number", _each(_NUM_CREATIVES)).select("*", product, creative)
    creatives = creatives.withColumns({name: _uniform(F.col("creative_id"), name, seed) for name in ("tone", "depth")})
    angle = (F.col("cell_number") + _uniform(F.col("scope"), "angle", seed)) * (2 * math.pi / GROUPS_PER_SCOPE)
    rate = _BASE_RATE * F.exp(F.cos(angle) * F.col("tone") + F.sin(angle) * F.col("depth"))
    mean = _IMPRESSIONS * rate
    clicks = F.round(F.greatest(mean + F.sqrt(mean) * F.randn(seed), F.lit(0.0)))
    stats = creatives.withColumn("cell_number", _each(GROUPS_PER_SCOPE)).select(
        F.lit(_DAY).alias("event_date"),
        "scope",
        _cell().alias("cell"),
        F.pmod(F.xxhash64("creative_id", "cell_number"), F.lit(5)).cast("int").alias("user_fold"),
        "product_id",
        "creative_id",
        F.lit("default").alias("slot_type"),
        F.lit(1).alias("position"),
        F.lit(_IMPRESSIONS).cast("bigint").alias("num_impressions"),
        F.least(clicks, F.lit(_IMPRESSIONS)).cast("bigint").alias("num_clicks"),
        F.lit(None).cast("bigint").alias("inverse_propensity_millis"),
    )
    seen = scopes.withColumn("cell_number", _each(GROUPS_PER_SCOPE)).withColumn("user_number", _each(_USERS_PER_CELL))
    user = F.format_string("%s-%d-%d", "scope", "cell_number", "user_number").alias("user_id")
    users = seen.select(F.lit(_DAY).alias("event_date"), "scope", _cell().alias("cell"), user)
    features = creatives.select(
        "scope",
        "creative_id",
        F.array(F.lit("tone"), F.lit("depth")).alias("feature_names"),
        F.array("tone", "depth").alias("feature_values"),
    )
    return MadeUpSums(stats, users, features, products.select(product, F.lit("train").alias("split")))


def _each(number: int) -> Column:
    return F.explode(F.sequence(F.lit(0), F.lit(number - 1)))


def _cell() -> Column:
    """Two attributes of four values; the number of the cell goes round both, so that no cut of one says it all."""
    first, second = (F.col("cell_number") / 4).cast("int"), F.col("cell_number") % 4
    return F.format_string("age=a%d|city=c%d", first, second)


def _uniform(of: Column, name: str, seed: int) -> Column:
    """A number in [-1, 1) that hashes decide."""
    return (F.pmod(F.xxhash64(F.lit(f"{seed}-{name}"), of), F.lit(2_000_000)) / 1_000_000) - 1


def measure_many_groups(settings: Settings, num_groups: int, seed: int, output: Path, steps: Steps) -> dict[str, Any]:
    """Forms groups, rates and pairs once; returns the rows of each table.

    Args:
        settings: of the Spark session.
        num_groups: to plant.
        seed: of the sums.
        output: folder to write Parquet into.
        steps: gets a row of `part` and `seconds` as each of `PARTS` ends; what a part of it wrote is read back.

    Returns:
        `num_rows` by table; `num_groups` found, scope roots not counted; `num_scopes`; `driver_heap`.
    """
    spark = get_spark(settings)
    done = {row["part"] for row in steps.read()}

    def written(part: str, **frames: DataFrame) -> dict[str, DataFrame]:
        paths = {name: str(output / name) for name in frames}
        if part not in done:
            began = time.perf_counter()
            for name, frame in frames.items():
                frame.write.mode("overwrite").parquet(paths[name])
            steps.append({"part": part, "seconds": time.perf_counter() - began})
        return {name: spark.read.parquet(path) for name, path in paths.items()}

    sums = written("sums", **vars(make_up_sums(spark, num_groups, seed)))
    stats, splits = sums["creative_stats"], sums["product_splits"]
    began = time.perf_counter()
    told: dict[str, Any] = {"as_of_date": _DAY, "place_effects": fit_place_effects(stats)}
    if "place_effects" not in done:
        steps.append({"part": "place_effects", "seconds": time.perf_counter() - began})
    formed = form_groups(stats, sums["cell_users"], sums["creative_features"], splits, **told)
    formed = written("groups", formed=formed)["formed"]
    user_groups, features = list_user_groups(formed), list_group_features(formed)
    frames = written("group_ctr", group_ctr=group_ctr(stats, user_groups, splits, **told))
    pairs = preference_pairs(frames["group_ctr"], splits, as_of_date=_DAY)
    frames |= written("preference_pairs", preference_pairs=pairs)
    frames |= {"creative_stats": stats, "user_groups": user_groups}
    return {
        "num_rows": {name: frame.count() for name, frame in frames.items()},
        "num_groups": features.where("NOT is_scope_root").count(),
        "num_scopes": features.where("is_scope_root").count(),
        "driver_heap": driver_heap(),
    }


def _main(request_path: str, result_path: str) -> None:
    request = json.loads(Path(request_path).read_text())
    settings, steps = Settings(**request["settings"]), Steps.beside(Path(result_path))
    result = measure_many_groups(settings, request["num_groups"], request["seed"], Path(request["output"]), steps)
    Path(result_path).write_text(json.dumps(result))


if __name__ == "__main__":
    _main(*sys.argv[1:])
