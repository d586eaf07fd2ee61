"""A group as numbers: the feature vector that the model reads, from `group_features` and its exemplars' features.

What the entries are is fixed in `osmf_models.records`; writing them belongs in `export`.
"""

from __future__ import annotations

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from osmf_models.records import group_feature_names
from osmf_pipelines.spark.features import OTHER_VALUES


def group_feature_layout(group_features: DataFrame) -> tuple[str, ...]:
    """Returns the names of the entries of the groups' feature vectors.

    Of an attribute whose rare values some scope tells together, only the values that every group tells alone have an
    entry; the others share one.

    Raises:
        ValueError: when there are no groups, or when their preference vectors are not over the same features.
    """
    names = group_features.select("feature_names").distinct().limit(2).collect()
    if len(names) != 1:
        raise ValueError(
            "the groups' preference vectors must be over the same creative features; found "
            f"{[row['feature_names'] for row in names] or 'no groups'}."
        )
    rows = (
        group_features.select(F.explode(F.map_keys("attribute_shares")).alias("bin")).groupBy("bin").count().collect()
    )
    folded = {_attribute(row["bin"]) for row in rows if row["bin"].endswith(f"={OTHER_VALUES}")}
    num_groups = group_features.count() if folded else 0
    bins = {row["bin"] for row in rows if _attribute(row["bin"]) not in folded or row["count"] == num_groups}
    bins |= {f"{name}={OTHER_VALUES}" for name in folded}
    return group_feature_names(tuple(names[0]["feature_names"]), tuple(sorted(bins)))


def add_feature_vectors(group_features: DataFrame, creative_features: DataFrame) -> DataFrame:
    """Returns the groups with `features`, float32, laid out as `group_feature_layout` says.

    Grain: one row per group given. Exemplars without features, and groups without exemplars, count as 0.

    Raises:
        ValueError: as `group_feature_layout`.
    """
    layout = group_feature_layout(group_features)
    num_features = sum(name.startswith("preference_z:") for name in layout)
    bins = [name.removeprefix("share:") for name in layout if name.startswith("share:")]
    groups = group_features
    for side in ("top", "bottom"):
        exemplars = (
            group_features.select("group_id", F.explode(f"{side}_creative_ids").alias("creative_id"))
            .join(creative_features, on="creative_id", how="inner")
            .groupBy("group_id")
            .agg(*[F.avg(F.col("feature_values")[i]).alias(f"{side}_{i}") for i in range(num_features)])
        )
        groups = groups.join(exemplars, on="group_id", how="left")
    entries = [
        *[_ratio(F.col("preference")[i], F.col("preference_se")[i]) for i in range(num_features)],
        *[F.col("preference_se")[i] for i in range(num_features)],
        *[F.coalesce(f"{side}_{i}", F.lit(0.0)) for side in ("top", "bottom") for i in range(num_features)],
        F.log(F.col("num_users").cast("double")),
        *[_share(name, bins) for name in bins],
    ]
    return groups.withColumn("features", F.array(*[entry.cast("float") for entry in entries]))


def feature_normalisation(groups: DataFrame) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and scale of each entry of `features`, the scale 1 where an entry is the same in all.

    Over the groups that are no scope root, or over all where there are only roots; collects one vector per group.
    """
    rows = groups.orderBy("group_id").select("is_scope_root", "features").collect()
    vectors = np.array(
        [row["features"] for row in rows if not row["is_scope_root"]] or [row["features"] for row in rows]
    )
    scale = vectors.std(axis=0)
    return tuple(map(float, vectors.mean(axis=0))), tuple(float(value) if value > 0 else 1.0 for value in scale)


def _attribute(attribute_bin: str) -> str:
    return attribute_bin.partition("=")[0]


def _share(attribute_bin: str, bins: list[str]) -> Column:
    """Share of a group's users in a bin; `other values` are all users of the attribute's bins that have no entry."""
    if not attribute_bin.endswith(f"={OTHER_VALUES}"):
        return F.coalesce(F.col("attribute_shares")[attribute_bin], F.lit(0.0))
    alone = [other for other in bins if _attribute(other) == _attribute(attribute_bin) and other != attribute_bin]
    others = F.map_filter(
        "attribute_shares", lambda key, _: F.startswith(key, F.lit(f"{_attribute(attribute_bin)}=")) & ~key.isin(alone)
    )
    return F.aggregate(F.map_values(others), F.lit(0.0), lambda total, share: total + share)


def _ratio(value: Column, error: Column) -> Column:
    return F.when(error > 0, value / error).otherwise(F.lit(0.0))
