"""The model half on formed pairs, with the tiny recipe: through Dagster, in two processes; and an ablation."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from mlflow import MlflowClient
from pyspark.sql import DataFrame
from rich.console import Console

from osmf_models.evaluation.ab_readout import read_readout
from osmf_models.records import ExportManifest
from osmf_pipelines.assets.report_page import read_facts, report_path
from osmf_pipelines.bench.ablation_market import open_markets
from osmf_pipelines.bench.closed_loop_shop import LoopShop
from osmf_pipelines.bench.run_ablation import AblationOptions, run_ablation
from osmf_pipelines.cli.closed_loop import ClosedLoop, LoopOptions
from osmf_pipelines.cli.runs import JobRunner
from osmf_pipelines.definitions import build_defs
from osmf_pipelines.promotion.registry import Registry
from osmf_pipelines.report.page import render
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.serving.assign import assign_group
from osmf_pipelines.serving.serving_map import ServingMap
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.lake import Lake
from osmf_pipelines.spark.simulated_files import logged_creative_ids
from tests.assets.conftest import LAST_DAY, LOGS, Run, small_market

pytestmark = pytest.mark.slow
MODELS = ("pretrained_model", "global_dpo_model", "group_dpo_model", "group_reward_model")
OF_PAIRS = {
    *("num_pairs", "num_contradictions", "calibration_error"),
    *(
        f"{name}{end}"
        for name in ("pair_accuracy", "contradiction_accuracy", "shuffled_contradiction_accuracy")
        for end in ("", "_low", "_high")
    ),
}


def test_a_page_tells_pairs_and_says_what_is_missing(formed_settings: Settings) -> None:
    job = build_defs(formed_settings).resolve_job_def("train_and_evaluate")
    result = job.execute_in_process(
        instance=dg.DagsterInstance.ephemeral(),
        partition_key=LAST_DAY.isoformat(),
        asset_selection=[dg.AssetKey("report_page")],
    )
    told = result.asset_materializations_for_node("report_page")[0].metadata
    path = report_path(formed_settings, LAST_DAY)
    assert (told["page"].value, told["open"].value) == (str(path), path.as_uri())
    assert told["missing"].value.keys() == {"training", "evaluation", "ablation", "verdict"}
    assert "materialise the asset evaluation_report" in told["missing"].value["evaluation"]
    page = path.read_text()
    assert "of 32 products in 4 categories" in page
    assert "Whether probabilities hold can be seen only where the truth is known" in page


def test_models_are_trained_judged_and_registered(
    run: Run, lake: Lake, formed_settings: Settings, drop_folder: Path
) -> None:
    # A few steps' training draws nothing like the logged pictures.
    drawn_by = {"max_scene_distance": 8.0, "max_clipped_excess": 1.0}
    tiny = formed_settings.model_copy(update={"recipe": "tiny", "min_picture_quality": 0.0, **drawn_by})

    # Without a champion nothing is drawn.
    result = run("generate", tiny)
    assert [event.step_key for event in result.all_events if event.is_step_failure] == ["generated_creatives"]

    # Without a truth the reward model judges, and nobody becomes champion by that alone.
    assert run("train_and_evaluate", tiny).success
    judged = lake.read("evaluation_report").collect()
    assert {row["arm"] for row in judged} == {"random", "pretrained", "global_dpo", "group_dpo"}
    assert {row["true_ctr_rate"] for row in judged} == {None}
    assert all(math.isfinite(row["predicted_log_lift"]) for row in judged)
    assert lake.read("registered_model").first()["alias"] in ("challenger", "none")
    report = json.loads((Path(judged[0]["report_path"]) / "report.json").read_text())
    assert report["implicit_reward"]["pretrained"] is None
    assert set(report["implicit_reward"]["group_dpo"]) == {*OF_PAIRS, "calibration"}

    knowing = tiny.model_copy(update={"truth_path": drop_folder.parent / "hidden-truth"})
    # What is trained already serves again.
    trained = {name: _training(lake, name) for name in MODELS}
    result = run("train_and_evaluate", knowing)
    assert result.success
    told = result.asset_materializations_for_node("evaluation_report")[0].metadata
    assert {f"group_dpo/{name}" for name in OF_PAIRS} <= set(told)
    assert {record.data["arm"] for record in told["calibration"].records} == {"global_dpo", "group_dpo"}
    assert {name: _training(lake, name) for name in MODELS} == trained

    arms = {row["arm"] for row in lake.read("evaluation_report").select("arm").distinct().collect()}
    assert arms == {"random", "best_single", "oracle", "pretrained", "global_dpo", "group_dpo"}
    registered = lake.read("registered_model").collect()[0]
    assert (registered["model_version"], registered["alias"]) == (2, "champion")

    client = MlflowClient(tracking_uri=tiny.tracking_uri)
    names = {model_run.info.run_name for model_run in client.search_runs(["1"], "attributes.status = 'FINISHED'")}
    assert names == {f"{name} 2026-03-03" for name in (*MODELS, "evaluation_report", "registered_model")}
    version = client.get_model_version_by_alias(tiny.model_name, "champion")
    assert int(version.version) == 2
    assert version.tags["gate_verdict"] == "passed"
    champion = Registry(tiny).package(Registry(tiny).version(2))
    records = champion.records()
    assert set(records) == {"pretrained", "global_dpo", "group_dpo"}
    assert records["group_dpo"].pairs
    assert {one.dataset.name for one in client.get_run(registered["mlflow_run_id"]).inputs.dataset_inputs} >= {
        "preference_pairs",
        "group_features",
    }
    _check_page(knowing, client)
    pretrained = client.search_runs(["1"], "attributes.run_name = 'pretrained_model 2026-03-03'")[0]
    _check_tracked(client, pretrained, export_path=lake.read("training_export").first()["export_path"])
    for name in MODELS:
        folder = Path(lake.read(name).select("model_path").collect()[0]["model_path"]) / "model"
        assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}

    assert run("generate", tiny).success
    _check_serving(lake, tiny)

    _check_closed_loop(knowing, lake)

    assert run("train_controls", knowing).success
    controls = {row["arm"] for row in lake.read("evaluation_report").select("arm").distinct().collect()} - arms
    assert controls == {"chosen_only", "shuffled_dpo"}
    _check_judged(client, lake, (*MODELS[:3], "chosen_only_model", "shuffled_dpo_model"))


def _training(lake: Lake, name: str) -> tuple[str, int]:
    """The MLflow run of a model, and when its training ended."""
    row = lake.read(name).first()
    return row["mlflow_run_id"], (Path(row["model_path"]) / "run.json").stat().st_mtime_ns


def _check_judged(client: MlflowClient, lake: Lake, models: Sequence[str]) -> None:
    """Models are compared by the same names in the runs that trained them."""
    runs = [client.get_run(_training(lake, name)[0]) for name in models]
    judged = [{name for name in run.data.metrics if name.startswith("judged/")} for run in runs]
    assert {"judged/mean_ctr", "judged/worst_group_ctr", "judged/picture_quality"} <= set.intersection(*judged)
    of_pairs = {f"judged/{name}" for name in OF_PAIRS}
    trained_on_pairs = [found for name, found in zip(models, judged, strict=True) if name != "pretrained_model"]
    assert of_pairs <= set.intersection(*trained_on_pairs)
    assert not of_pairs & judged[models.index("pretrained_model")]
    one_size = runs[models.index("global_dpo_model")].data.metrics
    assert one_size["judged/contradiction_accuracy"] == one_size["judged/shuffled_contradiction_accuracy"] == 0.5
    report = client.search_runs(["1"], "attributes.run_name = 'evaluation_report 2026-03-03'")[0].data.metrics
    for name, run in zip(models, runs, strict=True):
        assert run.data.metrics["judged/mean_ctr"] == report[f"{name.removesuffix('_model')}/mean_ctr"]
        assert run.data.metrics["judged/mean_ctr_percent"] == pytest.approx(100 * run.data.metrics["judged/mean_ctr"])


def _check_tracked(client: MlflowClient, run: Any, export_path: str) -> None:
    """Curves with rising steps, losses by time, the grid, what is trained, and the very data that it learned from."""
    names = ("loss", "clean_error_low_noise", "clean_error_middle_noise", "clean_error_high_noise")
    for name in names:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, f"train/{name}") if metric.step]
        assert steps == [2, 4, 6, 8], name
    assert {"sample_grid.png", "run.json"} <= {one.path for one in client.list_artifacts(run.info.run_id)}
    assert run.data.metrics["num_parameters"] == sum(
        value for name, value in run.data.metrics.items() if name.startswith("num_trainable/")
    )
    manifest = ExportManifest.read(Path(export_path))
    inputs = {one.dataset.name: one.dataset for one in run.inputs.dataset_inputs}
    assert inputs["training_export"].digest == manifest.data_hash[:36]
    told = {name: f"version-{version}" for name, version in manifest.table_versions.items()}
    assert {name: one.digest for name, one in inputs.items() if name != "training_export"} == told


def _check_page(settings: Settings, client: MlflowClient) -> None:
    """The page tells every part, and is kept with the run of the evaluation."""
    path = report_path(settings, LAST_DAY)
    page = path.read_text()
    facts = read_facts(LakeResource(settings), LAST_DAY)
    assert [arm for arm, one in facts.evaluation.implicit_rewards.items() if one] == ["global_dpo", "group_dpo"]
    assert facts.missing().keys() == {"ablation"}
    assert {log.model for log in facts.training} == {name.removesuffix("_model") for name in MODELS}
    assert facts.verdict.alias == "champion"
    assert facts.market.num_events["impression", "kept"] == 120_000
    assert page == render(facts)
    assert page.count("<img") > 2 * len(facts.groups)
    run_id = facts.evaluation.mlflow_run_id
    assert client.get_run(run_id).info.run_name == f"evaluation_report {LAST_DAY}"
    assert "report.html" in {one.path for one in client.list_artifacts(run_id)}


def _check_serving(lake: Lake, settings: Settings) -> None:
    """Each product with a cut-out has a picture for each group of its scope, and the ad server's file says so."""
    drawn, day = lake.read("generated_creatives").collect(), LAST_DAY
    groups = lake.read("group_features", (day,)).select("scope", "group_id").collect()
    products = {row["product_id"]: row["scope"] for row in lake.read("products").collect()}
    asked = {(group["group_id"], one) for one, scope in products.items() for group in groups if group["scope"] == scope}
    assert {(row["group_id"], row["product_id"]) for row in drawn} == asked
    assert {row["model_version"] for row in drawn} == {2}
    serving = ServingMap.read(settings.home / "serving" / f"{day}.jsonl")
    assert {key: shown.path for key, shown in serving.pictures.items()} == {
        (row["group_id"], row["product_id"]): row["picture_path"] for row in drawn
    }
    assert all(Path(shown.path).is_file() for shown in serving.pictures.values())
    exposures = lake.read("silver_exposures", (day,)).select("scope", "user_id", "cell").distinct()
    attributes = lake.read("users").select("user_id", "attributes")
    cells = lake.read("user_groups", (day,)).drop("as_of_date")
    expected = exposures.join(cells, on=["scope", "cell"]).join(attributes, on="user_id").limit(500).collect()
    assert len(expected) == 500
    for row in expected:
        assert assign_group(row["attributes"], row["scope"], serving.rules) == row["group_id"]


