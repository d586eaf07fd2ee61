"""The page of a day is written whole, and kept with the MLflow run that judged the models."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from osmf_pipelines.assets import report_page
from osmf_pipelines.report.facts import EvaluationFacts, Missing
from osmf_pipelines.report.page import render
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.resources.tracking import TrackedRun, tracking_client
from osmf_pipelines.settings import Settings
from tests.report.sample_facts import sample

DAY = date(2026, 3, 4)


def test_the_page_is_kept_with_the_run_of_its_evaluation(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with TrackedRun(settings, "evaluation_report") as tracked:
        pass
    assert isinstance(sample().evaluation, EvaluationFacts)
    facts = replace(sample(), evaluation=replace(sample().evaluation, mlflow_run_id=tracked.run_id))
    monkeypatch.setattr(report_page, "read_facts", lambda resource, day: facts)
    for _ in range(2):  # the second time in its own place
        path, told = report_page.write_report(LakeResource(settings), DAY)
    assert path == settings.home / "reports" / "2026-03-04" / "report.html"
    assert path.read_text(encoding="utf-8") == render(facts)
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
    assert told["mlflow_run_id"] == tracked.run_id
    assert told["missing"] == {"ablation": "No ablation has been run here."}
    client = tracking_client(settings)
    assert [one.path for one in client.list_artifacts(tracked.run_id)] == ["report.html"]
    kept = client.download_artifacts(tracked.run_id, "report.html", str(settings.home))
    assert Path(kept).read_bytes() == path.read_bytes()


def test_without_an_evaluation_nothing_is_kept(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = replace(sample(), evaluation=Missing("not judged"))
    monkeypatch.setattr(report_page, "read_facts", lambda resource, day: facts)
    path, told = report_page.write_report(LakeResource(settings), DAY)
    assert "mlflow_run_id" not in told
    assert not list(settings.home.glob("mlflow*"))
    assert path.is_file()
