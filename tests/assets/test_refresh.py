"""The data half through Dagster: what is published, what is refused, what stays."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import functions as F

from osmf_models.records import EXPORT_TABLES, ExportManifest
from osmf_pipelines.definitions import build_defs
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.lake import Lake
from osmf_pipelines.tables import TABLES
from tests.assets.conftest import LAST_DAY, Run

OF_MODELS = {"evaluation_report", "generated_creatives", "serving_map"}
DATA_TABLES = [name for name in TABLES if not name.endswith("_model") and name not in OF_MODELS]


def test_logs_become_pairs_and_an_export_and_are_judged_where_the_truth_is_known(
    run: Run, lake: Lake, market_settings: Settings, drop_folder: Path
) -> None:
    assert run("ingest_days").success
    knowing = market_settings.model_copy(update={"truth_path": drop_folder.parent / "hidden-truth"})
    assert run("form_pairs", knowing).success
    assert all(lake.exists(name) for name in DATA_TABLES)
    _check_judgement(lake)
    _check_policy_values(lake)

    # 60,000 distinct impressions a day were written; what was delivered twice is counted, not kept.
    exposures = lake.read("silver_exposures").groupBy("event_date").count().collect()
    assert [row["count"] for row in exposures] == [60_000, 60_000]
    assert lake.read("quarantined_events").count() == 0
    sums = lake.read("creative_stats").agg(F.sum("num_impressions")).collect()[0][0]
    assert sums == 120_000

    pairs = lake.read("preference_pairs")
    assert pairs.where("NOT is_scope_root").count() > 0
    assert pairs.where("chosen_better_probability < 0.9").count() == 0

    folder = Path(lake.read("training_export").first()["export_path"])
    manifest = ExportManifest.read(folder)
    assert {file.table for file in manifest.files} == set(EXPORT_TABLES)
    groups = pd.concat(pd.read_parquet(folder / file.path) for file in manifest.files if file.table == "groups")
    assert tuple(groups.columns) == EXPORT_TABLES["groups"]
    assert {len(vector) for vector in groups["features"]} == {len(manifest.group_feature_names)}

    _check_nobody_is_named(folder, lake)
    _check_exports_of_the_day(run, lake, market_settings, folder)


def _check_exports_of_the_day(run: Run, lake: Lake, settings: Settings, folder: Path) -> None:
    """One that fails changes nothing; one of the same tables is of the same name; what nobody reads is removed."""
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    picture = next((settings.source_path / "pictures" / "images").rglob("*.png"))
    pixels = picture.read_bytes()
    picture.unlink()
    assert not run("form_pairs", settings, "training_export").success
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert lake.read("training_export").first()["export_path"] == str(folder)

    picture.write_bytes(pixels)
    assert run("form_pairs", settings, "training_export").success
    assert lake.read("training_export").first()["export_path"] == str(folder)
    assert list(folder.parent.iterdir()) == [folder]


def _check_judgement(lake: Lake) -> None:
    """Every scope is judged, each comparison is in one bin, and the figures are shares."""
    report = lake.read("truth_report").toPandas()
    groups = lake.read("user_groups").toPandas()
    assert set(report["scope"]) == set(groups["scope"])
    found = report[report["measure"] == "num_groups"].set_index("scope")["value"].to_dict()
    assert found == groups.groupby("scope")["group_id"].nunique().to_dict()
    assert report[~report["measure"].isin(["num_groups", "num_segments"])]["value"].between(-1, 1).all()
    # 8 products of a scope, 4 creatives of each, in every group.
    bins = report[report["measure"] == "right_share"].groupby("scope")["num_cases"].sum()
    assert bins.to_dict() == {scope: 8 * 6 * num_groups for scope, num_groups in found.items()}


def _check_policy_values(lake: Lake) -> None:
    """Held-out users value the policies, together and scope by scope; what groups prefer earns more than is shown."""
    values = lake.read("policy_values").toPandas()
    assert set(values["scope"]) - {None} == {row["scope"] for row in lake.read("user_groups").select("scope").collect()}
    together = values[values["scope"].isna()].set_index(["policy", "compared_with", "estimator"])
    heldout = lake.read("silver_exposures").where("user_fold = 0")
    assert set(together["num_impressions"]) == {heldout.count()}
    assert set(together["num_users"]) == {heldout.select("user_id").distinct().count()}
    gain = together.loc["best_per_group", "logging", "dr"]
    assert 0 < gain["value_low"] < gain["value"] < gain["value_high"]
    assert gain["mean_weight"] == pytest.approx(1, abs=0.05)
    assert gain["effective_impressions"] == pytest.approx(heldout.count() / 4, rel=0.05)  # one of four creatives each


def test_logs_whose_truth_is_not_known_are_not_judged(market_settings: Settings) -> None:
    names = {key.path[-1] for key in build_defs(market_settings).resolve_asset_graph().get_all_asset_keys()}
    assert "preference_pairs" in names
    assert "truth_report" not in names
    with pytest.raises(ValueError, match=r"holds no market\.json"):
        build_defs(market_settings.model_copy(update={"truth_path": market_settings.home / "nowhere"}))


def _check_nobody_is_named(folder: Path, lake: Lake) -> None:
    """No user id, hashed or not, is in a table that is not restricted, nor in the export."""
    user = lake.read("users").select("user_id").first()["user_id"]
    for name in DATA_TABLES:
        if lake.exists(name) and not TABLES[name].is_restricted:
            assert "user_id" not in lake.read(name).columns
            text = lake.read(name).select(F.to_json(F.struct("*")).alias("row")).where(F.col("row").contains(user))
            assert text.count() == 0, name
    assert all(user.encode() not in path.read_bytes() for path in folder.rglob("*.parquet"))


def test_a_day_without_its_marker_is_not_taken(run: Run, market_settings: Settings) -> None:
    (market_settings.drop_folder / "days" / LAST_DAY.isoformat() / "_SUCCESS").unlink()
    result = run("ingest_days")
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "day 2026-03-03 is not complete" in str(failure.step_failure_data.error)
