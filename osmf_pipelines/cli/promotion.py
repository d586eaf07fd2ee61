"""`osmf promote` and `osmf rollback`: which registered model is the champion. The rules are in `promotion/`."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from rich.console import Console

from osmf_pipelines.promotion.promote import Decision, Outcome, Promotions, trail_path
from osmf_pipelines.promotion.readout import Evidence
from osmf_pipelines.settings import Settings


def run_promote(
    settings: Settings, console: Console, number: int | None, decision: str, by: str, readout: Path | None = None
) -> None:
    """Makes a version the champion, or says why not; a blank `decision` or `by` is none.

    Raises:
        ValueError: when a decision has no author, or the other way round, or `readout` is no file of a read-out.
    """
    decision, by = decision.strip(), by.strip()
    if bool(decision) != bool(by):
        raise ValueError("a decision is recorded with who took it: give both, --decision TEXT --by NAME.")
    _answer_at_once()
    taken = Decision(decision, by) if decision else None
    evidence = None if readout is None else Evidence.read(readout)
    who = by or getpass.getuser()
    outcome = Promotions(settings).promote(number, by=who, decision=taken, evidence=evidence)
    _tell(settings, console, outcome)
    if outcome.alias == "challenger":
        console.print(
            "No truth is known to this evaluation, so that passing makes a challenger. To make it the champion, give "
            f"the read-out of an A/B test that it won, osmf promote --version {outcome.version} --readout FILE.json, "
            f'or decide: osmf promote --version {outcome.version} --decision "WHY" --by NAME',
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def run_rollback(settings: Settings, console: Console) -> None:
    """Gives the alias champion back to the champion before."""
    _answer_at_once()
    _tell(settings, console, Promotions(settings).rollback(by=getpass.getuser()))


def _answer_at_once() -> None:
    """Lets a registry that does not answer be told to a person in seconds, where MLflow would try for minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def _tell(settings: Settings, console: Console, outcome: Outcome) -> None:
    console.print(f"{settings.model_name} version {outcome.version} is {outcome.alias}", highlight=False, markup=False)
    for name, value in outcome.figures.items():
        console.print(f"  {name:<46} {value:.5f}", highlight=False, markup=False)
    console.print(f"audit trail   {trail_path(settings)}", soft_wrap=True, highlight=False, markup=False)
