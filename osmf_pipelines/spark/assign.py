"""`serving/assign.py` for whole tables: the rules of a day out of its groups, and the group of each row.

Its functions say the same of every user as `assign_group` there; a test holds them together. Which picture a group is
shown belongs in `serving_map.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from osmf_pipelines.serving.assign import EVERYONE_ELSE, RULE, UNKNOWN
from osmf_pipelines.spark.attribute import clean_text, value_or_unknown


def list_rules(user_groups: DataFrame, group_features: DataFrame) -> DataFrame:
    """Returns scope, cell, group_id: which cell belongs to which group, and `EVERYONE_ELSE` to the scope's root.

    Every cell of a scope names the same attributes, all that one of its cells names: an attribute that came or went
    inside the evidence window is `unknown` in the cells without it. Of two cells that are the same then, the one that
    named more attributes counts, or else the first by text.

    Grain: one row per (scope, cell), and one more per scope.

    Args:
        user_groups: of one day.
        group_features: of the same day.
    """
    cells = user_groups.select(
        "scope", "group_id", F.col("cell").alias("_logged"), _parts(F.col("cell")).alias("_parts")
    )
    names = (
        cells.select("scope", F.explode(F.transform("_parts", _name_of)).alias("_name"))
        .groupBy("scope")
        .agg(F.sort_array(F.collect_set("_name")).alias("_names"))
    )

    def logged_value(name: Column) -> Column:
        named = F.filter("_parts", lambda part: _name_of(part) == name)
        return F.coalesce(F.get(F.transform(named, _value_of), F.lit(0)), F.lit(UNKNOWN))

    best = Window.partitionBy("scope", "cell").orderBy(F.size("_parts").desc(), "_logged")
    rules = (
        cells.join(names, on="scope", how="left")
        .withColumn("cell", _write_cell(F.col("_names"), logged_value))
        .withColumn("_rank", F.row_number().over(best))
        .where("_rank = 1")
        .select("scope", "cell", "group_id")
    )
    roots = group_features.where("is_scope_root").select("scope", F.lit(EVERYONE_ELSE).alias("cell"), "group_id")
    return rules.unionByName(roots)


def assign_groups(rows: DataFrame, rules: DataFrame) -> DataFrame:
    """Returns `rows` with the column `group_id`, null where the scope has no groups.

    Grain: as given.

    Args:
        rows: `scope` and `attributes`, a map of texts as the table `users` has them, beside whatever else.
        rules: from `list_rules`, or the rules of `serving_map` of one day.
    """
    if "entry" in rules.columns:
        rules = rules.where(F.col("entry") == RULE)
    is_root = F.col("cell") == EVERYONE_ELSE
    some_cell = F.min(F.when(~is_root, F.col("cell")))
    scopes = rules.groupBy("scope").agg(
        F.max(F.when(is_root, F.col("group_id"))).alias("_root"),
        F.transform(_parts(some_cell), _name_of).alias("_names"),
    )
    found = rules.where(~is_root).select("scope", F.col("cell").alias("_cell"), F.col("group_id").alias("_group"))
    entries = F.map_entries("attributes")

    def own_value(name: Column) -> Column:
        # Keys differ, so that the greatest entry is the one whose key comes last.
        named = F.filter(entries, lambda entry: clean_text(entry["key"]) == name)
        return value_or_unknown(F.array_max(named)["value"])

    return (
        rows.join(F.broadcast(scopes), on="scope", how="left")
        .withColumn("_cell", _write_cell(F.col("_names"), own_value))
        .join(found, on=["scope", "_cell"], how="left")
        .withColumn("group_id", F.coalesce("_group", "_root"))
        .select(*rows.columns, "group_id")
    )


def _write_cell(names: Column, value: Callable[[Column], Column]) -> Column:
    conditions = F.transform(names, lambda name: F.concat(name, F.lit("="), value(name)))
    return F.when(F.size(names) > 0, F.array_join(conditions, "|")).otherwise(UNKNOWN)


def _parts(cell: Column) -> Column:
    """The `name=value` parts of a cell; none of one that names no attribute."""
    return F.filter(F.split(cell, r"\|"), lambda part: F.contains(part, F.lit("=")))


def _name_of(part: Column) -> Column:
    return F.substring_index(part, "=", 1)


def _value_of(part: Column) -> Column:
    return F.substr(part, F.length(_name_of(part)) + F.lit(2))
