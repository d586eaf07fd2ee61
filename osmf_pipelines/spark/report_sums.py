"""What the report page tells of the tables, summed so that a few hundred rows reach the driver.

Saying it belongs in `osmf_pipelines/report/`.
"""

from __future__ import annotations

from collections.abc import Collection

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

_WHAT_GROUPS_TELL = (
    "group_id",
    "scope",
    "description",
    "rule",
    "num_users",
    "num_impressions",
    "num_clicks",
    "feature_names",
    "preference",
    "preference_se",
)


def sum_events(ingest_ledger: DataFrame, attribution_ledger: DataFrame) -> DataFrame:
    """Returns event_type, outcome, first_date, last_date and num_events of both ledgers.

    Grain: one row per (event_type, outcome).

    Args:
        ingest_ledger: days of the window.
        attribution_ledger: the same days.
    """
    columns = ("source_date", "event_type", "outcome", "num_events")
    both = ingest_ledger.select(*columns).unionByName(attribution_ledger.select(*columns))
    return both.groupBy("event_type", "outcome").agg(
        F.min("source_date").alias("first_date"),
        F.max("source_date").alias("last_date"),
        F.sum("num_events").alias("num_events"),
    )


def sum_scopes(group_features: DataFrame, group_ctr: DataFrame) -> DataFrame:
    """Returns scope, num_products, num_creatives, num_users, num_impressions, num_clicks and num_groups.

    Grain: one row per scope; what is counted is counted on the scope's root, which everyone belongs to.

    Args:
        group_features: of one day.
        group_ctr: of the same day; a scope that has no row there has no products (left join).
    """
    is_root = F.col("is_scope_root")
    of_root = [
        F.max(F.when(is_root, F.col(name))).alias(name) for name in ("num_users", "num_impressions", "num_clicks")
    ]
    scopes = group_features.groupBy("scope").agg(*of_root, F.count_if(~is_root).alias("num_groups"))
    shown = (
        group_ctr.where(is_root)
        .groupBy("scope")
        .agg(F.countDistinct("product_id").alias("num_products"), F.countDistinct("creative_id").alias("num_creatives"))
    )
    counts = ("num_products", "num_creatives", "num_users", "num_impressions", "num_clicks", "num_groups")
    return scopes.join(shown, on="scope", how="left").select(
        "scope", *(F.coalesce(name, F.lit(0)).alias(name) for name in counts)
    )


def list_groups(group_features: DataFrame, scopes: Collection[str], limit: int) -> DataFrame:
    """Returns what is told of the groups of some scopes, by scope, most users first; at most `limit`, no roots."""
    own = group_features.where(~F.col("is_scope_root") & F.col("scope").isin(list(scopes)))
    return own.select(*_WHAT_GROUPS_TELL).orderBy("scope", F.desc("num_users"), "group_id").limit(limit)


def sum_pairs_by_scope(preference_pairs: DataFrame) -> DataFrame:
    """Returns scope, num_pairs, num_contradictions and expected_wrong_share of the pairs; roots are left out.

    Grain: one row per scope that has pairs.
    """
    return (
        preference_pairs.where(~F.col("is_scope_root"))
        .groupBy("scope")
        .agg(
            F.count(F.lit(1)).alias("num_pairs"),
            F.count_if("is_contradiction").alias("num_contradictions"),
            F.avg(1 - F.col("chosen_better_probability")).alias("expected_wrong_share"),
        )
    )
