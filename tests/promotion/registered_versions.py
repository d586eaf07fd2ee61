"""A real registry of tiny versions: files as a registered model has them, and what was found of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient

from osmf_models.evaluation.evaluation_record import (
    RECORDS_NAME,
    EvaluationRecord,
    JudgedCase,
    JudgedPairs,
    write_records,
)
from osmf_models.file_hashes import artifacts_digest, folder_digest
from osmf_pipelines.promotion.audit import AuditTrail, aliases_of
from osmf_pipelines.promotion.promote import trail_path
from osmf_pipelines.settings import Settings

SET, OTHER_SET = "a" * 64, "b" * 64
GROUPS, PRODUCTS = ("g1", "g2"), ("p1", "p2", "p3")
PAIRS = (JudgedPairs("g1", 200, 0.7), JudgedPairs("g2", 200, 0.6))


def record_of(
    rates: dict[str, float] | float | None,
    *,
    lift: float | None = None,
    quality: float = 0.9,
    fidelity: float = 1.0,
    evaluation_set: str = SET,
    artifact: str = "",
    pairs: tuple[JudgedPairs, ...] = (),
) -> EvaluationRecord:
    """Two groups by three products; `rates` by group, the same for each product, None for no truth."""
    by_group = rates if isinstance(rates, dict) else dict.fromkeys(GROUPS, rates)
    cases = tuple(
        JudgedCase("shoe", group, product, by_group[group], None if rates is None else quality, lift, fidelity)
        for group in GROUPS
        for product in PRODUCTS
    )
    sampling = {"num_seeds": 2, "num_inference_steps": 12, "guidance_scale": 1.0}
    reward = None if lift is None else "r" * 64
    return EvaluationRecord(artifact, evaluation_set, reward, sampling, cases, pairs)


class TinyRegistry:
    """Registers versions whose weights are their label."""

    def __init__(self, settings: Settings):
        self.settings = settings
        settings.home.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
        self.client.create_registered_model(settings.model_name)
        self.folders: dict[int, Path] = {}

    def add(self, label: str, record: EvaluationRecord | None, **beside: EvaluationRecord) -> int:
        """Registers a version that was judged together with those in `beside`, by label; returns its number."""
        folder = self.settings.home / "packages" / f"{len(self.folders)}-{label}"
        model = folder / "artifacts" / "model"
        model.mkdir(parents=True)
        (model / "weights.safetensors").write_text(label)
        (folder / "MLmodel").write_text("flavors: {}")
        artifact = self.artifact_of(label)
        if record is not None:
            judged = {"own": replace(record, artifact_sha256=artifact)}
            judged |= {name: replace(one, artifact_sha256=self.artifact_of(name)) for name, one in beside.items()}
            write_records(folder / "artifacts" / RECORDS_NAME, judged)
        tags = {"artifact_sha256": artifact, "package_sha256": folder_digest(folder)}
        version = self.client.create_model_version(self.settings.model_name, folder.as_uri(), tags=tags)
        self.folders[int(version.version)] = folder
        return int(version.version)

    def artifact_of(self, label: str) -> str:
        return artifacts_digest({"model/weights.safetensors": hashlib.sha256(label.encode()).hexdigest()})

    def weights(self, number: int) -> Path:
        return self.folders[number] / "artifacts" / "model" / "weights.safetensors"

    def aliases(self) -> dict[str, int]:
        found = self.client.get_registered_model(self.settings.model_name).aliases
        return {alias: int(number) for alias, number in found.items()}

    def tags(self, number: int) -> dict[str, str]:
        return dict(self.client.get_model_version(self.settings.model_name, str(number)).tags)


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def trail_agrees(registry: TinyRegistry) -> None:
    """The trail's aliases are the registry's."""
    told = aliases_of(AuditTrail(trail_path(registry.settings)).read())
    assert {name: number for name, number in vars(told).items() if number} == registry.aliases()
