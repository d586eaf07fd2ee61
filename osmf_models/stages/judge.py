"""Stage `judge`: one model on products held out of training, product by product; what `osmf ablate` puts together.

    python -m osmf_models.stages.judge --data EXPORT --truth DIR --group-cells FILE.parquet --output DIR
        [--model NAME=DIR [--pretrained DIR]] [--num-products-per-scope 100] [--num-seeds 2]
        [--num-inference-steps 12] [--guidance-scale 1.0] [--num-pairs 256] [--num-contradictions 128]
        [--encoder-cache DIR]

Without `--model` it judges the arms that are no model: logged pictures, the best single one, the oracle. With
`--pretrained`, the model's reference, it also asks the model's implicit reward about held-out pairs, as
`evaluation/implicit_reward.py` describes. Of every arm
it tells how far its pictures are from the logged ones of the same products, by the features of an encoder that is
fitted to logged pictures of training, once, in OUTPUT or in the folder of `--encoder-cache` that runs share.

Writes OUTPUT/judgements.json (one row per arm, product and group) and kernel_terms.parquet (of the distance); with
`--pretrained` contradictions.json (one row each) and calibration.json (bins); and OUTPUT/run.json last. Comparing
models belongs in `evaluate.py` and in `osmf ablate`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from osmf_models.config import DataConfig
from osmf_models.data.dataset import TrainingExport, load_export
from osmf_models.evaluation.arms import (
    BEST_SINGLE,
    ORACLE,
    RANDOM,
    DrawnCase,
    ModelArm,
    Sampling,
    best_single_pictures,
    logged_pictures,
    model_pictures,
    oracle_pictures,
    read_model_arm,
)
from osmf_models.evaluation.implicit_reward import AskedPairs, ImplicitReward, judge_reward, reference_sha256
from osmf_models.evaluation.kernel_distance import KERNEL_TERMS_NAME, write_kernel_terms
from osmf_models.evaluation.picture_distances import PictureDistances
from osmf_models.evaluation.resampling import Estimate
from osmf_models.evaluation.simulated_ctr import EvaluationSet, evaluation_set, found_groups, read_group_cells
from osmf_models.records import RUN_RECORD_NAME
from osmf_models.simulator.market import Market, load_market
from osmf_models.stages.evaluate import judge_drawn
from osmf_models.stages.finish import finish_stage
from osmf_models.stages.run_record import run_stage
from osmf_models.training import zero
from osmf_models.training.fit_picture_encoder import shared_encoder
from osmf_models.training.reference import verified_pretrained


def main() -> None:
    """Runs the stage from the command line."""
    options = _parser().parse_args()
    _check_counts(options)
    started = time.monotonic()
    (options.output / RUN_RECORD_NAME).unlink(missing_ok=True)
    arm = _arm(options.model) if options.model else None
    if options.pretrained and arm is None:
        raise ValueError("--pretrained is the reference of a --model: name one.")
    if options.pretrained and arm:
        check_reference(arm.folder, options.pretrained)
    export, market = load_export(options.data, DataConfig()), load_market(options.truth)
    groups = found_groups(market, export, read_group_cells(options.group_cells))
    cases = evaluation_set(market, export, groups, options.num_products_per_scope)
    sampling = Sampling(options.num_seeds, options.num_inference_steps, options.guidance_scale)
    options.output.mkdir(parents=True, exist_ok=True)
    encoder = shared_encoder(export, options.encoder_cache or options.output)
    distances = PictureDistances(export, encoder.model)
    drawn = {name: distances.watching(name, one) for name, one in _drawn(arm, market, export, cases, sampling).items()}
    judgements, _ = judge_drawn(drawn, market, export, cases)
    rows = judgements.drop(columns="predicted_log_rate")
    (options.output / "judgements.json").write_text(json.dumps(rows.to_dict("records")))
    terms = {name: distances.terms(name) for name in drawn}
    write_kernel_terms(options.output / KERNEL_TERMS_NAME, terms)
    metrics = picture_metrics(judgements)
    for name, one in terms.items():
        metrics |= Estimate.of(one.resampled(f"{market.name}-{market.seed}")).named(f"{name}/kernel_distance")
    if arm and options.pretrained:
        asked = AskedPairs(options.num_pairs, options.num_contradictions)
        with zero.process_group():
            judged = judge_reward(ImplicitReward.read(arm.folder, options.pretrained, export), export, asked)
        (options.output / "contradictions.json").write_text(json.dumps(judged.contradictions.to_dict("records")))
        bins = [asdict(one) for one in judged.calibration]
        (options.output / "calibration.json").write_text(json.dumps(bins, indent=1))
        metrics |= judged.metrics
    record: dict[str, Any] = {
        "stage": "judge",
        "as_of_date": export.manifest.as_of_date,
        "data_hash": export.manifest.data_hash,
        "evaluation_set_sha256": cases.sha256,
        "config": {**vars(sampling), "num_products_per_scope": options.num_products_per_scope},
        "models": {arm.name: arm.artifact_sha256} if arm else {},
        "picture_encoder": {"name": encoder.name, "sha256": encoder.sha256},
        "metrics": metrics,
        "wall_seconds": time.monotonic() - started,
    }
    finish_stage(options.output, record)


def picture_metrics(judgements: pd.DataFrame) -> dict[str, float]:
    """Returns, per arm, mean_ctr, worst_group_ctr and picture_quality: means over products, then over groups."""
    groups = judgements.groupby(["arm", "group_id"], sort=False)[["true_ctr_rate", "picture_quality"]].mean()
    metrics = {}
    for arm, rows in groups.groupby("arm", sort=False):
        metrics[f"{arm}/mean_ctr"] = float(rows.true_ctr_rate.mean())
        metrics[f"{arm}/worst_group_ctr"] = float(rows.true_ctr_rate.min())
        metrics[f"{arm}/picture_quality"] = float(rows.picture_quality.mean())
    return metrics


def check_reference(model: Path, pretrained: Path) -> None:
    """Looks whether a run's reference was this pretrained model.

    Raises:
        ValueError: when it was another, or the run had none.
    """
    reference = reference_sha256(model)
    if reference is None:
        raise ValueError(f"{model} is no run of stage group_dpo: it has no implicit reward, leave --pretrained out.")
    if reference != verified_pretrained(pretrained):
        raise ValueError(
            f"the reference of {model} was not {pretrained}: name the pretrained model that it began with."
        )


def _check_counts(options: argparse.Namespace) -> None:
    for name in ("num_products_per_scope", "num_seeds", "num_inference_steps", "num_pairs", "num_contradictions"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(options, name)} is not at least 1.")


def _arm(text: str) -> ModelArm:
    name, separator, folder = text.partition("=")
    if not separator or not name or not folder:
        raise ValueError(f"--model {text!r} is not of the form NAME=DIR.")
    return read_model_arm(name, Path(folder))


def _drawn(
    arm: ModelArm | None, market: Market, export: TrainingExport, cases: EvaluationSet, sampling: Sampling
) -> dict[str, Iterator[DrawnCase]]:
    if arm is not None:
        return {arm.name: model_pictures(arm, export, cases, sampling)}
    return {
        RANDOM: logged_pictures(export, cases),
        BEST_SINGLE: best_single_pictures(market, export, cases),
        ORACLE: oracle_pictures(market, export, cases),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of a training export")
    parser.add_argument("--truth", required=True, type=Path, help="truth folder of the simulated market")
    parser.add_argument(
        "--group-cells", required=True, type=Path, help="Parquet: group_id, scope, cell, num_impressions"
    )
    parser.add_argument("--model", metavar="NAME=DIR", help="output of a training stage")
    parser.add_argument(
        "--pretrained", type=Path, metavar="DIR", help="output of stage pretrain: the model's reference"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--encoder-cache", type=Path, help="folder of the picture encoder that runs share (OUTPUT)")
    parser.add_argument("--num-products-per-scope", type=int, default=100)
    parser.add_argument("--num-seeds", type=int, default=Sampling.num_seeds)
    parser.add_argument("--num-inference-steps", type=int, default=Sampling.num_inference_steps)
    parser.add_argument("--guidance-scale", type=float, default=Sampling.guidance_scale)
    parser.add_argument(
        "--num-pairs", type=int, default=AskedPairs.num_pairs, help="held-out pairs asked about, at most"
    )
    parser.add_argument(
        "--num-contradictions",
        type=int,
        default=AskedPairs.num_contradictions,
        help="contradictions asked about, at most",
    )
    return parser


if __name__ == "__main__":
    run_stage(main)
