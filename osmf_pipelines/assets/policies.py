"""What the best creatives would have earned, from logs that tell propensities: an asset of every lake.

Where no exposure has a propensity the table is empty and says so; nothing is computed from it.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from math import sqrt
from typing import Any

import dagster as dg

from osmf_pipelines.assets.groups import as_of_asset, window_mapping
from osmf_pipelines.assets.metadata import as_table, picture
from osmf_pipelines.assets.policy_plots import plot_policy_values
from osmf_pipelines.assets.publishing import Facts, Outcome, cached, publish
from osmf_pipelines.partitions import evidence_days
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

# Events of a week, whatever the evidence window: every weekday counts, and a refresh never reads the history.
NUM_VALUED_DAYS = 7
_MAX_SCOPES_SHOWN = 100
_INPUTS = ("silver_exposures", "creative_stats", "user_groups", "product_splits")


def build_policy_assets(partitions: dg.DailyPartitionsDefinition, settings: Settings) -> list[dg.AssetsDefinition]:
    """Returns the asset `policy_values`."""
    valued = dg.TimeWindowPartitionMapping(
        start_offset=1 - _num_valued_days(settings), allow_nonexistent_upstream_partitions=True
    )
    deps: list[str | dg.AssetDep] = [
        dg.AssetDep("silver_exposures", partition_mapping=valued),
        dg.AssetDep("creative_stats", partition_mapping=window_mapping(settings)),
        "user_groups",
        "product_splits",
    ]
    return [as_of_asset("policy_values", ("policy_values",), deps, _policy_values, partitions)]


def _num_valued_days(settings: Settings) -> int:
    return min(NUM_VALUED_DAYS, settings.evidence_window_days)


def _policy_values(context: dg.AssetExecutionContext, resource: LakeResource, day: date) -> Iterator[Outcome]:
    from osmf_pipelines.spark.policies import name_arms
    from osmf_pipelines.spark.policy_values import (
        count_logs,
        estimate_policy_values,
        rate_without_heldout,
        sum_arms,
        sum_choices,
    )

    settings, pinned = resource.settings, resource.lake.pin(_INPUTS)
    exposures = name_arms(pinned.read("silver_exposures", evidence_days(day, _num_valued_days(settings))))
    logs = count_logs(exposures)
    told: dict[str, Any] = {
        "num_impressions": logs.num_impressions,
        "num_without_propensity": logs.num_without_propensity,
    }
    common: dict[str, Any] = {"inputs": pinned.versions, "days": (day,)}
    if not logs.num_heldout:
        empty = resource.lake.spark.createDataFrame([], TABLES["policy_values"].ddl)
        told["policies"] = "not valued: no impression of a held-out user has a propensity"
        yield from publish(context, resource, "policy_values", empty, facts=_count_faults([]), metadata=told, **common)
        return
    groups = pinned.read("user_groups", (day,))
    stats = pinned.read("creative_stats", evidence_days(day, settings.evidence_window_days))
    rates, effects = rate_without_heldout(stats, groups, pinned.read("product_splits"), as_of_date=day)
    with cached(rates):
        sums = sum_choices(exposures, groups, rates, effects)
        if logs.num_arms > 1:
            sums = sums.unionByName(sum_arms(exposures))
        values = estimate_policy_values(sums, as_of_date=day, min_users=settings.min_group_users)
        with cached(values):
            rows = [row.asDict() for row in values.orderBy(*TABLES["policy_values"].column_names[:7]).collect()]
            told |= _tell(rows)
            facts = _count_faults(rows)
            yield from publish(context, resource, "policy_values", values, facts=facts, metadata=told, **common)


def _count_faults(rows: Sequence[dict[str, Any]]) -> Facts:
    """How far mean weights of all scopes together are from 1, beyond four of their standard errors."""
    together = [(row["mean_weight"], row["effective_impressions"]) for row in rows if row["scope"] is None]
    excess = [abs(mean - 1) - 4 * mean / sqrt(effective) for mean, effective in together]
    return [{"worst_mean_weight_excess": max(excess, default=0.0)}]


def _tell(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tables and a picture: all scopes together, and scope by scope."""
    together = [row for row in rows if row["scope"] is None]
    scopes = sorted({row["scope"] for row in rows} - {None})
    shown = [row for row in rows if row["scope"] in scopes[:_MAX_SCOPES_SHOWN]]
    hidden = {"num_scopes_not_shown": len(scopes) - _MAX_SCOPES_SHOWN} if len(scopes) > _MAX_SCOPES_SHOWN else {}
    return {
        "all_scopes": as_table([{name: row[name] for name in row if name != "scope"} for row in together]),
        "scopes": as_table(shown),
        "values": picture(plot_policy_values(rows), "what policies earn, with 95% intervals"),
        **hidden,
    }
