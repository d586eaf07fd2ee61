"""Sample pictures of a training by steps: for each group one of the same product, from the same noise each time.

Whoever starts the stage keeps them with its MLflow run, where a slider goes through the steps of each group. The one
grid over groups belongs in `sample_grid.py`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from osmf_models.data.dataset import TrainingExport
from osmf_models.generation.picture_gate import Limits, LoggedPictures, judge_picture
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.records import SAMPLES_NAME
from osmf_models.training import zero
from osmf_models.training.hand_over import HandOver
from osmf_models.training.loop import Watch

_MOST_GROUPS = 32
_SHOWN_PX = 128
_NUM_INFERENCE_STEPS = 3  # a quarter of a served picture's time, and hardly another picture
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_.-]+")


class SampledTraining:
    """Watches a training, see `loop.train`, and draws samples with the weights that it would hand over.

    The pictures of its end are not drawn here but with what is handed over. Every process must call its methods.

    Args:
        hand_over: of the training.
        export: whose products and groups are shown.
        num_samplings: times that pictures are drawn, evenly spread, the last at the end; 0 for none.
        num_steps: of the training.
        output: folder of the stage.
        watch: another one that goes along, and alone decides when training is over.
    """

    def __init__(
        self,
        hand_over: HandOver,
        export: TrainingExport,
        num_samplings: int,
        num_steps: int,
        output: Path,
        watch: Watch | None = None,
    ):
        self._hand_over, self._export, self._output, self._watch = hand_over, export, output, watch
        self.due_steps = {number * num_steps // num_samplings for number in range(1, num_samplings)} - {0}

    def begin(self, first_step: int) -> None:
        """Removes the pictures of a run that went further."""
        if zero.rank() == 0:
            for folder in (self._output / SAMPLES_NAME).glob("step-*"):
                if int(folder.name.removeprefix("step-")) > first_step:
                    shutil.rmtree(folder)
        if self._watch is not None:
            self._watch.begin(first_step)

    def after_step(self, done: int) -> dict[str, float]:
        """Draws when it is due; returns what the other watch wants logged."""
        if done in self.due_steps:
            folder = self._output / ".sampled-model"
            with torch.random.fork_rng(devices=[]):  # a model that is read draws its weights first
                pipeline = self._hand_over.save_model(folder)
            if pipeline is not None:
                write_group_samples(pipeline.to(zero.device()), self._export, self._output, done)
                shutil.rmtree(folder)
        return {} if self._watch is None else self._watch.after_step(done)

    def is_over(self) -> bool:
        """Returns whether the other watch ends the training."""
        return self._watch is not None and self._watch.is_over()


def write_group_samples(pipeline: GroupAdPipeline, export: TrainingExport, output: Path, step: int) -> None:
    """Writes `output`/samples/step-STEP/SCOPE/GROUP.png for each group of scopes with held-out products.

    It shows the first held-out product of the group's scope. Of many groups the first 32 are shown, by scope and id;
    characters that MLflow does not take in a picture's name are replaced.
    """
    wanted = _shown(export)
    if not wanted:
        return
    pictures = _drawn(pipeline, export, wanted)
    groups = export.groups.iloc[[group for group, _ in wanted]]
    scale = max(1, _SHOWN_PX // pipeline.image_px)
    for picture, *names in zip(pictures, groups.scope, groups.group_id, strict=True):
        pixels = _pixels(picture)
        scope, group_id = (_NOT_IN_A_NAME.sub("-", str(name)) for name in names)
        path = output / SAMPLES_NAME / f"step-{step:07d}" / scope / f"{group_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(pixels, np.ones((scale, scale, 1), np.uint8))).save(path)


def refused_share(folder: Path, export: TrainingExport) -> float:
    """Returns the share of a saved model's sample pictures, in [0, 1], that the picture gate refuses; 0 without any."""
    wanted = _shown(export)
    if not wanted:
        return 0.0
    logged, limits = LoggedPictures.of(export), Limits()
    with torch.random.fork_rng(devices=[]):  # a model that is read draws its weights first
        pipeline = GroupAdPipeline.from_pretrained(folder, local_files_only=True).to(zero.device())
    pictures = _drawn(pipeline, export, wanted)
    verdicts = [
        judge_picture(_pixels(picture) if np.isfinite(picture).all() else None, export.cutouts[product], logged, limits)
        for picture, (_, product) in zip(pictures, wanted, strict=True)
    ]
    return sum(verdict.refusal is not None for verdict in verdicts) / len(verdicts)


def _shown(export: TrainingExport) -> list[tuple[int, int]]:
    """Returns (group, product), rows of the export, of what is drawn."""
    groups = export.groups.reset_index(drop=True)
    groups = groups[~groups.is_scope_root].sort_values(["scope", "group_id"])
    held_out = export.products.reset_index(drop=True)
    held_out = held_out[held_out.split != "train"]
    products = {scope: int(rows.index[0]) for scope, rows in held_out.groupby("scope")}
    shown = groups[groups.scope.isin(products)].head(_MOST_GROUPS)
    return [(int(group), products[scope]) for group, scope in shown.scope.items()]


def _pixels(picture: np.ndarray) -> np.ndarray:
    return np.round(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)


def _drawn(pipeline: GroupAdPipeline, export: TrainingExport, wanted: list[tuple[int, int]]) -> np.ndarray:
    """Returns a picture of each (group, product), rows of the export, (B, H, W, 3); noise is the product's."""
    cutouts = np.stack([export.cutouts[product] for _, product in wanted])
    return pipeline(
        cutouts[..., :3],
        cutouts[..., 3],
        [str(export.products.title.iloc[product] or "") for _, product in wanted],
        export.raw_group_features[[group for group, _ in wanted]],
        num_inference_steps=_NUM_INFERENCE_STEPS,
        generator=[torch.Generator().manual_seed(product) for _, product in wanted],
    )
