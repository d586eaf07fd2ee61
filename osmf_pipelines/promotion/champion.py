"""The champion as files: to be judged beside its challengers on the same cases, and to draw what is served.

What is made of a judgement belongs in `gate.py`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osmf_models.records import RUN_RECORD_NAME, ExportManifest
from osmf_pipelines.promotion.registry import Package, Registry

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings


@dataclass(frozen=True)
class ChampionArm:
    """What there is to judge.

    Attributes:
        folder: as the output of a training stage; None where there is nothing to judge.
        told: which version it is, or why there is none.
    """

    folder: Path | None
    told: str


@dataclass(frozen=True)
class DrawingModel:
    """A model that draws what is served.

    Attributes:
        folder: as the output of a training stage.
        number: of its version.
        sampling: how pictures were drawn when it was judged: num_inference_steps, guidance_scale; empty where it was
            registered without an evaluation.
    """

    folder: Path
    number: int
    sampling: dict[str, float]


def champion_model(registry: Registry, export: Path, folder: Path) -> DrawingModel:
    """Returns the champion, to draw for the groups and products of an export.

    Args:
        registry: where it is registered.
        export: folder of the training export.
        folder: to write; the model's files stay where they are.

    Raises:
        RegistryError: when the registry cannot be reached, or knows no such model.
        ValueError: when there is no champion, its files have changed, or it cannot draw for these groups.
    """
    number = registry.aliases().champion
    if number is None:
        raise ValueError(
            f"{registry.name} has no champion yet, and the champion draws what is served: `osmf promote` makes the "
            "challenger champion, `osmf promote --version N` another version."
        )
    return drawing_model(registry, number, export, folder)


def drawing_model(registry: Registry, number: int, export: Path, folder: Path) -> DrawingModel:
    """Returns a version, to draw for the groups and products of an export; arguments as `champion_model`.

    Raises:
        RegistryError: when the registry cannot be reached, or there is no such version.
        ValueError: when its files have changed, or it cannot draw for these groups.
    """
    version = registry.version(number)
    package = registry.package(version)
    reasons = package.changes_since(version)
    if reasons:
        raise ValueError(f"version {number} of {registry.name} does not draw: {'; '.join(reasons)}.")
    manifest = ExportManifest.read(export)
    problem = _cannot_draw(package.model_folder, manifest)
    if problem:
        raise ValueError(
            f"version {number} of {registry.name} {problem}: train a model as of {manifest.as_of_date} and promote it."
        )
    _write_arm(package, folder)
    judged = package.records().values() if package.has_records else ()
    found = [one.sampling for one in judged if one.artifact_sha256 == package.artifact_sha256]
    return DrawingModel(folder, number, found[0] if found else {})


def drawing_arguments(
    settings: Settings,
    model: DrawingModel,
    export: Path,
    group_ids: Sequence[str] = (),
    product_ids: Sequence[str] = (),
) -> list[str]:
    """Returns the command line of stage generate: a model draws as it did when it was judged.

    Args:
        settings: where pictures go, and what they must be like to be shown.
        model: that draws.
        export: folder of the training export.
        group_ids: default: all.
        product_ids: default: all.
    """
    values: dict[str, object] = {
        "--data": export,
        "--model": model.folder,
        "--pictures": settings.home / "creatives",
        "--max-scene-distance": settings.max_scene_distance,
        "--max-clipped-excess": settings.max_clipped_excess,
    }
    for option, number in (("num_inference_steps", int), ("guidance_scale", float)):
        if option in model.sampling:
            values[f"--{option.replace('_', '-')}"] = number(model.sampling[option])
    asked_for = [("--group", one) for one in group_ids] + [("--product", one) for one in product_ids]
    # An id may begin with a hyphen.
    return [f"{option}={value}" for option, value in (*values.items(), *asked_for)]


def champion_arm(registry: Registry, export: Path, judged_sha256: Collection[str], folder: Path) -> ChampionArm:
    """Returns the champion for an evaluation on an export.

    Args:
        registry: where it is registered.
        export: folder of the training export.
        judged_sha256: hashes of the models that are judged anyway.
        folder: to write; the model's files stay where they are.

    Raises:
        RegistryError: when the registry cannot be reached.
    """
    number = registry.aliases().champion if registry.is_registered() else None
    if number is None:
        return ChampionArm(None, "no champion yet")
    package = registry.package(registry.version(number))
    if package.artifact_sha256 in judged_sha256:
        return ChampionArm(None, f"version {number} is among the models of this day")
    problem = _cannot_draw(package.model_folder, ExportManifest.read(export))
    if problem:
        return ChampionArm(None, f"version {number} {problem}: register under another OSMF_MODEL_NAME")
    _write_arm(package, folder)
    return ChampionArm(folder, f"version {number}")


def _cannot_draw(model: Path, manifest: ExportManifest) -> str:
    """Why a model cannot draw for the groups of an export; empty where it can."""
    encoder, denoiser = (
        json.loads((model / part / "config.json").read_text()) for part in ("group_encoder", "denoiser")
    )
    if tuple(encoder["feature_names"]) != manifest.group_feature_names:
        return "knows other group features than these days' groups have"
    if denoiser["image_px"] != manifest.image_px:
        return f"draws {denoiser['image_px']} px, these pictures have {manifest.image_px}"
    return ""


def _write_arm(package: Package, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "model"
    link.unlink(missing_ok=True)
    link.symlink_to(package.model_folder.absolute(), target_is_directory=True)
    record = {"artifact_sha256": package.artifact_sha256, "config": package.config}
    (folder / RUN_RECORD_NAME).write_text(json.dumps(record))