def _check_closed_loop(settings: Settings, lake: Lake) -> None:
    """A day is served, logged and refreshed by what the sensor asks for; drawn pictures are creatives, not evidence."""
    day, console = LAST_DAY + timedelta(days=1), Console(file=io.StringIO(), width=200)
    options = LoopOptions(day, num_rounds=1, days_per_round=1, late_day=1)
    with dg.instance_for_test() as instance:
        shop = LoopShop(small_market(), LOGS, settings.drop_folder, 20_000)
        loop = ClosedLoop(settings, shop, options, JobRunner(console), console)
        report = loop.run()
        (refresh,) = instance.get_runs(dg.RunsFilter(job_name="refresh_pairs"))
        assert refresh.tags["dagster/sensor_name"] == "missing_days"
        assert refresh.is_success
        num_runs = len(instance.get_runs())
        assert loop.run() == report
        assert len(instance.get_runs()) == num_runs
    assert f"schedule daily_refresh: the logs of {day} are not complete" in console.file.getvalue()
    arms = {row["arm"]: row for row in report["days"]}
    assert set(arms) == {"control", "one_size", "champion", "explore"}
    assert sum(row["num_impressions"] for row in arms.values()) == 20_000
    for row in arms.values():
        error = (row["exact_click_rate"] / row["num_impressions"]) ** 0.5
        assert abs(row["click_rate"] - row["exact_click_rate"]) < 4 * error
    (told,) = report["rounds"]
    assert (told["champion"], told["challenger"], told["is_promoted"]) == (2, None, False)
    assert read_readout(Path(told["readout"])).is_sound
    drawn = _creatives(lake.read("silver_exposures", (day,)).where("model_version IS NOT NULL"))
    assert drawn
    assert drawn <= _creatives(lake.read("creatives")) - set(logged_creative_ids(small_market()))
    assert _creatives(lake.read("creative_stats", (day,))) <= set(logged_creative_ids(small_market()))
    assert _creatives(lake.read("group_ctr", (day,))) == set(logged_creative_ids(small_market()))
    assert lake.read("truth_report", (day,)).count() > 0


