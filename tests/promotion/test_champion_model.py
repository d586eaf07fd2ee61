"""The champion that draws what is served, or why there is none."""

from __future__ import annotations

import pytest
from registered_versions import TinyRegistry

from osmf_pipelines.promotion.champion import champion_model
from osmf_pipelines.promotion.registry import Registry, RegistryError


def test_without_a_champion_it_says_how_to_make_one(registry: TinyRegistry, tmp_path) -> None:
    registry.add("first", None)
    with pytest.raises(ValueError, match=r"shop has no champion yet.*`osmf promote` makes the challenger champion"):
        champion_model(Registry(registry.settings), tmp_path, tmp_path / "champion")


def test_changed_files_do_not_draw(registry: TinyRegistry, tmp_path) -> None:
    number = registry.add("first", None)
    registry.client.set_registered_model_alias("shop", "champion", str(number))
    registry.weights(number).write_text("another")
    with pytest.raises(ValueError, match=r"version 1 of shop does not draw: its files have changed"):
        champion_model(Registry(registry.settings), tmp_path, tmp_path / "champion")


def test_a_registry_that_does_not_answer_is_named(registry: TinyRegistry, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = registry.settings.model_copy(update={"mlflow_uri": "http://127.0.0.1:9"})
    with pytest.raises(RegistryError, match=r"http://127.0.0.1:9/?\) cannot be reached .*set OSMF_MLFLOW_URI"):
        champion_model(Registry(away), tmp_path, tmp_path / "champion")
