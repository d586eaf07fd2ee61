"""Models trained on the export, judged, and registered: each asset runs one stage of `osmf_models`."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

import osmf_models
from osmf_models.records import HEARTBEAT_NAME, REFERENCE_NAME
from osmf_pipelines.assets.metadata import as_table, picture
from osmf_pipelines.assets.publishing import Outcome, Pool, asset_specs, check_specs, materialising, publish
from osmf_pipelines.assets.truth import has_truth
from osmf_pipelines.partitions import evidence_days
from osmf_pipelines.promotion.champion import ChampionArm, champion_arm
from osmf_pipelines.promotion.promote import Promotions
from osmf_pipelines.promotion.registry import Registry
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.resources.tracking import log_metrics, run_link
from osmf_pipelines.resources.trainer import StageRun, Trainer
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

Lake = dg.ResourceParam[LakeResource]
TrainerParam = dg.ResourceParam[Trainer]
Result = tuple[list[tuple[Any, ...]], dict[str, Any], dict[str, Any]]
Run = Callable[[LakeResource, Trainer, date], Result]
_SOURCES = Path(osmf_models.__file__).parent
MODELS = ("pretrained_model", "global_dpo_model", "group_dpo_model")
_WITHOUT_CONTRAST = ("--set", "dpo.contrast_weight=0")
_WITHOUT_UNSURE = ("--set", "dpo.has_unsure_pairs=false", *_WITHOUT_CONTRAST)
CONTROLS = {
    "chosen_only_model": ("--set", "dpo.preference_weight=0", "--set", "dpo.anchor_weight=1", *_WITHOUT_UNSURE),
    "shuffled_dpo_model": ("--set", "dpo.pair_groups=shuffled", *_WITHOUT_CONTRAST),
}
REWARD = "group_reward_model"


def build_model_assets(partitions: dg.DailyPartitionsDefinition, settings: Settings) -> list[dg.AssetsDefinition]:
    """Returns the assets from pretraining to the registry.

    Training on this machine takes turns with Spark; started elsewhere, it waits for other trainings alone.
    """
    pool: Pool = "gpu" if settings.launch_command or settings.hostfile != Path() else "spark"
    exported, pretrained = ("training_export",), ("training_export", "pretrained_model")
    return [
        _trained("pretrained_model", "pretrain", exported, pool, partitions),
        _trained("global_dpo_model", "group_dpo", pretrained, pool, partitions, "--global-pairs", *_WITHOUT_CONTRAST),
        _trained("group_dpo_model", "group_dpo", pretrained, pool, partitions),
        *(_trained(control, "group_dpo", pretrained, pool, partitions, *flags) for control, flags in CONTROLS.items()),
        _trained(REWARD, "group_reward", exported, "spark", partitions, kind="torch"),
        _evaluation_report(partitions),
        _registered_model(partitions),
    ]


def _stage_asset(
    name: str,
    inputs: tuple[str, ...],
    kind: str,
    run: Run,
    partitions: dg.DailyPartitionsDefinition,
    optional_inputs: tuple[str, ...] = (),
    pool: Pool = "spark",
) -> dg.AssetsDefinition:
    """An asset that runs a stage; `optional_inputs` are waited for where they are made, and may be missing."""

    @dg.multi_asset(
        name=name,
        specs=asset_specs(
            [name], deps=(*inputs, *optional_inputs), group="models", kind=kind, is_learning=True, partitions=partitions
        ),
        check_specs=check_specs([name]),
        pool=pool,
    )
    def asset(context: dg.AssetExecutionContext, lake: Lake, trainer: TrainerParam) -> Iterator[Outcome]:
        day = date.fromisoformat(context.partition_key)
        with materialising(context, lake, (day,)):
            versions = lake.lake.pin([*inputs, *filter(lake.lake.exists, optional_inputs)]).versions
            rows, facts, told = run(lake, trainer.telling(context.log.info), day)
            frame = lake.lake.spark.createDataFrame(rows, TABLES[name].ddl)
            yield from publish(context, lake, name, frame, inputs=versions, days=(day,), facts=[facts], metadata=told)

    return asset


def _trained(
    name: str,
    stage: str,
    inputs: tuple[str, ...],
    pool: Pool,
    partitions: dg.DailyPartitionsDefinition,
    *flags: str,
    kind: str = "deepspeed",
) -> dg.AssetsDefinition:
    """An asset of a model; only what DeepSpeed trains is spread over processes."""

    def train(lake: LakeResource, trainer: Trainer, day: date) -> Result:
        arguments = ["--recipe", lake.settings.recipe, "--data", str(export_folder(lake, day)), *flags]
        made_of = [published(lake, "training_export", day)["data_hash"], _code_sha256()]
        if "pretrained_model" in inputs:
            pretrained = published(lake, "pretrained_model", day)
            arguments += ["--pretrained", pretrained["model_path"]]
            made_of.append(pretrained["artifact_sha256"])
        # What a run is made of names its folder, so that only the same run goes on where it stopped, or serves again.
        fingerprint = hashlib.sha256(" ".join([*arguments, *made_of]).encode()).hexdigest()[:12]
        output = lake.settings.home / "models" / str(day) / f"{name}-{fingerprint}"
        run = trainer.run(
            stage,
            arguments,
            output,
            run_name=f"{name} {day}",
            is_distributed=kind == "deepspeed",
            is_kept=True,
            pictures=("sample_grid.png", "calibration.png"),
        )
        rows = [
            (day, metric, float(value), str(output), run.record["artifact_sha256"], run.mlflow_run_id)
            for metric, value in sorted(run.record["metrics"].items())
        ]
        return (
            rows,
            model_facts(run, lake.settings),
            {
                "model": dg.MetadataValue.path(str(output)),
                "mlflow_run": run_link(lake.settings, run.mlflow_run_id),
                **_pictures(output, "sample_grid", "calibration"),
            },
        )

    return _stage_asset(name, inputs, kind, train, partitions, pool=pool)


@cache
def _code_sha256() -> str:
    """Hash of all that a stage runs of this project."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.rglob("*.py")):
        digest.update(path.relative_to(_SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def model_facts(run: StageRun, settings: Settings) -> dict[str, Any]:
    """Returns the numbers by which the suite of a trained model refuses it."""
    heartbeat, metrics = json.loads((run.output / HEARTBEAT_NAME).read_text()), run.record["metrics"]
    return {
        "num_steps_missing": heartbeat["num_steps"] - heartbeat["step"],
        "num_not_finite": sum(not math.isfinite(value) for value in metrics.values()),
        "num_artifacts_changed": run.count_changed_artifacts(),
        # The reward model alone has it; without pairs to judge it has none.
        "test_pair_accuracy_low": float(metrics.get("test/pair_accuracy_low", 0.0)),
        # Of the pictures of its sample grid; the reward model draws none.
        "scene_distance_excess": metrics.get("sample_grid/scene_distance", math.inf) - settings.max_scene_distance,
    }


def _evaluation_report(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    name, inputs = "evaluation_report", ("training_export", "user_groups", "creative_stats", *MODELS, REWARD)

    def evaluate(lake: LakeResource, trainer: Trainer, day: date) -> Result:
        output = lake.settings.home / "evaluations" / str(day)
        group_cells = lake.settings.home / "evaluations" / f"{day}-group-cells.parquet"
        arguments = ["--data", str(export_folder(lake, day))]
        if has_truth(lake.settings):
            _write_group_cells(lake, day, group_cells)
            arguments += ["--truth", str(lake.settings.truth_folder), "--group-cells", str(group_cells)]
        controls, left_out = _controls(lake, day)
        champion = _champion_arm(lake, day)
        arms = {model.removesuffix("_model"): _model_folder(lake, model, day) for model in (*MODELS, *controls)}
        if champion.folder is not None:
            arms["champion"] = champion.folder
        for arm, folder in arms.items():
            arguments += ["--model", f"{arm}={folder}"]
        arguments += ["--reward", str(_model_folder(lake, REWARD, day))]
        shown = ("grid", "lifts", "predicted_lifts")
        run = trainer.run(
            "evaluate", arguments, output, run_name=f"{name} {day}", pictures=[f"{one}.png" for one in shown]
        )
        _tell_models(lake, day, [*MODELS, *controls], run.record["metrics"])
        report = json.loads((output / "report.json").read_text())
        judged = report["rows"]
        columns = TABLES[name].column_names[1:-1]
        rows = [(day, *[row[column] for column in columns], str(output)) for row in judged]
        left = {"controls_left_out": left_out, "champion": champion.told}
        left["mlflow_run"] = run_link(lake.settings, run.mlflow_run_id)
        bins = [
            {"arm": arm, **row} for arm, one in report["implicit_reward"].items() if one for row in one["calibration"]
        ]
        told = {**left, **_pictures(output, *shown), "calibration": as_table(bins), **run.record["metrics"]}
        return rows, _arm_facts(judged), told

    return _stage_asset(name, inputs, "torch", evaluate, partitions, tuple(CONTROLS))


def _tell_models(resource: LakeResource, day: date, models: list[str], metrics: dict[str, float]) -> None:
    """Logs how each model was judged to the run that trained it, by the same names for all, to be compared there."""
    for model in models:
        arm = f"{model.removesuffix('_model')}/"
        own = {f"judged/{name.removeprefix(arm)}": value for name, value in metrics.items() if name.startswith(arm)}
        own |= {f"{name}_percent": 100.0 * value for name, value in own.items() if name.endswith("_ctr")}
        log_metrics(resource.settings, published(resource, model, day)["mlflow_run_id"], own)


def _controls(resource: LakeResource, day: date) -> tuple[list[str], dict[str, str]]:
    """Returns the controls to judge beside the models, and why others are left out."""
    made_of = {
        "pretrained_sha256": published(resource, "pretrained_model", day)["artifact_sha256"],
        "data_hash": published(resource, "training_export", day)["data_hash"],
    }
    judged, left_out = [], {}
    for name in CONTROLS:
        row = resource.lake.read(name, (day,)).first() if resource.lake.exists(name) else None
        if row is None:
            left_out[name] = "not trained"
        elif json.loads((Path(row["model_path"]) / REFERENCE_NAME).read_text()).items() >= made_of.items():
            judged.append(name)
        else:
            left_out[name] = "trained from another pretrained model or export"
    return judged, left_out


def _champion_arm(lake: LakeResource, day: date) -> ChampionArm:
    judged = {published(lake, model, day)["artifact_sha256"] for model in MODELS}
    folder = lake.settings.home / "evaluations" / f"{day}-champion"
    return champion_arm(Registry(lake.settings), export_folder(lake, day), judged, folder)


def _write_group_cells(resource: LakeResource, day: date, path: Path) -> None:
    from osmf_pipelines.spark.group_cells import count_group_cells

    shown = resource.lake.read("creative_stats", evidence_days(day, resource.settings.evidence_window_days))
    cells: Any = count_group_cells(resource.lake.read("user_groups", (day,)), shown).toPandas()
    path.parent.mkdir(parents=True, exist_ok=True)
    cells.to_parquet(path)


def _arm_facts(judged: list[dict[str, Any]]) -> dict[str, Any]:
    groups_of: dict[str, set[str]] = {}
    for row in judged:
        groups_of.setdefault(row["arm"], set()).add(row["group_id"])
    everyone = set().union(*groups_of.values())
    return {"num_arm_groups_missing": sum(len(everyone - groups) for groups in groups_of.values())}


def _registered_model(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    name, inputs = "registered_model", ("training_export", "group_dpo_model", "evaluation_report")

    def register(lake: LakeResource, trainer: Trainer, day: date) -> Result:
        settings = lake.settings
        model = _model_folder(lake, "group_dpo_model", day)
        arguments = ["--data", str(export_folder(lake, day)), "--model", str(model), "--name", settings.model_name]
        arguments += ["--tracking-uri", settings.tracking_uri, "--lake", settings.lake_root]
        arguments += ["--evaluation", str(published(lake, "evaluation_report", day)["report_path"])]
        run = trainer.run("register", arguments, settings.home / "registrations" / str(day), run_name=f"{name} {day}")
        record = run.record
        number = int(record["model_version"])
        outcome = Promotions(settings).register(number, by=f"asset {name} of {day}")
        row = (day, settings.model_name, number, outcome.alias or "none", record["artifact_sha256"], run.mlflow_run_id)
        trained = json.loads((model / "run.json").read_text())["artifact_sha256"]
        facts = {
            "num_artifacts_changed": int(record["artifact_sha256"] != trained),
            "has_alias": int(bool(outcome.alias)),
        }
        told = {"verdict": "; ".join(outcome.reasons) or "passed", **outcome.figures}
        return [row], facts, told

    return _stage_asset(name, inputs, "mlflow", register, partitions)


def export_folder(resource: LakeResource, day: date) -> Path:
    """Returns where the training export of a day lies."""
    return Path(published(resource, "training_export", day)["export_path"])


def _model_folder(resource: LakeResource, name: str, day: date) -> Path:
    return Path(published(resource, name, day)["model_path"])


def published(resource: LakeResource, name: str, day: date) -> Any:
    """Returns a row of a table of a day.

    Raises:
        ValueError: when there is none.
    """
    row = resource.lake.read(name, (day,)).first()
    if row is None:
        raise ValueError(f"{name} of {day} has not been published: materialise the asset {name} of that day first.")
    return row


def _pictures(folder: Path, *names: str) -> dict[str, Any]:
    """Those of the pictures that are there, shown inside Dagster's metadata."""
    paths = {name: folder / f"{name}.png" for name in names}
    return {name: picture(path, name) for name, path in paths.items() if path.is_file()}