def _creatives(frame: DataFrame) -> set[str]:
    return {row["creative_id"] for row in frame.select("creative_id").distinct().collect()}


def test_an_ablation_goes_on_where_it_was(formed_settings: Settings, drop_folder: Path) -> None:
    knowing = formed_settings.model_copy(
        update={"recipe": "tiny", "num_processes": 1, "truth_path": drop_folder.parent / "hidden-truth"}
    )
    output = knowing.home / "ablation"
    markets = open_markets(knowing, [], None, output)

    def ablate(*arms: str) -> dict:
        options = AblationOptions("tiny", (), arms, (0,), 1, 4)
        return run_ablation(knowing, options, markets, output, Console(file=io.StringIO()))

    report = ablate("global_dpo")
    arms = {arm["arm"]: arm for arm in report["arms"]}
    assert list(arms) == ["pretrained", "group_dpo", "global_dpo", "random", "best_single", "oracle"]
    assert arms["oracle"]["headroom_share"] == pytest.approx(1.0)
    assert arms["random"]["headroom_share"] == pytest.approx(0.0)
    assert arms["pretrained"]["contradiction_accuracy"] is None
    assert arms["global_dpo"]["contradiction_accuracy"] == 0.5
    assert 0.0 <= arms["group_dpo"]["contradiction_accuracy"] <= 1.0
    assert json.loads((output / "ablation.json").read_text()) == report

    records = {path: path.stat().st_mtime_ns for path in output.glob("*/*/*/run.json")}
    assert len(records) == 3 + 4
    again = ablate("global_dpo", "beta_x4")
    assert {path: path.stat().st_mtime_ns for path in records} == records
    assert len(list(output.glob("*/*/*/run.json"))) == len(records) + 2
    assert [arm for arm in again["arms"] if arm["arm"] in arms] == list(report["arms"])
    # The arm that differs in beta alone reads the reference's errors that the recipe noted; one size has its own.
    assert len(list((output / "reference").glob("reference-*.safetensors"))) == 2
