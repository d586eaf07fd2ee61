from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from registered_versions import TinyRegistry, record_of

from osmf_pipelines.promotion.promote import Promotions
from osmf_pipelines.settings import Settings


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry without a model: MLflow takes seconds to make one."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    uri = f"sqlite:///{path}"
    assert MlflowClient(uri, uri).search_registered_models() == []
    return path


@pytest.fixture
def home(tmp_path: Path, empty_store: Path) -> Settings:
    """Settings of a home with an empty registry."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return Settings(home=folder, model_name="shop")


@pytest.fixture
def registry(home: Settings) -> TinyRegistry:
    return TinyRegistry(home)


@pytest.fixture
def promotions(home: Settings) -> Promotions:
    return Promotions(home)


@pytest.fixture
def champion(registry: TinyRegistry, promotions: Promotions) -> int:
    """A first version, that is champion."""
    number = registry.add("first", record_of(0.04))
    promotions.register(number, by="test")
    return number
