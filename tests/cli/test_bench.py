"""`osmf bench`: what it writes is what its documentation says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from osmf_models.stages.bench_loader import LOADER_KEYS
from osmf_models.stages.bench_train import MEASUREMENT_KEYS
from osmf_pipelines.cli.bench import _count

OSMF = str(Path(sys.executable).with_name("osmf"))
DOCS = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def _osmf(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OSMF, *arguments], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
    )


def test_training_bench_writes_the_documented_keys(tmp_path: Path) -> None:
    output = tmp_path / "new" / "bench.json"
    done = _osmf("bench", "train", "--recipe", "tiny", "--steps", "2", "--ranks", "1", "--output", str(output))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(output.read_text())
    assert (result["format"], result["recipe"]) == ("osmf-bench-train/1", "tiny")
    (run,) = result["runs"]
    assert list(run) == list(MEASUREMENT_KEYS)
    assert run["num_steps"] == 3
    assert run["deepspeed_samples_per_second"] == run["batch_size"] / run["deepspeed_seconds_per_step"]
    assert "DeepSpeed : plain" in done.stdout


def test_every_key_is_in_the_documentation() -> None:
    text = DOCS.read_text()
    assert [key for key in (*MEASUREMENT_KEYS, *LOADER_KEYS) if f"`{key}`" not in text] == []


def test_loader_bench_writes_the_documented_keys_and_two_ranks_read_what_one_does(tmp_path: Path) -> None:
    output = tmp_path / "new" / "bench.json"
    sizes = ("--pictures", "32", "--image-px", "64", "--batch-size", "16", "--passes", "1")
    done = _osmf("bench", "loader", *sizes, "--output", str(output))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(output.read_text())
    assert result["format"] == "osmf-bench-loader/1"
    assert [list(run) for run in result["runs"]] == [list(LOADER_KEYS)] * 2
    one, two = (run["loader_bytes_by_rank"] for run in result["runs"])
    assert (len(one), len(two)) == (1, 2)
    assert sum(two) == pytest.approx(one[0], rel=0.05)
    assert max(two) < 0.7 * one[0]
    assert "loader : decoding" in done.stdout


def test_pictures_that_are_no_whole_number_of_batches_are_one_line() -> None:
    done = _osmf("bench", "loader", "--pictures", "100", "--batch-size", "64")
    assert done.returncode == 2
    assert done.stdout.startswith("error: 100 pictures in batches of 64: batches must be even")


def test_unknown_recipe_is_one_line() -> None:
    done = _osmf("bench", "train", "--recipe", "huge")
    assert done.returncode == 2
    assert done.stdout.startswith("error: no recipe 'huge'; known: tiny, demo")


def test_counts_may_have_a_unit():
    assert [_count(text) for text in ("0", "250k", "1.5M", "10M", "2G")] == [
        0,
        250_000,
        1_500_000,
        10_000_000,
        2 * 10**9,
    ]
    for text in ("", "M", "1.5", "-1M", "many", "1/0"):
        with pytest.raises(typer.BadParameter, match="is no number"):
            _count(text)


def test_the_markets_on_offer_are_those_of_the_benchmarks():
    from osmf_pipelines.bench.grouping import MARKETS
    from osmf_pipelines.cli.bench import PlantedMarketName

    assert [one.value for one in PlantedMarketName] == list(MARKETS)
