"""Stage `evaluate`: judges models by the simulator's exact click rates, on products held out of training.

    python -m osmf_models.stages.evaluate --data EXPORT --truth DIR --group-cells FILE.parquet
        --model pretrained=DIR --model global_dpo=DIR --model group_dpo=DIR --output DIR
        [--num-products-per-scope 4] [--num-seeds 2] [--num-inference-steps 12] [--guidance-scale 1.0]

Writes OUTPUT/report.json (one row per arm and group), OUTPUT/grid.png, OUTPUT/lifts.png, and OUTPUT/run.json last.
Training belongs in the other stages.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
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
from osmf_models.evaluation.report import GridRow, ShownPicture, draw_grid, draw_lifts
from osmf_models.evaluation.simulated_ctr import EvaluationSet, evaluation_set, found_groups, judge, read_group_cells
from osmf_models.evaluation.summary import JUDGEMENT_COLUMNS, by_group, summarise
from osmf_models.records import RUN_RECORD_NAME
from osmf_models.simulator.market import Market, load_market
from osmf_models.stages.finish import finish_stage
from osmf_models.stages.run_record import run_stage


def main() -> None:
    """Runs the stage from the command line."""
    options = _parser().parse_args()
    started = time.monotonic()
    (options.output / RUN_RECORD_NAME).unlink(missing_ok=True)
    arms = [read_model_arm(*_named_folder(text)) for text in options.model]
    if len({arm.name for arm in arms}) < len(arms):
        raise ValueError("two --model have the same name.")
    sampling = Sampling(options.num_seeds, options.num_inference_steps, options.guidance_scale)
    market, export = load_market(options.truth), load_export(options.data, DataConfig())
    groups = found_groups(market, export, read_group_cells(options.group_cells))
    cases = evaluation_set(market, export, groups, options.num_products_per_scope)
    judgements, shown = judge_arms(market, export, cases, arms, sampling)
    names = [arm.name for arm in arms]
    options.output.mkdir(parents=True, exist_ok=True)
    write_report(options.output, export, cases, judgements, shown, names)
    record: dict[str, Any] = {
        "stage": "evaluate",
        "as_of_date": export.manifest.as_of_date,
        "data_hash": export.manifest.data_hash,
        "evaluation_set_sha256": cases.sha256,
        "config": {**vars(sampling), "num_products_per_scope": options.num_products_per_scope},
        "models": {arm.name: arm.artifact_sha256 for arm in arms},
        "metrics": summarise(judgements, names) | {"num_groups_not_judged": float(len(cases.unjudged_group_ids))},
        "wall_seconds": time.monotonic() - started,
    }
    finish_stage(options.output, record)


def judge_arms(
    market: Market, export: TrainingExport, cases: EvaluationSet, arms: list[ModelArm], sampling: Sampling
) -> tuple[pd.DataFrame, dict[tuple[str, int, str], ShownPicture]]:
    """Returns one row per (arm, product, group), and the first picture of each by (arm, product row, group)."""
    drawn: dict[str, Iterator[DrawnCase]] = {
        RANDOM: logged_pictures(export, cases),
        BEST_SINGLE: best_single_pictures(market, export, cases),
        **{arm.name: model_pictures(arm, export, cases, sampling) for arm in arms},
        ORACLE: oracle_pictures(market, export, cases),
    }
    rows, shown = [], {}
    for arm, pictures in drawn.items():
        for case in pictures:
            product_id = str(export.products.product_id[case.product_index])
            rates, quality = judge(market, case.group, product_id, case.images, cases.day)
            key = (case.group.scope, case.group.group_id, product_id)
            rows.append((arm, *key, len(rates), float(rates.mean()), float(quality.mean())))
            shown[arm, case.product_index, case.group.group_id] = ShownPicture(case.images[0], float(rates[0]))
    return pd.DataFrame(rows, columns=list(JUDGEMENT_COLUMNS)), shown


def write_report(
    output: Path,
    export: TrainingExport,
    cases: EvaluationSet,
    judgements: pd.DataFrame,
    shown: dict[tuple[str, int, str], ShownPicture],
    models: list[str],
) -> None:
    """Writes report.json, grid.png and lifts.png."""
    groups = by_group(judgements)
    report = {"rows": groups.to_dict("records"), "unjudged_group_ids": list(cases.unjudged_group_ids)}
    (output / "report.json").write_text(json.dumps(report, indent=1))
    arms = [RANDOM, *models, ORACLE]
    grid = [
        GridRow(
            str(export.products.title[index]),
            cases.groups_of(scope),
            {(arm, group_id): picture for (arm, row, group_id), picture in shown.items() if row == index},
        )
        for scope, indices in cases.product_indices.items()
        for index in indices[:1]
    ]
    draw_grid(grid, arms, output / "grid.png")
    names = {group.group_id: f"{group.scope}: {group.description}" for group in cases.groups}
    draw_lifts(groups, names, models, output / "lifts.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of a training export")
    parser.add_argument("--truth", required=True, type=Path, help="truth folder of the simulated market")
    parser.add_argument(
        "--group-cells", required=True, type=Path, help="Parquet: group_id, scope, cell, num_impressions"
    )
    parser.add_argument(
        "--model", required=True, action="append", metavar="NAME=DIR", help="output of a training stage"
    )
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
