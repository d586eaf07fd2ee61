"""`osmf bench pairs`: its report by hand, and the whole of it on little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rich.console import Console

from osmf_pipelines.bench.duckdb_peer import COMPARED, read_script, user_folds
from osmf_pipelines.bench.many_groups import PARTS
from osmf_pipelines.bench.pairs_place import PairsBench
from osmf_pipelines.bench.pairs_report import groups_row, growth_rows, refresh_growth, refresh_row, size_row
from osmf_pipelines.bench.process_memory import PeakMemory
from osmf_pipelines.bench.run_pairs import run_pairs_bench
from osmf_pipelines.bench.stage_times import AS_OF_STAGES, DAILY_STAGES
from osmf_pipelines.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


def _stage(seconds: float, spark_seconds: float = 0.0, job_seconds: float = 0.0, **phases: float) -> dict[str, Any]:
    numbers = {"num_jobs": 1, "input_bytes": 2, "shuffle_bytes": 3, "spilled_bytes": 0}
    times = {"seconds": seconds, "spark_seconds": spark_seconds, "job_seconds": job_seconds}
    return {**times, "seconds_by_phase": phases, **numbers}


def _refresh(number: int, daily: float, as_of: float, *, starts_process: bool = False) -> dict[str, Any]:
    """Half of the daily part is Spark's; half of the rest is no part of the as-of stage."""
    stages = {"bronze": _stage(daily, daily / 2), "groups": _stage(as_of), "end": _stage(1.0)}
    told = {"starts_process": starts_process, "num_reopened_days": 0, "driver_heap": "2g", "stages": stages}
    return refresh_row(number, {"first_day": f"2026-03-{number:02d}", **told})


def test_a_size_adds_its_two_jobs_up() -> None:
    first = {"start": _stage(6), "dimensions": _stage(4, 2), "bronze": _stage(10, 8, write=7), "cell_users": _stage(2)}
    second = {"start": _stage(1), "groups": _stage(5, 3, 2, audit=1), "end": _stage(2)}
    jobs = [{"stages": stages, "driver_heap": "2g"} for stages in (first, second)]
    row = size_row(1_000, jobs, {"creative_stats": 5}, PeakMemory(1, 2, 3))
    assert (row["seconds"], row["start_seconds"], row["daily_seconds"], row["as_of_seconds"]) == (30, 7, 16, 5)
    assert (row["spark_seconds"], row["job_seconds"]) == (13, 2)
    assert row["orchestration_share"] == pytest.approx(17 / 30)
    assert row["stages"]["start"]["num_jobs"] == 2
    assert row["stages"]["bronze"]["seconds_by_phase"] == {"write": 7}
    assert row["peak_bytes"] == {"driver": 1, "python": 2, "tree": 3}
    assert row["driver_heap"] == "2g"


def test_the_first_day_is_not_compared() -> None:
    rows = [_refresh(1, 90, 40, starts_process=True), *(_refresh(number, 10 + number, 20.0) for number in range(2, 8))]
    growth = refresh_growth(rows)
    assert growth is not None
    assert (growth["first_days"], growth["last_days"], growth["num_days"]) == ([2, 3, 4], [5, 6, 7], 6)
    assert growth["daily_seconds"] == {"last_to_second": 17 / 12, "last_to_first_few": 16 / 13}
    assert growth["as_of_seconds"] == {"last_to_second": 1.0, "last_to_first_few": 1.0}
    assert growth["median_seconds_by_stage"]["bronze"] == {"first_days": 13, "last_days": 16}
    # 87 s of bronze, 120 s of groups, 6 s at the ends; Spark was at work in half of bronze.
    assert growth["orchestration_share"] == pytest.approx(1 - 43.5 / 213)
    assert refresh_growth(rows[:2]) is None


def test_three_days_compare_single_ones() -> None:
    growth = refresh_growth([_refresh(1, 90, 40, starts_process=True), _refresh(2, 10, 20), _refresh(3, 11, 30)])
    assert growth is not None
    assert (growth["first_days"], growth["last_days"]) == ([2], [3])
    assert growth["daily_seconds"] == {"last_to_second": 1.1, "last_to_first_few": 1.1}
    text = DOCS.read_text()
    assert [key for key in growth if f"`{key}`" not in text] == []


def test_a_day_that_an_interrupted_run_goes_on_with_is_not_compared() -> None:
    rows = [_refresh(number, 10.0, 20.0, starts_process=number in (1, 3)) for number in range(1, 6)]
    growth = refresh_growth(rows)
    assert growth is not None
    assert (growth["first_days"], growth["last_days"], growth["num_days"]) == ([2], [5], 3)


