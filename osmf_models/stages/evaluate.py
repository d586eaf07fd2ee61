"""Stage `evaluate`: judges models on products held out of training, by the simulator's exact click rates.

    python -m osmf_models.stages.evaluate --data EXPORT --truth DIR --group-cells FILE.parquet
        --model pretrained=DIR --model global_dpo=DIR --model group_dpo=DIR --output DIR
        [--reward DIR] [--num-products-per-scope 4] [--num-seeds 2] [--num-inference-steps 12] [--guidance-scale 1.0]

With `--reward`, the output of stage group_reward, each lift is predicted too, and held against the true one. Where
there is no simulator, `--truth` and `--group-cells` are left out, and predictions are all that is told of pictures.
A preference-trained model whose reference is among the models is asked about held-out pairs
(`evaluation/implicit_reward.py`).

Writes OUTPUT/report.json (one row per arm and group, and each model's implicit reward, or null); grid.png and lifts.png
where there is a truth; predicted_lifts.json with `--reward`, predicted_lifts.png with both; gallery.parquet, the single
pictures; evaluation_records.json, every model case by case, on which promotion decides; and OUTPUT/run.json last.
Training belongs in the other stages.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
    product_fidelity,
    read_model_arm,
)
from osmf_models.evaluation.evaluation_record import (
    RECORDS_NAME,
    EvaluationRecord,
    judged_cases,
    read_judged_pairs,
    write_records,
)
from osmf_models.evaluation.gallery import GALLERY_NAME, write_gallery
from osmf_models.evaluation.implicit_reward import AskedPairs, JudgedReward, judge_rewards
from osmf_models.evaluation.predicted_lift import (
    RewardJudge,
    agreement,
    lifts_by_group,
    predicted_lifts,
    with_log_rates,
)
from osmf_models.evaluation.report import ShownPicture, draw_grid, draw_lifts, draw_predicted_lifts, grid_rows
from osmf_models.evaluation.simulated_ctr import (
    EvaluationSet,
    evaluation_set,
    exported_groups,
    found_groups,
    judge,
    read_group_cells,
)
from osmf_models.evaluation.style import STYLE_COLUMNS, style_correlations, style_of
from osmf_models.evaluation.summary import JUDGEMENT_COLUMNS, by_group, group_figures, summarise
from osmf_models.records import HELD_OUT_GROUPS_NAME, RUN_RECORD_NAME
from osmf_models.simulator.market import Market, load_market
from osmf_models.stages.finish import finish_stage
from osmf_models.stages.run_record import run_stage
from osmf_models.training import zero


def main() -> None:
    """Runs the stage from the command line."""
    options = _parser().parse_args()
    if bool(options.truth) != bool(options.group_cells) or not (options.truth or options.reward):
        raise ValueError("models are judged by --truth with --group-cells, by --reward, or by both.")
    started = time.monotonic()
    (options.output / RUN_RECORD_NAME).unlink(missing_ok=True)
    arms = [read_model_arm(*_named_folder(text)) for text in options.model]
    if len({arm.name for arm in arms}) < len(arms):
        raise ValueError("two --model have the same name.")
    sampling = Sampling(options.num_seeds, options.num_inference_steps, options.guidance_scale)
    asked = AskedPairs()
    export = load_export(options.data, DataConfig())
    market = load_market(options.truth) if options.truth else None
    groups = found_groups(market, export, read_group_cells(options.group_cells)) if market else exported_groups(export)
    cases = evaluation_set(market, export, groups, options.num_products_per_scope)
    reward = RewardJudge.read(options.reward, export) if options.reward else None
    judgements, shown = judge_arms(market, export, cases, arms, sampling, reward)
    with zero.process_group():
        rewards = judge_rewards(arms, export, asked)
    options.output.mkdir(parents=True, exist_ok=True)
    metrics = write_results(options.output, export, cases, judgements, shown, rewards)
    lifts = None if reward is None else with_log_rates(judgements)
    records = {
        arm.name: EvaluationRecord(
            artifact_sha256=arm.artifact_sha256,
            evaluation_set_sha256=cases.sha256,
            reward_sha256=reward.artifact_sha256 if reward else None,
            sampling=vars(sampling),
            cases=judged_cases(judgements, lifts, arm.name),
            pairs=read_judged_pairs(arm.folder / HELD_OUT_GROUPS_NAME),
        )
        for arm in arms
    }
    write_records(options.output / RECORDS_NAME, records)
    write_gallery(options.output / GALLERY_NAME, export, cases, shown)
    record: dict[str, Any] = {
        "stage": "evaluate",
        "as_of_date": export.manifest.as_of_date,
        "data_hash": export.manifest.data_hash,
        "evaluation_set_sha256": cases.sha256,
        "config": {**vars(sampling), **vars(asked), "num_products_per_scope": options.num_products_per_scope},
        "models": {arm.name: arm.artifact_sha256 for arm in arms},
        "reward_artifact_sha256": reward.artifact_sha256 if reward else None,
        "mlflow_run_id": os.environ.get("MLFLOW_RUN_ID"),
        "metrics": metrics | {"num_groups_not_judged": float(len(cases.unjudged_group_ids))},
        "wall_seconds": time.monotonic() - started,
    }
    finish_stage(options.output, record)


def judge_arms(
    market: Market | None,
    export: TrainingExport,
    cases: EvaluationSet,
    arms: list[ModelArm],
    sampling: Sampling,
    reward: RewardJudge | None = None,
) -> tuple[pd.DataFrame, dict[tuple[str, int, str], ShownPicture]]:
    """Returns one row per (arm, product, group), and the first picture of each by (arm, product row, group).

    Without a market, arms that need one are left out, and true rates and quality are NaN. Beside the columns of
    `summary.py` a row has product_fidelity, NaN for logged pictures, where the product stands elsewhere, and what the
    pictures look like, `STYLE_COLUMNS`.
    """
    drawn: dict[str, Iterator[DrawnCase]] = {RANDOM: logged_pictures(export, cases)}
    if market is not None:
        drawn[BEST_SINGLE] = best_single_pictures(market, export, cases)
    drawn |= {arm.name: model_pictures(arm, export, cases, sampling) for arm in arms}
    if market is not None:
        drawn[ORACLE] = oracle_pictures(market, export, cases)
    return judge_drawn(drawn, market, export, cases, reward)


def judge_drawn(
    drawn: dict[str, Iterator[DrawnCase]],
    market: Market | None,
    export: TrainingExport,
    cases: EvaluationSet,
    reward: RewardJudge | None = None,
) -> tuple[pd.DataFrame, dict[tuple[str, int, str], ShownPicture]]:
    """Returns what `judge_arms` does, for the arms in `drawn` alone."""
    rows, shown = [], {}
    for arm, pictures in drawn.items():
        for case in pictures:
            product_id = str(export.products.product_id[case.product_index])
            rates = quality = np.full(len(case.images), np.nan)
            if market is not None:
                rates, quality = judge(market, case.group, product_id, case.images, cases.day)
            predicted = math.nan if reward is None else reward.log_rate(export, case)
            fidelity = product_fidelity(export, case)
            key = (case.group.scope, case.group.group_id, product_id)
            told = (float(rates.mean()), float(quality.mean()), predicted, fidelity)
            rows.append((arm, *key, len(rates), *told, *style_of(case)))
            shown[arm, case.product_index, case.group.group_id] = ShownPicture(case.images[0], float(rates[0]))
    return pd.DataFrame(rows, columns=[*JUDGEMENT_COLUMNS, "product_fidelity", *STYLE_COLUMNS]), shown


def write_results(
    output: Path,
    export: TrainingExport,
    cases: EvaluationSet,
    judgements: pd.DataFrame,
    shown: dict[tuple[str, int, str], ShownPicture],
    rewards: dict[str, JudgedReward | None],
) -> dict[str, float]:
    """Writes what truth, reward model and held-out pairs say, and returns the metrics; `rewards` has every model."""
    models = list(rewards)
    metrics = style_correlations(judgements, export, [*models, *{ORACLE} & {*judgements.arm}])
    metrics |= {f"{arm}/group_diversity": value for arm, value in group_diversity(shown).items()}
    fidelity = judgements[judgements.arm.isin(models)].groupby("arm").product_fidelity.mean()
    metrics |= {f"{arm}/product_fidelity": float(value) for arm, value in fidelity.items()}
    has_truth, has_reward = (judgements[name].notna().all() for name in ("true_ctr_rate", "predicted_log_rate"))
    lifts = lifts_by_group(judgements) if has_reward else None
    figures = group_figures(judgements, lifts)
    told = [
        {name: None if value != value else value for name, value in row.items()} for row in figures.to_dict("records")
    ]
    report = {
        "rows": told,
        "unjudged_group_ids": list(cases.unjudged_group_ids),
        "implicit_reward": {arm: one.told() if one else None for arm, one in rewards.items()},
    }
    metrics |= {f"{arm}/{name}": value for arm, one in rewards.items() if one for name, value in one.metrics.items()}
    (output / "report.json").write_text(json.dumps(report, indent=1))
    if has_truth:
        metrics |= summarise(judgements, models)
        draw_pictures(output, export, cases, judgements, shown, models)
    if lifts is not None:
        metrics |= predicted_lifts(judgements, models)
        rows = lifts if has_truth else lifts.drop(columns="true_log_lift")
        (output / "predicted_lifts.json").write_text(json.dumps(rows.to_dict("records"), indent=1))
    if has_truth and lifts is not None:
        metrics |= agreement(judgements, models)
        draw_predicted_lifts(lifts, [BEST_SINGLE, *models, ORACLE], output / "predicted_lifts.png")
    return metrics


def group_diversity(shown: dict[tuple[str, int, str], ShownPicture]) -> dict[str, float]:
    """Returns, by arm, how far apart pictures of one product for two groups are; 0 is one size for all.

    It is the root of the mean squared difference of pixels in [0, 1], mean over pairs of groups, then over products;
    arms without a product of several groups are left out. All groups' pictures begin with the product's own noise.
    """
    of_product: dict[tuple[str, int], list[np.ndarray]] = {}
    for (arm, product_index, _), picture in shown.items():
        of_product.setdefault((arm, product_index), []).append(np.asarray(picture.image, np.float64))
    found: dict[str, list[float]] = {}
    for (arm, _), images in of_product.items():
        if len(images) > 1:
            pairs = itertools.combinations(images, 2)
            distances = [math.sqrt(float(np.square(first - second).mean())) for first, second in pairs]
            found.setdefault(arm, []).append(float(np.mean(distances)))
    return {arm: float(np.mean(values)) for arm, values in found.items()}


def draw_pictures(
    output: Path,
    export: TrainingExport,
    cases: EvaluationSet,
    judgements: pd.DataFrame,
    shown: dict[tuple[str, int, str], ShownPicture],
    models: list[str],
) -> None:
    """Writes grid.png and lifts.png."""
    groups = by_group(judgements)
    arms = [RANDOM, *models, ORACLE]
    draw_grid(grid_rows(list(export.products.title), cases, shown, arms), arms, output / "grid.png")
    names = {group.group_id: f"{group.scope}: {group.description}" for group in cases.groups}
    draw_lifts(groups, names, models, output / "lifts.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of a training export")
    parser.add_argument("--truth", type=Path, help="truth folder of the simulated market")
    parser.add_argument("--group-cells", type=Path, help="Parquet: group_id, scope, cell, num_impressions")
    parser.add_argument(
        "--model", required=True, action="append", metavar="NAME=DIR", help="output of a training stage"
    )
    parser.add_argument("--reward", type=Path, metavar="DIR", help="output of stage group_reward")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--num-products-per-scope", type=_positive, default=4)
    parser.add_argument("--num-seeds", type=_positive, default=Sampling.num_seeds)
    parser.add_argument("--num-inference-steps", type=_positive, default=Sampling.num_inference_steps)
    parser.add_argument("--guidance-scale", type=float, default=Sampling.guidance_scale)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _named_folder(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not separator or not name or not folder:
        raise ValueError(f"--model {text!r} is not of the form NAME=DIR.")
    return name, Path(folder)


if __name__ == "__main__":
    run_stage(main)
