"""Keeps the best weights of a training by what held-out products say of them, and ends it when nothing gets better.

Best is the lowest preference loss among judgements that are sound: a policy may order pairs rightly and break its
pictures. Accuracy is told beside it; of a few hundred pairs it wavers by more than a training changes it late. While no
judgement is sound, the fewest refused pictures count, then the lowest chosen error. Of equals the earlier one is kept.
Judging belongs in `pair_errors.py` and `stages/group_samples.py`, the loop in `loop.py`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from osmf_models.objectives.group_preference import PairErrors
from osmf_models.training import zero

_HISTORY_NAME = "judgements.jsonl"


@dataclass(frozen=True)
class Judgement:
    """What held-out products say after a number of steps.

    Attributes:
        step: how many.
        loss: preference loss of pairs, mean over groups.
        accuracy: share of pairs that the implicit reward orders rightly, mean over groups.
        chosen_error, reference_chosen_error: means over pairs.
        refused_share, reference_refused_share: of drawn pictures, those that are not fit to be shown.
    """

    step: int
    loss: float
    accuracy: float
    chosen_error: float
    reference_chosen_error: float
    refused_share: float
    reference_refused_share: float

    def is_sound(self, slack: float | None) -> bool:
        """Returns whether no more pictures are refused than the reference's, and the chosen error is within bounds.

        Args:
            slack: share by which the chosen error may exceed the reference's; None where it says nothing of pictures.
        """
        is_within = slack is None or self.chosen_error <= (1.0 + slack) * self.reference_chosen_error
        return is_within and self.refused_share <= self.reference_refused_share


@dataclass(frozen=True)
class StoppingRule:
    """When to judge and when to stop; see `DpoConfig` for the first three.

    Attributes:
        evaluate_every: steps between two judgements; the last step is judged as well.
        patience: judgements without a better one that end the training; 0 for never.
        slack: share by which the chosen error may exceed the reference's; None for any.
        num_steps: of the whole training.
        checkpoint_every: steps between two checkpoints, 0 for none.
    """

    evaluate_every: int
    patience: int
    slack: float | None
    num_steps: int
    checkpoint_every: int

    def best(self, history: Sequence[Judgement]) -> Judgement:
        """Returns the judgement whose weights to keep; of equals the first."""
        return max(
            history,
            key=lambda one: (
                (1, -one.loss, 0.0) if one.is_sound(self.slack) else (0, -one.refused_share, -one.chosen_error)
            ),
        )

    def is_over(self, history: Sequence[Judgement]) -> bool:
        """Returns whether the last `patience` judgements brought nothing better."""
        if not self.patience:
            return False
        since = [one for one in history if one.step > self.best(history).step]
        return len(since) >= self.patience

    def is_due(self, step: int) -> bool:
        """Returns whether to judge after `step` steps."""
        return step % self.evaluate_every == 0 or step == self.num_steps

    def kept(self, history: Sequence[Judgement]) -> set[int]:
        """Returns the steps whose weights are still needed: the best now, and the best when a resumed run starts."""
        now = history[-1].step
        # The checkpoint of this very step is not written yet.
        checkpoint = (now - 1) // self.checkpoint_every * self.checkpoint_every if self.checkpoint_every else 0
        before = [one for one in history if one.step <= checkpoint]
        return {self.best(part).step for part in (history, before) if part}


class BestWeights:
    """Watches a training, see `loop.train`; every process must call its methods, and all decide alike.

    Args:
        folder: where the weights of the best steps and the history lie.
        rule: when to judge, what is best, when to stop.
        judge: steps done and the model's folder → judgement and the policy's errors on held-out pairs, equal on all
            processes.
        save_model: writes what would be handed over now to a folder.
    """

    def __init__(
        self,
        folder: Path,
        rule: StoppingRule,
        judge: Callable[[int, Path], tuple[Judgement, PairErrors]],
        save_model: Callable[[Path], object],
    ):
        self._folder, self._rule, self._judge, self._save_model = folder, rule, judge, save_model
        self.history: list[Judgement] = []

    def begin(self, first_step: int) -> None:
        """Takes up the judgements until `first_step`; those of a run that went further are made again.

        Raises:
            ValueError: when the best weights until then are gone.
        """
        path = self._folder / _HISTORY_NAME
        is_read = zero.rank() == 0 and first_step and path.is_file()
        lines = path.read_text().splitlines() if is_read else []
        history = [one for one in (Judgement(**json.loads(line)) for line in lines) if one.step <= first_step]
        self.history = _from_first(history)
        if zero.rank() == 0:
            self._write_history()
            if history and not self._errors_path(self.best.step).is_file():
                raise ValueError(f"cannot resume: {self._folder} lacks the best weights, of step {self.best.step}.")

    @property
    def best(self) -> Judgement:
        """The judgement whose weights are kept."""
        return self._rule.best(self.history)

    def after_step(self, done: int) -> dict[str, float]:
        """Judges when it is due and keeps the weights if they are the best; returns what to log.

        Raises:
            ValueError: when a held-out error is no finite number, on all processes alike.
        """
        if not self._rule.is_due(done):
            return {}
        with torch.random.fork_rng(devices=[]):  # a model that is read draws its weights first
            self._save_model(self.model_folder(done))
        judgement, errors = self._judge(done, self.model_folder(done))
        if not math.isfinite(judgement.chosen_error):
            raise ValueError(f"after step {done} a held-out error is no finite number: lower the learning rate.")
        self.history.append(judgement)
        if zero.rank() == 0:
            save_file({"errors": errors.columns()}, self._errors_path(done))
            self._write_history()
            self._remove_all_but(self._rule.kept(self.history))
        zero.barrier()
        return {f"held_out/{name}": value for name, value in asdict(judgement).items() if name != "step"}

    def is_over(self) -> bool:
        """Returns whether to stop here."""
        return bool(self.history) and self._rule.is_over(self.history)

    def model_folder(self, step: int) -> Path:
        """Returns where the weights after `step` steps lie."""
        return self._folder / f"step-{step:07d}" / "model"

    def hand_over(self, folder: Path) -> PairErrors:
        """Copies the best weights to `folder` and returns their errors on held-out pairs; on the first process only."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.model_folder(self.best.step), folder)
        return PairErrors.from_columns(load_file(self._errors_path(self.best.step))["errors"])

    def metrics(self, last_step: int) -> dict[str, float]:
        """Returns what a run's record tells: which weights were kept, and when and why training ended."""
        return {
            "best_step": float(self.best.step),
            "last_step": float(last_step),
            "num_judgements": float(len(self.history)),
            "is_stopped_early": float(last_step < self._rule.num_steps),
            "is_best_sound": float(self.best.is_sound(self._rule.slack)),
        }

    def _errors_path(self, step: int) -> Path:
        return self.model_folder(step).parent / "errors.safetensors"

    def _write_history(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{_HISTORY_NAME}.tmp"
        temporary.write_text("".join(json.dumps(asdict(one)) + "\n" for one in self.history))
        temporary.replace(self._folder / _HISTORY_NAME)

    def _remove_all_but(self, steps: set[int]) -> None:
        for old in self._folder.glob("step-*"):
            if int(old.name.removeprefix("step-")) not in steps:
                shutil.rmtree(old)


def _from_first(history: list[Judgement]) -> list[Judgement]:
    """Returns the first process's judgements on every process."""
    count = int(zero.from_first(torch.tensor(float(len(history)))))
    if count == 0:
        return []
    width = len(fields(Judgement))
    own = torch.tensor([list(asdict(one).values()) for one in history], dtype=torch.float64).reshape(-1, width)
    rows = zero.from_first(own if zero.rank() == 0 else torch.empty(count, width, dtype=torch.float64)).tolist()
    return [Judgement(int(step), *values) for step, *values in rows]
