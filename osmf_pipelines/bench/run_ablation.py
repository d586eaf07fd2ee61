"""`osmf ablate`: trains what is not yet trained, judges what is not yet judged, and writes the report.

Every run lies in a folder that its configuration and its inputs name, and is done when its `run.json` is there: an
interrupted ablation goes on where it was, and a further arm, seed or market costs that one alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from osmf_models.data.dataset import read_groups
from osmf_models.evaluation.kernel_distance import KERNEL_TERMS_NAME, KernelTerms, read_kernel_terms
from osmf_models.evaluation.resampling import RunKey
from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.records import PICTURE_ENCODER_NAME, RUN_RECORD_NAME
from osmf_pipelines.bench.ablation_figures import JudgedArm, JudgedMarket
from osmf_pipelines.bench.ablation_groups import HoldOut, ToldGroups, told_groups
from osmf_pipelines.bench.ablation_market import MarketFiles
from osmf_pipelines.bench.ablation_plan import (
    PRETRAINED,
    Arm,
    TrainedArm,
    chosen_arms,
    fingerprint,
    matching_pretrained,
    trained_arm,
)
from osmf_pipelines.bench.ablation_plots import draw_ablation, draw_calibration
from osmf_pipelines.bench.ablation_report import as_markdown, summarise, table_of
from osmf_pipelines.resources.trainer import Trainer
from osmf_pipelines.settings import Settings

WITHOUT_MODEL = "without_model"


@dataclass(frozen=True)
class AblationOptions:
    """What is compared.

    Attributes:
        recipe: of every arm, with `overrides`.
        overrides: `section.field=value` each.
        arms: names; none for all.
        seeds: each is a pretraining and one preference optimisation of every arm.
        num_products_per_scope: held-out products judged in each scope, at most.
        num_contradictions: held-out contradictions asked about, at most.
        hold_out: groups that no arm is trained on.
    """

    recipe: str
    overrides: tuple[str, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    num_products_per_scope: int
    num_contradictions: int
    hold_out: HoldOut = field(default_factory=HoldOut)


class Bars:
    """One bar over all runs, and one for the training that goes on."""

    def __init__(self, console: Console, num_runs: int):
        columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console)
        self.all = self.progress.add_task("trained and judged", total=num_runs)
        self.current = self.progress.add_task("", total=1, visible=False)

    def begin(self, name: str) -> None:
        """Says what begins."""
        self.progress.reset(self.current, description=f"  {name}", total=None, visible=True)

    def show(self, name: str, heartbeat: dict[str, Any]) -> None:
        """Moves the bar of a training."""
        self.progress.update(self.current, completed=heartbeat["step"], total=heartbeat["num_steps"])

    def end(self) -> None:
        """One more is done."""
        self.progress.update(self.current, visible=False)
        self.progress.advance(self.all)


@dataclass(frozen=True)
class Ablation:
    """Runs stages where their result is not there yet.

    Attributes:
        options: what is compared.
        output: folder of everything.
        trainer: runs the stages.
        bars: shows them.
    """

    options: AblationOptions
    output: Path
    trainer: Trainer
    bars: Bars

    def train(self, one: TrainedArm, market: MarketFiles, pretrained: Path | None) -> Path:
        """Returns the folder of a finished training."""
        made_of = [market.data_hash, *([_record(pretrained)["artifact_sha256"]] if pretrained else [])]
        folder = one.folder(self.output / "runs" / market.name, *made_of)
        if pretrained is None:
            known = matching_pretrained(market.pretrained_folders, one.config, market.data_hash)
            folder = folder if known is None else known
        arguments = ["--recipe", self.options.recipe, "--data", str(market.export)]
        arguments += [part for assignment in one.assignments for part in ("--set", assignment)]
        if pretrained is not None:
            arguments += ["--pretrained", str(pretrained), "--reference-cache", str(self.output / "reference")]
        name = f"{market.name} seed {one.config.dpo.training.seed} {one.arm.name}"
        self._run(one.stage, arguments, folder, name, is_distributed=True)
        return folder

    def judge(self, market: MarketFiles, arm: str | None, model: Path | None, reference: Path | None) -> Path:
        """Returns the folder of a finished judgement: of a model, or of the arms that are none."""
        options = self.options
        counts = [options.num_products_per_scope, options.num_contradictions]
        sha256 = _record(model)["artifact_sha256"] if model else None
        made_of = (sha256, market.fingerprint, counts, bool(reference), PICTURE_ENCODER_NAME)
        name = f"{arm or WITHOUT_MODEL}-{fingerprint(*made_of)}"
        arguments = [*market.judged_by, "--num-products-per-scope", str(counts[0])]
        arguments += ["--num-contradictions", str(counts[1]), "--encoder-cache", str(self.output / "encoders")]
        arguments += ["--model", f"{arm}={model}"] if model else []
        arguments += ["--pretrained", str(reference)] if reference else []
        folder = self.output / "judged" / market.name / name
        self._run("judge", arguments, folder, f"{market.name} {arm or WITHOUT_MODEL} judged", is_distributed=False)
        return folder

    def _run(self, stage: str, arguments: Sequence[str], folder: Path, name: str, *, is_distributed: bool) -> None:
        self.bars.begin(name)
        if not (folder / RUN_RECORD_NAME).is_file():
            self.trainer.run(stage, arguments, folder, run_name=name, is_distributed=is_distributed)
        self.bars.end()


def run_ablation(
    settings: Settings, options: AblationOptions, markets: Sequence[MarketFiles], output: Path, console: Console
) -> dict[str, Any]:
    """Trains and judges every arm of every market and seed; writes and returns the report.

    `output` gets ablation.json, ablation.md, ablation.png and calibration.png beside the runs.

    Args:
        settings: where training runs, and where it is tracked.
        options: what is compared.
        markets: to learn from.
        output: folder to write.
        console: where progress and the table go.

    Raises:
        ValueError: when an option is wrong; nothing is trained then.
        RuntimeError: when a run fails; the others are kept.
    """
    if not options.seeds or min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"seeds {list(options.seeds)}: name each once, none below 0.")
    base = apply_overrides(load_recipe(options.recipe), options.overrides)
    arms = chosen_arms(base.dpo, options.arms)
    told = {market.name: _told_groups(options.hold_out, market) for market in markets}
    plan = {
        (name, seed): [trained_arm(options.recipe, (*options.overrides, *one.assignments), arm, seed) for arm in arms]
        for name, one in told.items()
        for seed in options.seeds
    }
    bars = Bars(console, len(markets) * (1 + 2 * len(options.seeds) * len(arms)))
    ablation = Ablation(options, output, Trainer(settings, bars.show), bars)
    judged: list[JudgedArm] = []
    others: dict[str, JudgedMarket] = {}
    with bars.progress:
        for market in markets:
            folder = ablation.judge(market, None, None, None)
            one = JudgedMarket(_judgements(folder), _kernels(folder), told[market.name], _encoder(folder))
            others[market.name] = one
            for seed in options.seeds:
                judged += _run_seed(ablation, market, RunKey(market.name, seed), plan[market.name, seed], one)
    report = summarise(judged, others, {arm.name: arm.changes for arm in arms}, _settings(options, markets, others))
    _write(report, output, console)
    return report


def _told_groups(hold_out: HoldOut, market: MarketFiles) -> ToldGroups:
    if not hold_out.is_any:
        return ToldGroups(market.agreeing_scopes)
    return told_groups(hold_out, read_groups(market.export), market.agreeing_scopes, market.name)


def _run_seed(
    ablation: Ablation, market: MarketFiles, run: RunKey, trainings: Sequence[TrainedArm], others: JudgedMarket
) -> list[JudgedArm]:
    """Returns every arm of one market and seed, pretrained first, from which the others start.

    Raises:
        ValueError: when a model's pictures were compared by another encoder than the other arms'.
    """
    judged, pretrained = [], None
    for one in trainings:
        is_first = one.arm.name == PRETRAINED
        model = ablation.train(one, market, pretrained)
        pretrained = model if is_first else pretrained
        folder = ablation.judge(market, one.arm.name, model, None if is_first else pretrained)
        if _encoder(folder) != others.encoder:
            raise ValueError(
                f"{folder} compared pictures by another encoder than the other arms of {market.name}: remove "
                f"{folder.parent} and run again, it is judged anew."
            )
        judged.append(_read_judged(run, one.arm, model, folder))
    return judged


def _read_judged(run: RunKey, arm: Arm, model: Path, folder: Path) -> JudgedArm:
    contradictions, calibration = folder / "contradictions.json", folder / "calibration.json"
    return JudgedArm(
        run=run,
        arm=arm.name,
        judgements=_judgements(folder),
        contradictions=pd.DataFrame(json.loads(contradictions.read_text())) if contradictions.is_file() else None,
        calibration=json.loads(calibration.read_text()) if calibration.is_file() else [],
        figures=_record(folder)["metrics"],
        training=_record(model),
        kernel=_kernels(folder).get(arm.name),
    )


def _judgements(folder: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads((folder / "judgements.json").read_text()))


def _kernels(folder: Path) -> dict[str, KernelTerms]:
    return read_kernel_terms(folder / KERNEL_TERMS_NAME)


def _encoder(folder: Path) -> dict[str, str]:
    return dict(_record(folder)["picture_encoder"])


def _record(folder: Path | None) -> dict[str, Any]:
    assert folder is not None
    record: dict[str, Any] = json.loads((folder / RUN_RECORD_NAME).read_text())
    return record


def _settings(
    options: AblationOptions, markets: Sequence[MarketFiles], judged: Mapping[str, JudgedMarket]
) -> dict[str, Any]:
    told = [
        {
            "market": one.name,
            "day": one.day,
            "data_hash": one.data_hash,
            "picture_encoder": dict(judged[one.name].encoder),
            **json.loads(json.dumps(asdict(judged[one.name].told))),  # lists, as they are read back
        }
        for one in markets
    ]
    return {
        "recipe": options.recipe,
        "overrides": list(options.overrides),
        "seeds": list(options.seeds),
        "markets": told,
        "num_products_per_scope": options.num_products_per_scope,
        "num_contradictions": options.num_contradictions,
    }


def _write(report: dict[str, Any], output: Path, console: Console) -> None:
    (output / "ablation.json").write_text(json.dumps(report, indent=1, allow_nan=False))
    (output / "ablation.md").write_text(as_markdown(report))
    draw_ablation(report, output / "ablation.png")
    draw_calibration(report, output / "calibration.png")
    header, rows = table_of(report)
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    names = ("ablation.json", "ablation.md", "ablation.png", "calibration.png")
    console.print(f"written to {output}: {', '.join(names)}", soft_wrap=True, highlight=False)