def test_groups_are_told_part_by_part() -> None:
    steps = [{"part": "sums", "seconds": 2.0}, {"part": "place_effects", "seconds": 1.0}]
    row = groups_row(320, steps, {}, None)
    assert row == {"num_groups_planted": 320, "seconds": {"sums": 2.0, "place_effects": 1.0}, "peak_bytes": None}
    ended = groups_row(320, steps, {"num_groups": 300}, PeakMemory(1, 2, 3))
    assert (ended["num_groups"], ended["peak_bytes"]) == (300, {"driver": 1, "python": 2, "tree": 3})


def test_growth_is_told_of_the_peer_too_where_it_ran() -> None:
    sizes = [
        {"impressions": size, "seconds": 5 + size / 1e6, "daily_seconds": size / 1e6} for size in (1e6, 2e6, 4e6, 8e6)
    ]
    growth = growth_rows(sizes)
    assert growth.keys() == {"daily_seconds", "seconds"}
    assert growth["seconds"] is not None
    assert growth["seconds"]["exponent"] == pytest.approx(1.0, abs=0.002)
    with_peer = [{**row, "duckdb": {"daily_seconds": row["daily_seconds"] / 3}} for row in sizes]
    assert "duckdb_daily_seconds" in growth_rows(with_peer)


def test_the_script_writes_what_is_compared() -> None:
    parts = read_script()
    assert ["dimensions", *(part.name for part in parts)] == list(DAILY_STAGES)
    assert {table for part in parts for table in part.writes} == set(COMPARED)


def test_folds_are_sparks(spark: SparkSession) -> None:
    texts = [f"{number:0{length}d}" for number in range(100) for length in (3, 7, 32, 45)]
    frame = spark.createDataFrame([(text,) for text in texts], "user_id string").coalesce(1)
    fold = F.pmod(F.xxhash64(F.lit("a key"), F.col("user_id")), F.lit(5)).cast("int")
    assert user_folds(texts, "a key", 5).tolist() == [row[0] for row in frame.select(fold).collect()]


def test_impossible_requests_are_refused(settings: Settings, tmp_path: Path) -> None:
    for bench, told in (
        (PairsBench([]), "nothing to measure"),
        (PairsBench([15_000], num_days=2), "7,500 impressions a day"),
        (PairsBench([1_000_000], num_cores=0), "at least 1"),
    ):
        with pytest.raises(ValueError, match=told):
            run_pairs_bench(settings, tmp_path, bench, Console(quiet=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_whole_of_it_on_little(settings: Settings, tmp_path: Path) -> None:
    """Two days with everything that real logs get wrong: DuckDB's tables are the lake's, to the row."""
    bench = PairsBench([24_000], num_days=2, refresh_days=2, refresh_impressions=10_000, num_groups=320, num_products=2)
    report = run_pairs_bench(settings, tmp_path, bench, Console(quiet=True))
    assert json.loads((tmp_path / "pairs.json").read_text()) == json.loads(json.dumps(report))
    assert (tmp_path / "pairs.png").stat().st_size > 10_000
    assert not (tmp_path / "work").exists()
    (row,) = report["sizes"]
    equality = row["duckdb"]["equality"]
    assert equality.keys() == COMPARED.keys()
    assert all(counts["num_different"] == 0 for counts in equality.values())
    assert equality["silver_exposures"]["num_rows"] == row["num_rows"]["silver_exposures"] > 23_000
    assert equality["quarantined_events"]["num_rows"] > 50
    assert row["num_rows"]["preference_pairs"] > 0
    assert set(DAILY_STAGES) | {"start", "groups", "group_ctr", "preference_pairs"} <= row["stages"].keys()
    assert 0 < row["job_seconds"] <= row["spark_seconds"] < row["seconds"]
    assert row["peak_bytes"]["driver"] > 300e6
    days, groups = report["refreshes"], report["groups"]
    assert [day["starts_process"] for day in days] == [True, False]
    # Late clicks of the second day touch the first.
    assert [day["num_reopened_days"] for day in days] == [0, 1]
    assert set(DAILY_STAGES) | set(AS_OF_STAGES) <= days[-1]["stages"].keys()
    assert all(0 < day["orchestration_share"] < 1 for day in days)
    assert tuple(groups["seconds"]) == PARTS
    assert groups["num_scopes"] == 20
    assert 160 < groups["num_groups"] <= 320
    assert {one["driver_heap"] for one in (row, groups, *days)} == {"2g"}
    text = DOCS.read_text()
    keys = (*report, *row, *row["duckdb"], *row["stages"]["bronze"], *days[0], *groups)
    assert [key for key in keys if f"`{key}`" not in text] == []
