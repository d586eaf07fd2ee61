"""The arms that are compared: logged pictures, the best single one, the oracle, and each model.

Every arm yields pictures per (product, group); all models draw from the same noise. Judging them belongs in
`simulated_ctr.py`.

Shapes: `B` pictures of one product for one group, `H W` pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from osmf_models.data.dataset import TrainingExport
from osmf_models.evaluation.simulated_ctr import EvaluationSet, FoundGroup
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.records import RUN_RECORD_NAME
from osmf_models.simulator.market import Market
from osmf_models.simulator.oracle import best_picture, best_single

Images = NDArray[np.floating]
RANDOM, BEST_SINGLE, ORACLE = "random", "best_single", "oracle"


@dataclass(frozen=True)
class Sampling:
    """How models draw.

    Attributes:
        num_seeds: pictures per product and group.
        num_inference_steps: solver steps.
        guidance_scale: on the group.
    """

    num_seeds: int = 2
    num_inference_steps: int = 12
    guidance_scale: float = 1.0


@dataclass(frozen=True)
class ModelArm:
    """A trained model to judge.

    Attributes:
        name: of the arm.
        folder: a stage's output, with model/ and run.json.
        is_one_size: drawn without a group.
        artifact_sha256: hash over the model's files.
    """

    name: str
    folder: Path
    is_one_size: bool
    artifact_sha256: str


@dataclass(frozen=True)
class DrawnCase:
    """Pictures of one product for one group.

    Attributes:
        product_index: row of the export's products.
        group: for whom.
        images: (B, H, W, 3) in [0, 1].
        masks: share of each pixel under the product, (B, H, W); None where it stands as in its cut-out.
    """

    product_index: int
    group: FoundGroup
    images: Images
    masks: Images | None = None


def read_model_arm(name: str, folder: Path) -> ModelArm:
    """Returns the arm of a finished training stage.

    A model that was trained on everyone's pairs under the null group, or whose name begins with `global`, is one size
    for all.

    Raises:
        ValueError: when the stage has not finished or its name is taken by another kind of arm.
    """
    if name in (RANDOM, BEST_SINGLE, ORACLE):
        raise ValueError(f"{name!r} names an arm that is no model: choose another name.")
    path = folder / RUN_RECORD_NAME
    if not path.is_file():
        raise ValueError(f"{folder} holds no finished run (no {RUN_RECORD_NAME}).")
    record = json.loads(path.read_text())
    is_global_run = record.get("config", {}).get("dpo", {}).get("pair_groups") == "null"
    return ModelArm(name, folder, is_global_run or name.startswith("global"), str(record["artifact_sha256"]))


def product_fidelity(export: TrainingExport, case: DrawnCase) -> float:
    """Returns 1 minus the mean difference of pictures from the product's own pixels, in [0, 1].

    NaN where the product stands elsewhere than in its cut-out, as in logged pictures.
    """
    if case.masks is not None:
        return math.nan
    cutout = export.cutouts[case.product_index]
    is_product = cutout[..., 3] == 1.0
    served = np.clip(np.asarray(case.images)[:, is_product], 0.0, 1.0)
    return 1.0 - float(np.abs(served - cutout[is_product][:, :3]).mean()) if is_product.any() else 1.0


def logged_pictures(export: TrainingExport, cases: EvaluationSet) -> Iterator[DrawnCase]:
    """Yields the logged creatives of each product: choosing at random among them is the arm `random`."""
    for product_index in _product_indices(cases):
        rows = np.flatnonzero(export.creatives.product_index == product_index)
        if len(rows):
            images, masks = (np.stack([kept[int(row)] for row in rows]) for kept in (export.images, export.masks))
            yield from _for_every_group(export, cases, product_index, images, masks)


def best_single_pictures(market: Market, export: TrainingExport, cases: EvaluationSet) -> Iterator[DrawnCase]:
    """Yields, for each product, the one picture that is best for all users of its scope."""
    for product_index in _product_indices(cases):
        picture = best_single(market, _product_id(export, product_index), cases.day)
        yield from _for_every_group(export, cases, product_index, picture.image[None] / 255.0)


def oracle_pictures(market: Market, export: TrainingExport, cases: EvaluationSet) -> Iterator[DrawnCase]:
    """Yields, for each product and group, the best picture that the market could draw."""
    for product_index in _product_indices(cases):
        product_id = _product_id(export, product_index)
        for group in cases.groups_of(_scope(export, product_index)):
            picture = best_picture(market, group.scope, group.segment_weights, product_id, cases.day)
            yield DrawnCase(product_index, group, picture.image[None] / 255.0)


def model_pictures(
    arm: ModelArm, export: TrainingExport, cases: EvaluationSet, sampling: Sampling
) -> Iterator[DrawnCase]:
    """Yields what a model draws for each product and group; a one-size model draws once for all groups."""
    pipeline = GroupAdPipeline.from_pretrained(arm.folder / "model", local_files_only=True)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    group_index = {group_id: index for index, group_id in enumerate(export.groups.group_id)}
    for scope, product_indices in cases.product_indices.items():
        if arm.is_one_size:
            drawn = _draw(pipeline, export, product_indices, None, sampling)
            for product_index, images in zip(product_indices, drawn, strict=True):
                yield from _for_every_group(export, cases, product_index, images)
            continue
        wanted = [(product_index, group) for product_index in product_indices for group in cases.groups_of(scope)]
        groups = [group_index[group.group_id] for _, group in wanted]
        drawn = _draw(pipeline, export, [product_index for product_index, _ in wanted], groups, sampling)
        yield from (DrawnCase(*case, images) for case, images in zip(wanted, drawn, strict=True))


def _draw(
    pipeline: GroupAdPipeline,
    export: TrainingExport,
    product_indices: list[int],
    group_indices: list[int] | None,
    sampling: Sampling,
) -> Images:
    """Returns pictures of products, each for the group beside it (None: for everyone), (products, seeds, H, W, 3).

    The noise depends on product and seed alone, so that all groups and all models start from the same.
    """
    num_seeds = sampling.num_seeds
    cutouts = np.stack([export.cutouts[index] for index in product_indices])
    features = None if group_indices is None else np.repeat(export.raw_group_features[group_indices], num_seeds, axis=0)
    titles = [str(export.products.title[index] or "") for index in product_indices for _ in range(num_seeds)]
    noise_seeds = [index * num_seeds + number for index in product_indices for number in range(num_seeds)]
    images = pipeline(
        np.repeat(cutouts[..., :3], num_seeds, axis=0),
        np.repeat(cutouts[..., 3], num_seeds, axis=0),
        titles,
        features,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in noise_seeds],
    )
    return np.asarray(images).reshape(len(product_indices), num_seeds, *cutouts.shape[1:3], 3)


def _for_every_group(
    export: TrainingExport, cases: EvaluationSet, product_index: int, images: Images, masks: Images | None = None
) -> Iterator[DrawnCase]:
    for group in cases.groups_of(_scope(export, product_index)):
        yield DrawnCase(product_index, group, images, masks)


def _product_indices(cases: EvaluationSet) -> list[int]:
    return [index for rows in cases.product_indices.values() for index in rows]


def _product_id(export: TrainingExport, product_index: int) -> str:
    return str(export.products.product_id[product_index])


def _scope(export: TrainingExport, product_index: int) -> str:
    return str(export.products.scope[product_index])
