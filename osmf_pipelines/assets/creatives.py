"""Pictures to serve, drawn by the champion, and the map that an ad server reads."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from osmf_models.records import GENERATED_NAME
from osmf_pipelines.assets.groups import as_of_asset
from osmf_pipelines.assets.metadata import picture
from osmf_pipelines.assets.models import export_folder
from osmf_pipelines.assets.publishing import Outcome, asset_specs, cached, check_specs, materialising, publish
from osmf_pipelines.promotion.champion import DrawingModel, champion_model, drawing_arguments
from osmf_pipelines.promotion.registry import Registry
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.resources.trainer import StageRun, Trainer
from osmf_pipelines.tables import TABLES

_MAPPED = ("user_groups", "group_features", "generated_creatives")
_PREVIEW = "preview.png"


class AskedPictures(dg.Config):
    """Which pictures are asked for; the table of the day holds these and no others.

    Attributes:
        group_ids: default: every group, scope roots included.
        product_ids: default: every product that has a cut-out.
    """

    group_ids: list[str] = []  # noqa: RUF012
    product_ids: list[str] = []  # noqa: RUF012


def build_serving_assets(partitions: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Returns the assets from the champion to what an ad server reads."""
    return [
        _generated_creatives(partitions),
        as_of_asset("serving_map", ("serving_map",), list(_MAPPED), _serving_map, partitions, group="serving"),
    ]


def _generated_creatives(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    name, inputs = "generated_creatives", ("training_export", "registered_model")

    @dg.multi_asset(
        name=name,
        specs=asset_specs([name], deps=inputs, group="serving", kind="torch", is_learning=True, partitions=partitions),
        check_specs=check_specs([name]),
        pool="spark",
    )
    def generated_creatives(
        context: dg.AssetExecutionContext,
        config: AskedPictures,
        lake: dg.ResourceParam[LakeResource],
        trainer: dg.ResourceParam[Trainer],
    ) -> Iterator[Outcome]:
        day = date.fromisoformat(context.partition_key)
        with materialising(context, lake, (day,)):
            # The champion may be of another day, so that this day needs no model of its own.
            versions = lake.lake.pin([one for one in inputs if lake.lake.exists(one)]).versions
            export = export_folder(lake, day)
            generations = lake.settings.home / "generations"
            champion = champion_model(Registry(lake.settings), export, generations / f"{day}-champion")
            arguments = drawing_arguments(lake.settings, champion, export, config.group_ids, config.product_ids)
            run = trainer.run(
                "generate", arguments, generations / str(day), run_name=f"{name} {day}", pictures=(_PREVIEW,)
            )
            frame = _rows(lake, run, day, champion.number)
            facts, told = _facts(run, frame), _told(run, champion)
            yield from publish(context, lake, name, frame, inputs=versions, days=(day,), facts=[facts], metadata=told)

    return generated_creatives


def _rows(resource: LakeResource, run: StageRun, day: date, model_version: int) -> Any:
    from pyspark.sql import functions as F

    table = TABLES["generated_creatives"]
    drawn = resource.lake.spark.read.parquet(str(run.output / GENERATED_NAME))
    rows = drawn.withColumn("as_of_date", F.lit(day)).withColumn("model_version", F.lit(model_version))
    return rows.select(*[F.col(column.name).cast(column.type) for column in table.columns])


def _facts(run: StageRun, frame: Any) -> dict[str, float]:
    metrics = run.record["metrics"]
    return {
        "num_missing": metrics["num_pictures"] - frame.count(),
        "refused_share": metrics["num_refused"] / metrics["num_pictures"],
        "num_artifacts_changed": run.count_changed_artifacts(),
    }


def _told(run: StageRun, champion: DrawingModel) -> dict[str, Any]:
    preview = run.output / _PREVIEW
    shown = (
        {"preview": picture(preview, "pictures of some products, a column for each group")} if preview.is_file() else {}
    )
    return {"champion": f"version {champion.number}", **run.record["metrics"], **shown}


def _serving_map(context: dg.AssetExecutionContext, resource: LakeResource, day: date) -> Iterator[Outcome]:
    from osmf_pipelines.spark.serving_map import count_entries, list_serving_map

    pinned = resource.lake.pin(_MAPPED)
    generated = pinned.read("generated_creatives", (day,))
    if generated.isEmpty():
        raise ValueError(f"no pictures of {day} are drawn: materialise generated_creatives of that day first.")
    groups, features = (pinned.read(name, (day,)) for name in ("user_groups", "group_features"))
    frame = list_serving_map(groups, features, generated, as_of_date=day)
    path = resource.settings.home / "serving" / f"{day}.jsonl"
    with cached(frame):
        counts = count_entries(frame, generated)
        paths = frame.where("picture_path IS NOT NULL").select("picture_path").distinct().toLocalIterator()
        counts["num_files_missing"] = sum(not Path(row["picture_path"]).is_file() for row in paths)
        told = {**counts, "file": dg.MetadataValue.path(str(path))}
        yield from publish(
            context, resource, "serving_map", frame, inputs=pinned.versions, days=(day,), facts=[counts], metadata=told
        )
        _write_lines(frame, path)


def _write_lines(frame: Any, path: Path) -> None:
    """Writes the published rows as JSON lines, for an ad server that reads no Delta tables, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as lines:
        for row in frame.toLocalIterator():
            told = row.asDict()
            lines.write(json.dumps({**told, "as_of_date": told["as_of_date"].isoformat()}) + "\n")
    temporary.replace(path)
