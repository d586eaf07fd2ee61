"""The table that an ad server reads: rules to groups, and (group, product) to pictures.

Who is in which group belongs in `assign.py`; whether a picture may be shown was decided when it was drawn.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from osmf_pipelines.serving.assign import EVERYONE_ELSE, RULE
from osmf_pipelines.serving.serving_map import PICTURE
from osmf_pipelines.spark.assign import list_rules
from osmf_pipelines.tables import TABLES

_DRAWN = ("picture_path", "picture_sha256", "model_version")


def list_serving_map(
    user_groups: DataFrame, group_features: DataFrame, generated_creatives: DataFrame, *, as_of_date: date
) -> DataFrame:
    """Returns `serving_map`.

    A group whose own picture of a product was refused, or not asked for, is shown that of its scope's root; where that
    is missing too there is no row.

    Grain: one row per (scope, cell), one per scope for everyone else, one per (group, product) that has a picture.

    Args:
        user_groups: of one day.
        group_features: of the same day, scope roots included.
        generated_creatives: of the same day, refused pictures included.
        as_of_date: the day.
    """
    rules = list_rules(user_groups, group_features).withColumn("entry", F.lit(RULE))
    shown = generated_creatives.where("refusal IS NULL").select(
        "scope",
        "product_id",
        "group_id",
        "is_scope_root",
        F.struct(F.col("group_id").alias("drawn_for"), *_DRAWN).alias("picture"),
    )
    own = shown.select("group_id", "product_id", F.col("picture").alias("_own"))
    of_root = shown.where("is_scope_root").select("scope", "product_id", F.col("picture").alias("_of_root"))
    products = generated_creatives.select("scope", "product_id").distinct()
    pictures = (
        group_features.select("scope", "group_id")
        .join(products, on="scope", how="inner")
        .join(own, on=["group_id", "product_id"], how="left")
        .join(of_root, on=["scope", "product_id"], how="left")
        .withColumn("_picture", F.coalesce("_own", "_of_root"))
        .where(F.col("_picture").isNotNull())
        .select("scope", "group_id", "product_id", "_picture.*", F.lit(PICTURE).alias("entry"))
    )
    rows = rules.unionByName(pictures, allowMissingColumns=True).withColumn("as_of_date", F.lit(as_of_date))
    return rows.select(*TABLES["serving_map"].column_names)


def count_entries(serving_map: DataFrame, generated_creatives: DataFrame) -> dict[str, int]:
    """Returns what there is in a serving map, and what is wrong with it.

    num_rules; num_pictures; num_shown_of_root: groups' pictures that are their scope's root's; num_unserved: products
    drawn for a group that have no row; num_ambiguous: rules and pictures that are there more than once;
    num_scopes_without_root: scopes with rules and none for everyone else.
    """
    is_picture, is_rule = F.col("entry") == PICTURE, F.col("entry") == RULE
    keys = ("entry", "scope", "cell", F.when(is_picture, F.col("group_id")).alias("group_id"), "product_id")
    is_of_root = is_picture & (F.col("drawn_for") != F.col("group_id"))
    by_key = serving_map.groupBy(*keys).agg(F.count(F.lit(1)).alias("num"), F.count_if(is_of_root).alias("num_of_root"))
    with_rules = F.collect_set(F.when(is_rule, F.col("scope")))
    with_root = F.collect_set(F.when(is_rule & (F.col("cell") == EVERYONE_ELSE), F.col("scope")))
    counts = by_key.agg(
        F.sum(F.when(is_rule, F.col("num")).otherwise(0)).alias("num_rules"),
        F.sum(F.when(is_picture, F.col("num")).otherwise(0)).alias("num_pictures"),
        F.sum("num_of_root").alias("num_shown_of_root"),
        F.count_if(F.col("num") > 1).alias("num_ambiguous"),
        F.size(F.array_except(with_rules, with_root)).alias("num_scopes_without_root"),
    ).collect()[0]
    drawn = generated_creatives.select("group_id", "product_id")
    unserved = drawn.join(serving_map.where(is_picture), on=["group_id", "product_id"], how="left_anti").count()
    return {**{name: int(value) for name, value in counts.asDict().items()}, "num_unserved": unserved}
