"""The Dagster code location: settings in, assets, jobs, schedules, sensors and resources out.

Loads without Spark and torch; both are imported where an asset runs.
"""

from __future__ import annotations

import warnings
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from osmf_pipelines.assets.bronze import build_bronze_asset
from osmf_pipelines.assets.creatives import build_serving_assets
from osmf_pipelines.assets.dimensions import build_dimension_assets
from osmf_pipelines.assets.exports import build_export_asset
from osmf_pipelines.assets.exposures import build_exposure_assets
from osmf_pipelines.assets.groups import build_group_assets
from osmf_pipelines.assets.models import build_model_assets
from osmf_pipelines.assets.policies import build_policy_assets
from osmf_pipelines.assets.report_page import build_report_asset
from osmf_pipelines.assets.truth import build_truth_assets
from osmf_pipelines.jobs import build_jobs
from osmf_pipelines.maintenance import build_maintenance
from osmf_pipelines.partitions import daily_partitions
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.resources.trainer import OnProgress, Trainer
from osmf_pipelines.schedules import build_daily_refresh, build_weekly_training
from osmf_pipelines.sensors import build_failure_sensor, build_missing_days_sensor
from osmf_pipelines.settings import Settings

# Single-run backfills and windows that reach before the first day: both beta, both relied on.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
# Events take a range of days in one run, as-of assets a day a run: `refresh_pairs`, which holds both, a day a run.
warnings.filterwarnings("ignore", message="Asset job .* materializes assets with varying BackfillPolicies")


def build_defs(
    settings: Settings,
    *,
    key_prefix: str | None = None,
    has_pictures: bool = True,
    on_progress: OnProgress | None = None,
    resource_overrides: dict[str, Any] | None = None,
) -> dg.Definitions:
    """Returns the definitions of one lake.

    Args:
        settings: of the lake.
        key_prefix: before every asset key, to tell two lakes in one Dagster apart.
        has_pictures: without, the chain ends at the preference pairs.
        on_progress: told how far training is.
        resource_overrides: replace `lake` or `trainer`.
    """
    partitions = daily_partitions(settings)
    assets = [
        *build_dimension_assets(),
        build_bronze_asset(partitions),
        *build_exposure_assets(partitions),
        *build_group_assets(partitions, settings),
        *build_truth_assets(partitions, settings),
        *build_policy_assets(partitions, settings),
    ]
    if has_pictures:
        assets += [
            build_export_asset(partitions),
            *build_model_assets(partitions, settings),
            *build_serving_assets(partitions),
        ]
        assets.append(build_report_asset(partitions, settings))
    if key_prefix:
        assets = [_with_prefix(asset, key_prefix) for asset in assets]
    keys = {key.path[-1]: key for asset in assets for key in asset.keys}
    jobs = build_jobs(keys, key_prefix or "own")
    refresh = next(job for job in jobs if job.name == "refresh_pairs")
    maintenance, weekly = build_maintenance(settings)
    schedules, goes_on = [weekly], settings.end_date is None
    if goes_on:
        schedules.append(build_daily_refresh(settings, refresh))
    if has_pictures:
        training = next(job for job in jobs if job.name == "train_and_evaluate")
        schedules.append(build_weekly_training(settings, training, keys["training_export"], keys["registered_model"]))
    resources = {"lake": LakeResource(settings), "trainer": Trainer(settings, on_progress)}
    return dg.Definitions(
        assets=assets,
        jobs=[*jobs, maintenance],
        schedules=schedules,
        sensors=[
            build_failure_sensor(settings),
            *([build_missing_days_sensor(settings, refresh, keys["preference_pairs"])] if goes_on else []),
        ],
        resources={**resources, **(resource_overrides or {})},
        # One process, one Spark session: a refresh starts one JVM.
        executor=dg.in_process_executor,
    )


def open_bandit_settings(settings: Settings) -> Settings:
    """Returns the settings of the Open Bandit logs' lake, which lies in a folder of its own."""
    return settings.model_copy(
        update={
            "home": settings.home / "open_bandit",
            "lake": "",
            "truth_path": Path(),
            "source": "open_bandit",
            "first_date": date(2019, 11, 24),
            "end_date": date(2019, 12, 1),
        }
    )


def _with_prefix(asset: dg.AssetsDefinition, prefix: str) -> dg.AssetsDefinition:
    keys = {key: dg.AssetKey([prefix, *key.path]) for key in (*asset.keys, *asset.dependency_keys)}
    return asset.with_attributes(asset_key_replacements=keys)


def open_bandit_defs(settings: Settings) -> dg.Definitions:
    """Returns the definitions of the Open Bandit logs."""
    return build_defs(open_bandit_settings(settings), key_prefix="open_bandit", has_pictures=False)


@dg.definitions
def defs() -> dg.Definitions:
    """The lake that the environment's settings name."""
    return build_defs(Settings())
