from __future__ import annotations

import base64
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from osmf_models.evaluation.evaluation_record import RECORDS_NAME, EvaluationRecord, write_records
from osmf_models.records import ExportManifest
from osmf_models.stages import register
from osmf_models.stages.serving_model import BadInputError, GroupAdModel
from osmf_pipelines.promotion.registry import Registry
from osmf_pipelines.settings import Settings

PREDICT = """
import sys, mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1]); mlflow.set_registry_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/osmf-test/1")
rows = pd.read_parquet(sys.argv[2])
model.predict(rows, params={"num_inference_steps": 2}).to_parquet(sys.argv[3])
import osmf_models
assert osmf_models.__file__.startswith(sys.argv[4]), osmf_models.__file__
"""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# A PNG of few bytes that says it is 60,000 pixels wide and high.
BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(bytes(1000)))
    + _chunk(b"IEND", b"")
)


class Poison:
    """Unpickling it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def run_register(folders, output, uri, monkeypatch, *more) -> dict:
    values = ["--data", folders["export"], "--model", folders["pretrained"], "--name", "osmf-test", *more]
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
def test_a_version_tells_what_it_was_made_of_and_a_clean_process_can_draw_with_it(folders, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    trained = json.loads((folders["pretrained"] / "run.json").read_text())
    evaluated = {"pretrained": EvaluationRecord(trained["artifact_sha256"], "set", None, {}, ())}
    write_records(tmp_path / RECORDS_NAME, evaluated)
    more = ("--evaluation", tmp_path, "--lake", "/data/lake")
    record = run_register(folders, tmp_path / "one", uri, monkeypatch, *more)
    assert record["model_version"] == 1
    assert "alias" not in record

    client = MlflowClient(uri, uri)
    version = client.get_model_version("osmf-test", "1")
    assert version.aliases == []
    manifest = ExportManifest.read(folders["export"])
    assert version.tags["artifact_sha256"] == trained["artifact_sha256"]
    assert version.tags["data_hash"] == manifest.data_hash
    assert json.loads(version.tags["table_versions"]) == manifest.table_versions == {"groups": 1}
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|none", version.tags["git_revision"])
    inputs = client.get_run(record["mlflow_run_id"]).inputs.dataset_inputs
    assert [(one.dataset.name, json.loads(one.dataset.source)) for one in inputs] == [
        ("groups", {"path": "/data/lake/groups", "delta_table_version": 1})
    ]
    package = Registry(Settings(home=tmp_path, model_name="osmf-test"))
    files = package.package(package.version(1))
    assert files.changes_since(package.version(1)) == ()
    assert files.records() == evaluated
    assert files.config == trained["config"]
    suffixes = {path.suffix for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".pkl", ".pickle", ".pt", ".bin"}

    for folder in files.model_folder.iterdir():
        if folder.is_dir():
            for name in ("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.pkl"):
                (folder / name).write_bytes(pickle.dumps(Poison(tmp_path / "poisoned")))
    pickle.loads(pickle.dumps(Poison(tmp_path / "works")))
    assert (tmp_path / "works").exists()
    rows = rows_of_one_shoe(folders)
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    rows.to_parquet(tmp_path / "rows.parquet")
    subprocess.run(
        [sys.executable, "-c", PREDICT, uri, tmp_path / "rows.parquet", tmp_path / "drawn.parquet", files.folder],
        check=True,
        cwd=tmp_path,
        env={**outside, "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"},
    )
    check_drawn(rows, pd.read_parquet(tmp_path / "drawn.parquet"))
    assert not (tmp_path / "poisoned").exists()
    changed = package.package(package.version(1)).changes_since(package.version(1))
    assert "files have changed" in changed[0]


def test_an_evaluation_of_another_model_is_not_registered(folders, tmp_path):
    write_records(tmp_path / RECORDS_NAME, {"pretrained": EvaluationRecord("other", "set", None, {}, ())})
    with pytest.raises(ValueError, match="says nothing of this model"):
        register.verified_records(tmp_path, "mine")
    with pytest.raises(ValueError, match="evaluate again"):
        register.verified_records(tmp_path / "nowhere", "mine")


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
    with pytest.raises(ValueError, match="no base64 PNG"):
        model.predict(context, rows.assign(product_png="../../etc/passwd"))
    with pytest.raises(BadInputError, match="exceeds limit"):
        model.predict(context, rows.assign(product_png=base64.b64encode(BOMB).decode()))


def test_a_model_that_changed_after_training_is_not_registered(folders, tmp_path):
    shutil.copytree(folders["pretrained"], tmp_path / "model")
    (tmp_path / "model" / "model" / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match="sha256 differs"):
        register.read_trained_model(tmp_path / "model")
    with pytest.raises(ValueError, match="no finished run"):
        register.read_trained_model(tmp_path)
