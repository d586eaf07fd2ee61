"""Pictures to serve: every one that is asked for, the same again, and none that is broken."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from osmf_models.config import DataConfig
from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.generation.draw import draw_with, load_pipeline
from osmf_models.generation.picture_gate import Limits, LoggedPictures, judge_picture
from osmf_models.generation.requests import asked_pictures
from osmf_models.generation.store import PictureStore
from osmf_models.records import GENERATED_COLUMNS, GENERATED_NAME
from osmf_models.stages import generate
from osmf_models.stages.generate import draw_all, judge_all, read_drawing


@pytest.fixture(scope="module")
def export(folders) -> TrainingExport:
    return load_export(folders["export"], DataConfig())


@pytest.fixture(scope="module")
def logged(export) -> LoggedPictures:
    return LoggedPictures.of(export)


def run_generate(folders, output: Path, monkeypatch, *more: object, model="pretrained") -> tuple[dict, pd.DataFrame]:
    values = ["--model", folders[model], "--data", folders["export"], "--output", output, "--num-inference-steps", 2]
    monkeypatch.setattr(sys, "argv", ["generate", *map(str, [*values, *more])])
    generate.main()
    return json.loads((output / "run.json").read_text()), pd.read_parquet(output / GENERATED_NAME)


def product_ids(export: TrainingExport, scope: str = "shoe") -> list[str]:
    return sorted(export.products.product_id[export.products.scope == scope])


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*.png")
    }


def test_every_product_is_drawn_for_every_group_of_its_scope_and_not_twice(folders, export, tmp_path, monkeypatch):
    asked = product_ids(export)[:2]
    pictures, options = tmp_path / "pictures", [f"--product={one}" for one in asked]
    record, rows = run_generate(folders, tmp_path / "a", monkeypatch, "--pictures", pictures, *options)

    groups = set(export.groups.group_id[export.groups.scope == "shoe"])
    assert tuple(rows.columns) == GENERATED_COLUMNS
    assert set(zip(rows.group_id, rows.product_id, strict=True)) == {(g, p) for g in groups for p in asked}
    assert len(rows) == len(groups) * 2 == record["metrics"]["num_drawn"] == len(files_of(pictures))
    assert set(rows.group_id[rows.is_scope_root]) == {"shoe:root"}
    assert rows.seed.nunique() == len(rows)
    for row in rows.itertuples():
        content = Path(row.picture_path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.picture_sha256
        with Image.open(row.picture_path) as image:
            told, pixels = image.info, np.asarray(image)
        assert (told["seed"], told["model_sha256"]) == (str(row.seed), record["model_artifact_sha256"])
        cutout = export.cutouts[int(np.flatnonzero(export.products.product_id == row.product_id)[0])]
        is_product = cutout[..., 3] == 1.0
        assert is_product.sum() > 20
        np.testing.assert_array_equal(pixels[is_product], np.round(255 * cutout[is_product][:, :3]))
    assert json.loads((tmp_path / "a" / "heartbeat.json").read_text())["step"] == len(rows)

    # Other limits judge the same files: nothing is drawn, everything refused.
    before = files_of(pictures)
    strict = ["--pictures", pictures, "--max-scene-distance", "0.01", *options]
    again, refused = run_generate(folders, tmp_path / "b", monkeypatch, *strict)
    assert files_of(pictures) == before
    assert (again["metrics"]["num_drawn"], again["metrics"]["num_refused"]) == (0, len(rows))
    assert set(refused.refusal) == {"unlike_logged"}
    pd.testing.assert_frame_equal(refused.drop(columns="refusal"), rows.drop(columns="refusal"))


def test_what_was_ended_half_way_goes_on_to_the_same_pictures(folders, export, logged, tmp_path):
    drawing = read_drawing(folders["pretrained"], 2, 1.0)
    requests = asked_pictures(export, drawing, (), product_ids(export)[:2])
    draw = draw_with(load_pipeline(folders["pretrained"] / "model", export), export, drawing)
    calls = []

    def draw_once(batch):
        if calls:
            raise KeyboardInterrupt
        calls.append(len(batch))
        return draw(batch)

    def stored(name: str) -> PictureStore:
        (tmp_path / name).mkdir()
        return PictureStore(tmp_path / name / "pictures", export.manifest.image_px)

    whole, ended = stored("whole"), stored("ended")
    draw_all(requests, draw, whole, drawing, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        draw_all(requests, draw_once, ended, drawing, tmp_path / "ended")
    there = [request for request in requests if ended.read(request)]
    assert 0 < len(there) == calls[0] < len(requests)
    # One file was torn by a full disk, another holds an older picture of the same name.
    torn, other = (ended.path(request) for request in there[:2])
    torn.write_bytes(torn.read_bytes()[:-40])
    other.write_bytes(whole.path(requests[-1]).read_bytes())

    num_drawn = draw_all(requests, draw, ended, drawing, tmp_path / "ended")

    assert num_drawn == len(requests) - len(there) + 2
    first, second = (judge_all(requests, export, one, drawing, logged, Limits()) for one in (whole, ended))
    assert list(first.picture_sha256) == list(second.picture_sha256)
    assert first.picture_sha256.notna().all()


def test_one_size_is_one_picture_for_all_groups(folders, export, tmp_path, monkeypatch):
    options = [f"--product={product_ids(export)[0]}"]
    record, rows = run_generate(folders, tmp_path / "out", monkeypatch, *options, model="global_dpo")
    assert len(rows) > 2
    assert rows.picture_sha256.nunique() == rows.picture_path.nunique() == record["metrics"]["num_drawn"] == 1


def test_the_fingerprint_changes_with_all_that_is_drawn_from(folders, export):
    drawing = read_drawing(folders["pretrained"], 2, 1.0)
    asked = ("shoe:young",), product_ids(export)[:1]
    (request,) = asked_pictures(export, drawing, *asked)
    others = [read_drawing(folders["pretrained"], 3, 1.0), read_drawing(folders["pretrained"], 2, 1.5)]
    changed = [asked_pictures(export, other, *asked)[0] for other in others]
    assert {one.seed for one in changed} == {request.seed}
    moved = load_export(folders["export"], DataConfig())
    moved.raw_group_features[:] += 1.0
    changed.append(asked_pictures(moved, drawing, *asked)[0])
    moved = load_export(folders["export"], DataConfig())
    moved.products["title"] = "another"
    changed.append(asked_pictures(moved, drawing, *asked)[0])
    assert len({request.fingerprint, *(one.fingerprint for one in changed)}) == 5


def test_broken_pictures_are_refused_with_the_reason(export, logged):
    row = 0
    cutout = export.cutouts[int(export.creatives.product_index[row])]
    picture, share, noise = export.images[row], cutout[..., 3:], np.random.default_rng(0)

    def verdict(scene, product=cutout[..., :3]):
        image = share * product + (1 - share) * scene
        return judge_picture(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8), cutout, logged, Limits())

    assert verdict(picture).refusal is None
    assert verdict(noise.random(picture.shape)).refusal == "unlike_logged"
    assert verdict(np.full_like(picture, 0.5)).refusal == "unlike_logged"
    assert verdict(picture, product=1.0 - cutout[..., :3]).refusal == "product_changed"
    assert judge_picture(None, cutout, logged, Limits()).refusal == "not_finite"
    # Half of the scene black, in a picture that is otherwise as logged.
    half = picture.copy()
    half[: len(half) // 2] = 0.0
    lenient = Limits(scene_distance=8.0)
    pixels = np.round(255 * (share * cutout[..., :3] + (1 - share) * half)).astype(np.uint8)
    found = judge_picture(pixels, cutout, logged, lenient)
    scene = cutout[..., 3] < 0.02
    assert found.refusal == "clipped"
    assert found.clipped_share == pytest.approx(scene[: len(half) // 2].sum() / scene.sum(), abs=0.02)


def test_logged_pictures_are_like_themselves(export, logged):
    rows = range(0, len(export.creatives), 7)
    distances = [logged.distance(export.images[row], export.masks[row]) for row in rows]
    # The mean of a standard normal's absolute value is 0.80.
    assert 0.5 < np.mean(distances) < 1.1
    assert max(distances) < Limits().scene_distance


def test_what_cannot_be_drawn_is_named(folders, export, tmp_path, monkeypatch):
    for options, message in (
        (["--group=nobody"], r"'nobody' is no group of 2026-03-07: the table group_features .*`group_lineage`"),
        (["--product=ghost", "--product=spook"], r"'ghost', 'spook' are no product with a usable cut-out.*cutout_path"),
        ([f"--product={product_ids(export)[0]}", "--group=mug:root"], "none of the groups is of the category"),
    ):
        with pytest.raises(ValueError, match=message):
            run_generate(folders, tmp_path / "out", monkeypatch, *options)
    changed = tmp_path / "changed"
    (changed / "model").mkdir(parents=True)
    (changed / "run.json").write_text((folders["pretrained"] / "run.json").read_text())
    with pytest.raises(ValueError, match=r"sha256 differs"):
        read_drawing(changed, 2, 1.0)
