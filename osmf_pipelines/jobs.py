"""What is run as one: one process, one Spark session."""

from __future__ import annotations

import dagster as dg

LAKE_TAG = "osmf/lake"
_TRAINING_SECONDS = str(7 * 86_400)  # in place of the instance's limit, which is meant for a refresh
DIMENSIONS = ("users", "products", "creatives", "product_splits", "product_masks", "creative_features")
EVENTS = (
    "bronze_impressions",
    "bronze_clicks",
    "quarantined_events",
    "ingest_ledger",
    "silver_exposures",
    "attribution_ledger",
    "creative_stats",
    "cell_users",
)
PAIRS = (
    "user_groups",
    "group_features",
    "group_lineage",
    "group_ctr",
    "preference_pairs",
    "truth_report",
    "policy_values",
    "training_export",
)
MODELS = (
    "pretrained_model",
    "global_dpo_model",
    "group_dpo_model",
    "group_reward_model",
    "evaluation_report",
    "registered_model",
    "report_page",
)
SERVING = ("generated_creatives", "serving_map")
CONTROLS = ("chosen_only_model", "shuffled_dpo_model", "evaluation_report", "report_page")


def build_jobs(asset_keys: dict[str, dg.AssetKey], lake_name: str) -> list[dg.UnresolvedAssetJobDefinition]:
    """Returns the jobs over the assets that exist.

    Args:
        asset_keys: asset name to key.
        lake_name: tags every run, so that the runs of two lakes are told apart.
    """

    def job(name: str, assets: tuple[str, ...], description: str, **tags: str) -> dg.UnresolvedAssetJobDefinition:
        selection = dg.AssetSelection.assets(*[asset_keys[asset] for asset in assets if asset in asset_keys])
        return dg.define_asset_job(
            name, selection=selection, description=description, tags={LAKE_TAG: lake_name, **tags}
        )

    jobs = [
        job("ingest_days", (*DIMENSIONS, *EVENTS), "Logs of a day, or a range of days, to daily sums."),
        job("form_pairs", PAIRS, "Groups and preference pairs as of a day."),
        job("refresh_pairs", (*DIMENSIONS, *EVENTS, *PAIRS), "A day from its logs to preference pairs."),
    ]
    if MODELS[0] in asset_keys:
        description = "Models from the pairs as of a day, judged, registered, and told on a page."
        limit = {"dagster/max_runtime": _TRAINING_SECONDS}
        jobs.append(job("train_and_evaluate", MODELS, description, **limit))
        description = "Two more controls of the models as of a day, which are judged again beside them."
        jobs.append(job("train_controls", CONTROLS, description, **limit))
        description = "Pictures by the champion for the groups and products as of a day, and the map to serve them by."
        jobs.append(job("generate", SERVING, description, **limit))
    return jobs
