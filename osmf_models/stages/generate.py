"""Stage `generate`: draws the picture of each product for each group of its scope, and says which may be shown.

    python -m osmf_models.stages.generate --model DIR --data EXPORT --output DIR [--pictures DIR]
        [--group ID ...] [--product ID ...] [--num-inference-steps 12] [--guidance-scale 1.0]
        [--max-scene-distance 2.5] [--max-clipped-excess 0.15]

Pictures are PNG files in `--pictures`, by default OUTPUT/pictures, and stay as they are: the same model, group and
product have the same seed, so that a run that was ended goes on with what is missing, and a second one draws nothing.
Writes OUTPUT/heartbeat.json as it goes, generated.parquet (a row for each picture asked for, refused ones too),
preview.png, and OUTPUT/run.json last. Which model draws is decided in `osmf_pipelines/promotion/`.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from osmf_models.config import DataConfig
from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.file_hashes import folder_digest
from osmf_models.generation.draw import Draw, batches, draw_missing, draw_with, load_pipeline
from osmf_models.generation.picture_gate import REASONS, Limits, LoggedPictures, judge_picture
from osmf_models.generation.requests import Drawing, PictureRequest, asked_pictures
from osmf_models.generation.store import PictureStore
from osmf_models.records import GENERATED_COLUMNS, GENERATED_NAME, HEARTBEAT_NAME, RUN_RECORD_NAME
from osmf_models.stages.finish import finish_stage
from osmf_models.stages.run_record import run_stage
from osmf_models.training.manifest import file_sha256

logger = logging.getLogger(__name__)

PREVIEW_NAME = "preview.png"
_PREVIEW_ROWS, _PREVIEW_COLUMNS, _PREVIEW_PX = 4, 6, 64
_SECONDS_BETWEEN_LINES = 10.0


def main() -> None:
    """Runs the stage from the command line."""
    options = _parser().parse_args()
    started = time.monotonic()
    (options.output / RUN_RECORD_NAME).unlink(missing_ok=True)
    drawing = read_drawing(options.model, options.num_inference_steps, options.guidance_scale)
    export = load_export(options.data, DataConfig())
    requests = asked_pictures(export, drawing, options.group, options.product)
    limits = Limits(options.max_scene_distance, options.max_clipped_excess)
    logged = LoggedPictures.of(export)
    draw = draw_with(load_pipeline(options.model / "model", export), export, drawing)
    options.output.mkdir(parents=True, exist_ok=True)
    store = PictureStore(options.pictures or options.output / "pictures", export.manifest.image_px)
    num_drawn = draw_all(requests, draw, store, drawing, options.output)
    rows = judge_all(requests, export, store, drawing, logged, limits)
    rows.to_parquet(options.output / GENERATED_NAME, index=False)
    draw_preview(rows, options.output / PREVIEW_NAME)
    written = [options.output / name for name in (GENERATED_NAME, PREVIEW_NAME)]
    record: dict[str, Any] = {
        "stage": "generate",
        "as_of_date": export.manifest.as_of_date,
        "data_hash": export.manifest.data_hash,
        "model_artifact_sha256": drawing.artifact_sha256,
        "config": {**vars(drawing), **vars(limits)},
        "metrics": {**figures(rows), "num_drawn": float(num_drawn)},
        "artifacts": {path.name: file_sha256(path) for path in written if path.is_file()},
        "wall_seconds": time.monotonic() - started,
    }
    finish_stage(options.output, record)


def read_drawing(folder: Path, num_inference_steps: int, guidance_scale: float) -> Drawing:
    """Returns how the model of a finished training stage draws.

    Raises:
        ValueError: when the stage has not finished, or a file of its model has changed since.
    """
    path = folder / RUN_RECORD_NAME
    if not path.is_file():
        raise ValueError(f"{folder} holds no finished run (no {RUN_RECORD_NAME}).")
    record = json.loads(path.read_text())
    sha256 = folder_digest(folder / "model", relative_to=folder)
    if sha256 != record["artifact_sha256"]:
        raise ValueError(f"{folder / 'model'} is not what its {RUN_RECORD_NAME} says (sha256 differs): train again.")
    is_one_size = record.get("config", {}).get("dpo", {}).get("pair_groups") == "null"
    return Drawing(sha256, is_one_size, num_inference_steps, guidance_scale)


def draw_all(requests: list[PictureRequest], draw: Draw, store: PictureStore, drawing: Drawing, output: Path) -> int:
    """Draws what is not in the store yet, telling how far it is; returns how many pictures were drawn."""
    planned = list(batches(requests, store.image_px))
    total, done, drawn = sum(map(len, planned)), 0, 0
    started = told_at = time.monotonic()
    _write_heartbeat(output, 0, total, 0.0)
    for batch in planned:
        found = draw_missing(batch, draw, store, drawing)
        done, drawn = done + len(batch), drawn + found
        now = time.monotonic()
        # What was there already takes no time, and says nothing of what is to come.
        eta = (now - started) / drawn * (total - done) if drawn else 0.0
        _write_heartbeat(output, done, total, eta)
        if now - told_at > _SECONDS_BETWEEN_LINES or done == total:
            told_at = now
            logger.info("%d of %d pictures, %d of them drawn now, %.0f s left", done, total, drawn, eta)
    return drawn


def judge_all(
    requests: Iterable[PictureRequest],
    export: TrainingExport,
    store: PictureStore,
    drawing: Drawing,
    logged: LoggedPictures,
    limits: Limits,
) -> pd.DataFrame:
    """Returns a row of `GENERATED_COLUMNS` for each request, as its picture is on disk."""
    rows = []
    for one in requests:
        found = store.read(one)
        pixels, sha256 = (None, None) if found is None else found
        verdict = judge_picture(pixels, export.cutouts[one.product_index], logged, limits)
        path = None if pixels is None else str(store.path(one))
        names = (one.scope, one.group_id, one.is_scope_root, one.product_id)
        drawn = (drawing.artifact_sha256, drawing.num_inference_steps, drawing.guidance_scale)
        rows.append((*names, path, sha256, one.seed, *drawn, *vars(verdict).values()))
    table = pd.DataFrame(rows, columns=list(GENERATED_COLUMNS))
    # A column without a single value has a type too.
    texts = dict.fromkeys(("picture_path", "picture_sha256", "refusal"), "string")
    return table.astype(texts | dict.fromkeys(("guidance_scale", "scene_distance", "clipped_share"), "float64"))


def figures(rows: pd.DataFrame) -> dict[str, float]:
    """Returns how many pictures there are, how many are refused for what, and what they are like on average."""
    refused = Counter(rows.refusal.dropna())
    judged = rows.dropna(subset=["scene_distance"])
    told = {"num_pictures": len(rows), "num_refused": refused.total()}
    told |= {f"num_refused_{reason}": refused[reason] for reason in REASONS}
    means = {name: judged[name].mean() for name in ("scene_distance", "clipped_share")} if len(judged) else {}
    return {name: float(value) for name, value in (told | means).items()}


def draw_preview(rows: pd.DataFrame, path: Path) -> None:
    """Writes a small picture of pictures that may be shown: a row is a product, a column one of its groups."""
    shown = rows[rows.refusal.isna()]
    first_of_scope = shown.groupby("scope").product_id.transform("first")
    by_product = list(shown[shown.product_id == first_of_scope].groupby("product_id"))[:_PREVIEW_ROWS]
    if not by_product:
        path.unlink(missing_ok=True)
        return
    px = _PREVIEW_PX
    sheet = Image.new("RGB", (_PREVIEW_COLUMNS * px, len(by_product) * px), "white")
    for row, (_, pictures) in enumerate(by_product):
        for column, picture_path in enumerate(pictures.picture_path[:_PREVIEW_COLUMNS]):
            with Image.open(picture_path, formats=["PNG"]) as picture:
                sheet.paste(picture.convert("RGB").resize((px, px)), (column * px, row * px))
    sheet.quantize(256).save(path)


def _write_heartbeat(output: Path, step: int, num_steps: int, eta_seconds: float) -> None:
    content = {"step": step, "num_steps": num_steps, "eta_seconds": eta_seconds, "time": time.time()}
    temporary = output / f".{HEARTBEAT_NAME}.tmp"
    temporary.write_text(json.dumps(content))
    temporary.replace(output / HEARTBEAT_NAME)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, type=Path, help="output of a training stage")
    parser.add_argument("--data", required=True, type=Path, help="folder of a training export")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--pictures", type=Path, help="folder that keeps the pictures; default: OUTPUT/pictures")
    parser.add_argument("--group", action="append", default=[], metavar="ID", help="default: all, and scope roots")
    parser.add_argument("--product", action="append", default=[], metavar="ID", help="default: all with a cut-out")
    parser.add_argument("--num-inference-steps", type=_positive, default=12)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--max-scene-distance", type=float, default=Limits.scene_distance)
    parser.add_argument("--max-clipped-excess", type=float, default=Limits.clipped_excess)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


if __name__ == "__main__":
    run_stage(main)
