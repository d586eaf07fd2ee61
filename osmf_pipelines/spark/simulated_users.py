"""The simulated market's users and every random draw of its logs, as Spark columns.

Each draw is a hash of (seed, name, key), so that it does not depend on partitioning. What the users click does not
belong here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_models.simulator.market import Market

_ROWS_PER_PARTITION = 2_000_000


@dataclass(frozen=True)
class Draws:
    """Random columns, each a hash of (seed, name, key)."""

    seed: int

    def uniform(self, name: str, key: Column) -> Column:
        """A double, uniform in [0, 1)."""
        return self._hash(name, key).bitwiseAND(F.lit(2**53 - 1)) / F.lit(float(2**53))

    def index(self, name: str, key: Column, count: int) -> Column:
        """A long, uniform over 0 .. count - 1."""
        return F.pmod(self._hash(name, key), F.lit(count))

    def _hash(self, name: str, key: Column) -> Column:
        return F.xxhash64(F.lit(self.seed), F.lit(name), key)


def user_frame(spark: SparkSession, market: Market) -> DataFrame:
    """Grain: one row per user."""
    bins = attribute_bins(market, F.col("id"))
    values = [
        F.element_at(F.lit(list(attribute.values)), bins[attribute.name] + 1).alias(attribute.name)
        for attribute in market.attributes
    ]
    return spark.range(0, market.num_users, 1, num_partitions(market.num_users)).select(user_id(F.col("id")), *values)


def attribute_bins(market: Market, user_index: Column) -> dict[str, Column]:
    """Returns the bin of each attribute of a user: how many of its cumulative shares lie at or below a draw."""
    draws = Draws(market.seed)
    bins: dict[str, Column] = {}
    for attribute in market.attributes:
        draw = draws.uniform(attribute.name, user_index)
        row = F.lit(0) if attribute.parent is None else bins[attribute.parent]
        found = F.lit(0)
        for bounds in np.cumsum(attribute.probabilities, axis=1)[:, :-1].T.tolist():
            found = found + (draw >= F.element_at(F.lit(bounds), row + 1)).cast("int")
        bins[attribute.name] = found
    return bins


def cell_frame(spark: SparkSession, market: Market) -> DataFrame:
    """The place of each user's cell in `cell_probabilities`, which counts the last attribute fastest.

    Grain: one row per user.
    """
    index = F.lit(0)
    for attribute, bin_ in zip(market.attributes, attribute_bins(market, F.col("id")).values(), strict=True):
        index = index * len(attribute.values) + bin_
    users = spark.range(0, market.num_users, 1, num_partitions(market.num_users))
    return users.select(F.col("id").alias("user_index"), index.alias("cell_index"))


def user_id(user_index: Column) -> Column:
    """Returns the shop's id of a user, as column `uid`."""
    return F.concat(F.lit("u"), F.lpad(user_index.cast("string"), 9, "0")).alias("uid")


def num_partitions(num_rows: int) -> int:
    """Returns into how many parts a generated table is cut; its content does not depend on it."""
    return max(2, math.ceil(num_rows / _ROWS_PER_PARTITION))
