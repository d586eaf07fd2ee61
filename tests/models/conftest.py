from __future__ import annotations

from pathlib import Path

import pytest
import torch
from planted_export import PlantedMarket, write_export

from osmf_models.config import DataConfig
from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.model.gmllm import GMllm
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.recipes import load_recipe

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def export_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_export(folder)
    return folder


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> PlantedMarket:
    return write_export(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="session")
def export(export_folder: Path) -> TrainingExport:
    return load_export(export_folder, DataConfig())


@pytest.fixture
def gmllm(export: TrainingExport) -> GMllm:
    torch.manual_seed(0)
    return GMllm.build(load_recipe("tiny").model, export.manifest, list(export.products.title)).eval()


@pytest.fixture
def pipeline(gmllm: GMllm) -> GroupAdPipeline:
    return GroupAdPipeline.of(gmllm)
