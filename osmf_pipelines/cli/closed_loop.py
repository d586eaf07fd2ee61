"""The closed loop: days on which a simulated shop serves what models draw, logs it, learns from it, and serves again.

A round is a test of some days: the champion's pictures, one for each group, against the best logged one, and against
those of a challenger where there is one. Every day is refreshed by the job that the daily schedule asks for, or the
sensor for missing days; after a round its read-out decides on the challenger, and models are trained anew. The shop is
in `osmf_pipelines/bench/closed_loop_shop.py`, what is told in `closed_loop_report.py` there.

Each step leaves a file or a table that says that it is done, so that a loop that was ended goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from osmf_models.records import GENERATED_NAME
from osmf_pipelines.assets.models import export_folder
from osmf_pipelines.bench.closed_loop_report import FORMAT, count_day, day_rows, lifts_of, plot_loop
from osmf_pipelines.bench.closed_loop_round import (
    CHALLENGER,
    CHAMPION,
    ONE_SIZE,
    ModelPictures,
    RoundPlan,
    best_logged,
    shares_of,
)
from osmf_pipelines.bench.closed_loop_shop import LoopShop
from osmf_pipelines.cli.ab import read_out
from osmf_pipelines.cli.runs import JobRunner
from osmf_pipelines.definitions import build_defs
from osmf_pipelines.promotion.champion import DrawingModel, drawing_arguments, drawing_model
from osmf_pipelines.promotion.promote import PromotionRefusedError, Promotions
from osmf_pipelines.promotion.readout import Evidence
from osmf_pipelines.promotion.registry import Registry
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.resources.trainer import Trainer
from osmf_pipelines.serving.serving_map import ServingMap
from osmf_pipelines.settings import Settings

_REFRESHED = ("training_export", "truth_report")
_SCHEDULE, _SENSOR, _HAND = "schedule daily_refresh", "sensor missing_days", "hand"


@dataclass(frozen=True)
class LoopOptions:
    """How long the loop is.

    Attributes:
        first_day: the day after the last one that has models.
        num_rounds: models are trained anew between two.
        days_per_round: days on which a round's arms are served.
        late_day: number of the day, from 1, whose log comes after the schedule has looked for it; 0 for none.
    """

    first_day: date
    num_rounds: int = 2
    days_per_round: int = 3
    late_day: int = 2

    def days_of(self, number: int) -> list[date]:
        """Returns the days of a round, counted from 1."""
        first = (number - 1) * self.days_per_round
        return [self.first_day + timedelta(days=first + place) for place in range(self.days_per_round)]


class ClosedLoop:
    """Runs the loop in a home that has a champion.

    Args:
        settings: of the home.
        shop: that serves.
        options: how long.
        runner: of jobs.
        console: where progress goes.
    """

    def __init__(self, settings: Settings, shop: LoopShop, options: LoopOptions, runner: JobRunner, console: Console):
        self.settings, self.shop, self.options = settings, shop, options
        self.runner, self.console = runner, console
        self.defs = build_defs(settings, on_progress=runner.show_training)
        self.lake = LakeResource(settings).lake
        self.folder = settings.home / "closed_loop"

    def run(self) -> dict[str, Any]:
        """Returns the report, and writes HOME/closed_loop/closed_loop.json and closed_loop.png.

        Raises:
            RunFailedError: when an asset fails.
            ValueError: when there is no champion.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        plans: list[RoundPlan] = []
        rounds: list[dict[str, Any]] = []
        as_of = self.options.first_day - timedelta(days=1)
        for number in range(1, self.options.num_rounds + 1):
            days = self.options.days_of(number)
            plans.append(self._plan(number, as_of))
            for day in days:
                self._live(number, day)
            rounds.append(self._decide(number, plans[-1], days))
            as_of = days[-1]
            if number < self.options.num_rounds:
                self._train(as_of)
        # Only now, so that each day has the clicks that came after its midnight.
        rows = [row for number, plan in enumerate(plans, 1) for row in self._count(number, plan)]
        told = {**asdict(self.options), "first_day": self.options.first_day.isoformat()}
        told["impressions_per_day"] = self.shop.impressions_per_day
        report = {"format": FORMAT, "settings": told, "days": rows, "rounds": rounds}
        _write_json(self.folder / "closed_loop.json", report)
        plot_loop(report, self.folder / "closed_loop.png")
        return report

    def _count(self, number: int, plan: RoundPlan) -> list[dict[str, Any]]:
        """The report's rows of a round's days."""
        rows: list[dict[str, Any]] = []
        versions = {arm: model.version for arm, model in plan.models.items()}
        for day in self.options.days_of(number):
            exact = json.loads(self._day_path(day).read_text())
            sums = count_day(self.lake.read("silver_exposures"), day, min_users=self.settings.min_group_users)
            rows += day_rows(day, number, sums, exact, versions)
        return rows

    def _plan(self, number: int, as_of: date) -> RoundPlan:
        """The round's arms, decided once: later the alias champion may be another version's."""
        path = self._plan_path(number)
        if path.is_file():
            return RoundPlan.read(path)
        self._tell(f"Round {number}: pictures as of {as_of}")
        self.runner.run(self.defs, "generate", as_of)
        shutil.copyfile(self.settings.home / "serving" / f"{as_of}.jsonl", self._rules_path(number))
        champion = ModelPictures.of_map(ServingMap.read(self._rules_path(number)))
        models = {ONE_SIZE: self._draw_one_size(number, as_of, int(champion.version)), CHAMPION: champion}
        registry, registered = Registry(self.settings), self.lake.read("registered_model", (as_of,)).first()
        challenger = None if registered is None else int(registered["model_version"])
        if challenger is not None and registry.aliases().challenger == challenger:
            model = drawing_model(registry, challenger, self._export(as_of), self._work(number, "challenger-model"))
            models[CHALLENGER] = self._draw(number, CHALLENGER, str(challenger), model, as_of)
        rates = self.lake.read("group_ctr", (as_of,)).where("is_scope_root").select("creative_id", "ctr_rate")
        best = best_logged(rates.toPandas(), self.shop.shop)
        plan = RoundPlan(f"loop-{number}", as_of.isoformat(), best, models, shares_of(models))
        plan.write(path)
        return plan

    def _draw_one_size(self, number: int, as_of: date, champion: int) -> ModelPictures:
        """What the first day's global DPO draws, the same for everyone."""
        day = self.options.first_day - timedelta(days=1)
        trained = self.lake.read("global_dpo_model", (day,)).first()
        if trained is None:
            raise ValueError(f"global_dpo_model of {day} has not been published: run the job train_and_evaluate first.")
        links = self._work(number, "champion-model")
        sampling = drawing_model(Registry(self.settings), champion, self._export(as_of), links).sampling
        model = DrawingModel(Path(trained["model_path"]), 0, sampling)
        return self._draw(number, ONE_SIZE, str(trained["artifact_sha256"]), model, as_of)

    def _draw(self, number: int, arm: str, version: str, model: DrawingModel, as_of: date) -> ModelPictures:
        """What a model other than the champion draws, by the stage that draws the champion's pictures."""
        output = self._work(number, arm)
        arguments = drawing_arguments(self.settings, model, self._export(as_of))
        Trainer(self.settings).run(
            "generate", arguments, output, run_name=f"{arm} of loop-{number}", pictures=("preview.png",)
        )
        return ModelPictures.of_rows(version, pd.read_parquet(output / GENERATED_NAME))

    def _live(self, number: int, day: date) -> None:
        """Serves, logs and refreshes a day; what its arms exactly earn is kept beside."""
        path = self._day_path(day)
        is_late = (day - self.options.first_day).days + 1 == self.options.late_day
        if not path.is_file():
            self._tell(f"{day}: served and logged")
            _write_json(path, self.shop.serve(self._plan_path(number), self._rules_path(number), day))
        if not all(self._has(name, day) for name in _REFRESHED):
            self._refresh(day, is_late=is_late)

    def _refresh(self, day: date, *, is_late: bool) -> None:
        """Runs what the schedule asks for, else the sensor; by hand where both take the day for done.

        A late log is delivered once the schedule has passed it over.
        """
        if not is_late:
            self.shop.deliver(day)
        by, asked = _SCHEDULE, self.runner.ask_schedule(self.defs, day)
        if asked.tags is None:
            self._tell_reason(by, asked.reason)
            self.shop.deliver(day)
            by, asked = _SENSOR, self.runner.ask_sensor(self.defs, day)
        if asked.tags is None:
            self._tell_reason(by, asked.reason)
            by = _HAND
        self._tell(f"  refresh_pairs of {day}, launched by {by}")
        self.runner.run(self.defs, "refresh_pairs", day, tags=asked.tags)

    def _decide(self, number: int, plan: RoundPlan, days: list[date]) -> dict[str, Any]:
        """What a round's read-out says, and whether the challenger is champion by it."""
        path = self.folder / f"round-{number}-outcome.json"
        if path.is_file():
            told: dict[str, Any] = json.loads(path.read_text())
            return told
        file = self.folder / f"{plan.experiment_id}.json"
        readout = read_out(self.settings, plan.experiment_id, shares=plan.shares, output=file)
        outcome: dict[str, Any] = {
            "number": number,
            "experiment_id": plan.experiment_id,
            "as_of": plan.as_of,
            "first_day": days[0].isoformat(),
            "last_day": days[-1].isoformat(),
            "champion": int(plan.models[CHAMPION].version),
            "challenger": int(plan.models[CHALLENGER].version) if CHALLENGER in plan.models else None,
            "shares": plan.shares,
            "lifts": lifts_of(readout),
            "lifts_over_champion": {},
            "is_promoted": False,
            "reasons": [],
            "readout": str(file),
        }
        if CHALLENGER in plan.models:
            self._tell(f"Round {number}: version {outcome['challenger']} against the champion, {outcome['champion']}")
            outcome |= self._promote(plan, int(outcome["challenger"]))
        _write_json(path, outcome)
        return outcome

    def _promote(self, plan: RoundPlan, challenger: int) -> dict[str, Any]:
        """Takes the read-out against the champion through the gate, as `osmf promote --readout` does."""
        file = self.folder / f"{plan.experiment_id}-against-champion.json"
        readout = read_out(self.settings, plan.experiment_id, control=CHAMPION, shares=plan.shares, output=file)
        told = {"lifts_over_champion": lifts_of(readout), "is_promoted": True}
        if Registry(self.settings).aliases().champion == challenger:
            return told
        try:
            Promotions(self.settings).promote(challenger, by="osmf demo --full", evidence=Evidence.read(file))
        except PromotionRefusedError as error:
            return {**told, "is_promoted": False, "reasons": [str(error)]}
        return told

    def _train(self, day: date) -> None:
        if not self._has("registered_model", day):
            self._tell(f"Models as of {day}")
            self.runner.run(self.defs, "train_and_evaluate", day)

    def _has(self, table: str, day: date) -> bool:
        return self.lake.exists(table) and self.lake.read(table, (day,)).first() is not None

    def _export(self, day: date) -> Path:
        return export_folder(LakeResource(self.settings), day)

    def _plan_path(self, number: int) -> Path:
        return self.folder / f"round-{number}.json"

    def _day_path(self, day: date) -> Path:
        return self.folder / "days" / f"{day}.json"

    def _rules_path(self, number: int) -> Path:
        return self.folder / f"round-{number}-serving.jsonl"

    def _work(self, number: int, name: str) -> Path:
        return self.folder / f"round-{number}-{name}"

    def _tell(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False, markup=False)

    def _tell_reason(self, way: str, reason: str) -> None:
        self.console.print(f"    {way}: {reason}", highlight=False, markup=False, soft_wrap=True)


def _write_json(path: Path, told: Any) -> None:
    """Writes a file, which nobody sees before it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(told, indent=1, default=str))
    temporary.replace(path)
