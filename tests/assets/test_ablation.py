"""An ablation of a real home with the tiny recipe: goes on where it was, and the controls are what they must be."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from osmf_pipelines.bench.ablation_market import open_markets
from osmf_pipelines.bench.run_ablation import AblationOptions, run_ablation
from osmf_pipelines.settings import Settings
from tests.assets.conftest import Run

pytestmark = pytest.mark.slow


def test_an_ablation_goes_on_where_it_was(run: Run, market_settings: Settings, drop_folder: Path) -> None:
    knowing = market_settings.model_copy(
        update={"recipe": "tiny", "num_processes": 1, "truth_path": drop_folder.parent / "hidden-truth"}
    )
    assert run("ingest_days", knowing).success
    assert run("form_pairs", knowing).success
    output = knowing.home / "ablation"
    markets = open_markets(knowing, [], None, output)

    def ablate(*arms: str) -> dict:
        options = AblationOptions("tiny", (), arms, (0,), 1, 4)
        return run_ablation(knowing, options, markets, output, Console(file=io.StringIO()))

    report = ablate("global_dpo")
    arms = {arm["arm"]: arm for arm in report["arms"]}
    assert list(arms) == ["pretrained", "group_dpo", "global_dpo", "random", "best_single", "oracle"]
    assert arms["oracle"]["headroom_share"] == pytest.approx(1.0)
    assert arms["random"]["headroom_share"] == pytest.approx(0.0)
    assert arms["pretrained"]["contradiction_accuracy"] is None
    assert arms["global_dpo"]["contradiction_accuracy"] == 0.5
    assert 0.0 <= arms["group_dpo"]["contradiction_accuracy"] <= 1.0
    assert json.loads((output / "ablation.json").read_text()) == report

    records = {path: path.stat().st_mtime_ns for path in output.glob("*/*/*/run.json")}
    assert len(records) == 3 + 4
    again = ablate("global_dpo", "beta_x4")
    assert {path: path.stat().st_mtime_ns for path in records} == records
    assert len(list(output.glob("*/*/*/run.json"))) == len(records) + 2
    assert [arm for arm in again["arms"] if arm["arm"] in arms] == list(report["arms"])
    # The arm that differs in beta alone reads the reference's errors that the recipe noted; one size has its own.
    assert len(list((output / "reference").glob("reference-*.safetensors"))) == 2
