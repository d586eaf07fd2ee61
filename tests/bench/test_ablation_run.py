"""What is there is not trained again, and wrong options are refused before anything is trained."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from osmf_models.recipes import load_recipe
from osmf_pipelines.bench.ablation_market import MarketFiles, open_markets
from osmf_pipelines.bench.ablation_plan import arms_of, trained_arm
from osmf_pipelines.bench.run_ablation import Ablation, AblationOptions, Bars, run_ablation
from osmf_pipelines.resources.trainer import Trainer
from osmf_pipelines.settings import Settings

OSMF = str(Path(sys.executable).with_name("osmf"))
OPTIONS = AblationOptions("tiny", (), ("global_dpo",), (0,), 2, 2)
ARMS = {arm.name: trained_arm("tiny", [], arm, 0) for arm in arms_of(load_recipe("tiny").dpo)}


@pytest.fixture
def market(tmp_path: Path) -> MarketFiles:
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "market.json").write_text("{}")
    (tmp_path / "cells.parquet").write_bytes(b"cells")
    folders = (tmp_path / "export", "d", tmp_path / "truth", tmp_path / "cells.parquet")
    return MarketFiles("m-1", tmp_path / "home", "2026-03-04", *folders)


@pytest.fixture
def ablation(tmp_path: Path) -> Ablation:
    settings = Settings(home=tmp_path / "home", num_processes=1)
    bars = Bars(Console(file=io.StringIO()), 4)
    return Ablation(OPTIONS, tmp_path / "out", Trainer(settings, bars.show), bars)


def finish(folder: Path, **record: object) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"artifact_sha256": "sha", **record}))


def test_a_finished_training_is_left_as_it_is(ablation: Ablation, market: MarketFiles, tmp_path: Path) -> None:
    pretrained = ARMS["pretrained"].folder(tmp_path / "out" / "runs" / "m-1", "d")
    finish(pretrained)
    arm = ARMS["global_dpo"].folder(tmp_path / "out" / "runs" / "m-1", "d", "sha")
    finish(arm)
    before = (arm / "run.json").stat().st_mtime_ns
    assert ablation.train(ARMS["pretrained"], market, None) == pretrained
    assert ablation.train(ARMS["global_dpo"], market, pretrained) == arm
    assert (arm / "run.json").stat().st_mtime_ns == before
    assert ablation.bars.progress.tasks[0].completed == 2


def test_an_unfinished_training_is_begun(ablation: Ablation, market: MarketFiles) -> None:
    """It fails at once, there being no export: what is said names the run."""
    with pytest.raises(RuntimeError, match=r"m-1 seed 0 pretrained ended with exit code 2") as failure:
        ablation.train(ARMS["pretrained"], market, None)
    assert "holds no finished training export" in str(failure.value)


def test_the_home_s_own_pretraining_is_taken(ablation: Ablation, market: MarketFiles, tmp_path: Path) -> None:
    own = tmp_path / "home" / "models" / "2026-03-04" / "pretrained_model-1"
    finish(own, stage="pretrain", data_hash="d", config=asdict(ARMS["pretrained"].config))
    assert ablation.train(ARMS["pretrained"], market, None) == own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (AblationOptions("tiny", (), (), (), 2, 2), "name each once"),
        (AblationOptions("tiny", (), (), (1, 1), 2, 2), "name each once"),
        (AblationOptions("tiny", (), ("velocety",), (0,), 2, 2), "no arm 'velocety'"),
        (AblationOptions("tiny", ("dpo.rejected_safeguard=2",), (), (0,), 2, 2), "must lie in"),
    ],
)
def test_wrong_options_are_refused(options, message, market, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_ablation(Settings(home=tmp_path / "home"), options, [market], tmp_path / "out", Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()


def test_a_home_without_an_export_is_named(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    for day in (None, date(2026, 3, 4)):
        with pytest.raises(ValueError, match=f"{tmp_path} has no training export"):
            open_markets(settings, [], day, tmp_path / "out")


def test_the_command_lists_its_arms_and_says_what_it_needs(tmp_path: Path) -> None:
    def osmf(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "160", "OSMF_HOME": str(tmp_path)}
        return subprocess.run(
            [OSMF, "ablate", *arguments], capture_output=True, text=True, check=False, env=environment
        )

    listed = osmf("--list", "--recipe", "tiny")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in ARMS)
    missing = osmf("--recipe", "tiny")
    assert (missing.returncode, missing.stdout.count("\n")) == (2, 1)
    assert "has no training export" in missing.stdout
