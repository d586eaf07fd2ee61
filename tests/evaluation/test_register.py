from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from osmf_models.records import ExportManifest
from osmf_models.stages import register
from osmf_models.stages.serving_model import GroupAdModel

PREDICT = """
import sys, mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1]); mlflow.set_registry_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/osmf-test@champion")
rows = pd.read_parquet(sys.argv[2])
model.predict(rows, params={"num_inference_steps": 2}).to_parquet(sys.argv[3])
"""


def run_register(folders, output, uri, monkeypatch) -> dict:
    values = ["--data", folders["export"], "--model", folders["pretrained"], "--name", "osmf-test"]
    monkeypatch.setattr(sys, "argv", ["register", *map(str, [*values, "--tracking-uri", uri, "--output", output])])
    register.main()
    return json.loads((output / "run.json").read_text())


def rows_of_one_shoe(folders) -> pd.DataFrame:
    products = pd.read_parquet(folders["export"] / "products.parquet")
    product = products[products.scope == "shoe"].iloc[0]
    picture = base64.b64encode(product.cutout_png).decode()
    group_ids = ["shoe:young", "shoe:men_35_up", "shoe:root"]
    return pd.DataFrame({"product_png": [picture] * 3, "title": [product.title] * 3, "group_id": group_ids})


def check_drawn(rows: pd.DataFrame, drawn: pd.DataFrame) -> None:
    """The product is kept to the last bit, and groups differ."""
    images = [pixels(text) for text in drawn.image_png]
    for image, own in zip(images, map(pixels, rows.product_png), strict=True):
        np.testing.assert_array_equal(image[own[..., 3] == 255], own[own[..., 3] == 255][:, :3])
    assert not np.array_equal(images[0], images[1])


def pixels(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.slow
def test_the_first_version_is_champion_and_a_clean_process_can_draw_with_it(folders, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = run_register(folders, tmp_path / "one", uri, monkeypatch)
    second = run_register(folders, tmp_path / "two", uri, monkeypatch)
    assert (first["model_version"], first["alias"]) == (1, "champion")
    assert (second["model_version"], second["alias"]) == (2, "challenger")
    assert first["artifact_sha256"] == json.loads((folders["pretrained"] / "run.json").read_text())["artifact_sha256"]
    suffixes = {path.suffix for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".pkl", ".pickle", ".pt", ".bin"}

    rows = rows_of_one_shoe(folders)
    rows.to_parquet(tmp_path / "rows.parquet")
    subprocess.run(
        [sys.executable, "-c", PREDICT, uri, tmp_path / "rows.parquet", tmp_path / "drawn.parquet"],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"},
    )
    check_drawn(rows, pd.read_parquet(tmp_path / "drawn.parquet"))


def test_the_served_model_answers_a_row_with_a_picture_and_refuses_what_it_cannot_draw(folders, tmp_path):
    register.write_groups(folders["export"], ExportManifest.read(folders["export"]), tmp_path / "groups.parquet")
    artifacts = {"pipeline": str(folders["pretrained"] / "model"), "groups": str(tmp_path / "groups.parquet")}
    context = SimpleNamespace(artifacts=artifacts)
    model = GroupAdModel()
    model.load_context(context)
    rows = rows_of_one_shoe(folders)
    check_drawn(rows, model.predict(context, rows, {"num_inference_steps": 2}))
    with pytest.raises(ValueError, match="'nobody' is not one"):
        model.predict(context, rows.assign(group_id="nobody"))
    with pytest.raises(ValueError, match="no base64 PNG"):
        model.predict(context, rows.assign(product_png=base64.b64encode(b"GIF89a").decode()))


def test_a_model_that_changed_after_training_is_not_registered(folders, tmp_path):
    shutil.copytree(folders["pretrained"], tmp_path / "model")
    (tmp_path / "model" / "model" / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match="sha256 differs"):
        register.read_trained_model(tmp_path / "model")
    with pytest.raises(ValueError, match="no finished run"):
        register.read_trained_model(tmp_path)
