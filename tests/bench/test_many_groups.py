"""Groups, rates and pairs from made-up sums: told part by part, and what is written is read back."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import SparkSession

from osmf_pipelines.bench.many_groups import PARTS, measure_many_groups
from osmf_pipelines.bench.part_process import Steps
from osmf_pipelines.settings import Settings


def test_an_interrupted_run_reads_back_what_it_wrote(settings: Settings, spark: SparkSession, tmp_path: Path) -> None:
    steps = Steps(tmp_path / "many_groups.steps.json")
    result = measure_many_groups(settings, 320, seed=1, output=tmp_path, steps=steps)
    told = steps.read()
    assert [row["part"] for row in told] == list(PARTS)
    assert all(row["seconds"] > 0 for row in told)
    assert result["num_scopes"] == 20
    assert 160 < result["num_groups"] <= 320
    assert result["num_rows"]["creative_stats"] == 20 * 16 * 5 * 4  # cells, products, creatives
    assert result["num_rows"]["preference_pairs"] > 0
    assert result["driver_heap"] == "2g"

    # Interrupted in the last part: of the others the sums are as they were written, and their times as they were told.
    steps.path.unlink()
    for row in told[:-1]:
        steps.append(row)
    spark.range(0).write.mode("overwrite").parquet(str(tmp_path / "preference_pairs"))
    assert measure_many_groups(settings, 320, seed=2, output=tmp_path, steps=steps) == result
    assert steps.read()[:-1] == told[:-1]
    assert steps.read()[-1]["part"] == PARTS[-1]
