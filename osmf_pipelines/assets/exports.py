"""What models are trained on, of a day: a folder of files, and the row that says which one counts.

An export lies in HOME/exports/DAY/HASH, named by what is in it, and is published when its row is: one that is refused,
or not finished, changes nothing for those who read the one before. Writing the files belongs in `spark/export.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg

from osmf_pipelines.assets.groups import as_of_asset
from osmf_pipelines.assets.publishing import Outcome, cached, publish
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.tables import TABLES

_INPUTS = (
    "group_features",
    "group_ctr",
    "preference_pairs",
    "products",
    "product_splits",
    "creatives",
    "product_masks",
    "creative_features",
)


def build_export_asset(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Returns the asset that writes what models are trained on."""
    return as_of_asset("training_export", ("training_export",), list(_INPUTS), _training_export, partitions)


def _training_export(context: dg.AssetExecutionContext, resource: LakeResource, day: date) -> Iterator[Outcome]:
    from osmf_pipelines.spark.export import ExportInputs, count_drawable_pairs, count_left_out, write_export
    from osmf_pipelines.spark.pictures import hash_cutouts

    lake, pinned = resource.lake, resource.lake.pin(_INPUTS)
    as_of = dict.fromkeys(("group_features", "group_ctr", "preference_pairs"), (day,))
    tables = {name: pinned.read(name, as_of.get(name)) for name in _INPUTS}
    tables["products"] = hash_cutouts(tables["products"])
    inputs = ExportInputs(**tables)
    of_day, before = resource.settings.home / "exports" / str(day), _published_folder(resource, day)
    with cached(inputs.products):
        manifest = write_export(inputs, of_day / ".new", as_of_date=str(day), table_versions=pinned.versions)
        folder = of_day / manifest.data_hash[:16]
        _put(of_day / ".new", folder)
        rows = []
        for name in sorted({file.table for file in manifest.files}):
            shards = [file for file in manifest.files if file.table == name]
            num_rows = sum(file.num_rows for file in shards)
            rows.append((day, name, num_rows, len(shards), manifest.data_hash, str(folder)))
        exported = {row[1]: row[2] for row in rows}["preference_pairs"]
        facts = {
            "num_pairs_missing": count_drawable_pairs(inputs) - exported,
            "num_training_pairs": inputs.preference_pairs.where("split = 'train'").count(),
        }
        told = {"left_out": count_left_out(inputs), "folder": dg.MetadataValue.path(str(folder))}
    try:
        yield from publish(
            context,
            resource,
            "training_export",
            lake.spark.createDataFrame(rows, TABLES["training_export"].ddl),
            inputs=pinned.versions,
            days=(day,),
            facts=[facts],
            metadata=told,
        )
    except dg.Failure:
        if folder != before:
            shutil.rmtree(folder)
        raise
    # The one before stays for who still reads it, until the next.
    for other in set(of_day.iterdir()) - {folder, before}:
        shutil.rmtree(other)


def _published_folder(resource: LakeResource, day: date) -> Path | None:
    lake = resource.lake
    row = lake.read("training_export", (day,)).first() if lake.exists("training_export") else None
    return Path(row["export_path"]) if row else None


def _put(new: Path, folder: Path) -> None:
    """Moves an export to its place; what is there under the same name is of the same content, or damaged."""
    replaced = folder.with_name(".replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.replace(replaced)
    new.replace(folder)
    shutil.rmtree(replaced, ignore_errors=True)
