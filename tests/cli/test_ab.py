"""`osmf ab` on a lake: the table, the file that promotion reads, and what ends it."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from osmf_models.evaluation.ab_readout import read_readout
from osmf_pipelines.cli.ab import run_ab
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

# 600 users in each of 2 arms, an impression on each of 2 days; on the first 60 click, of the other arm 120.
_EXPOSURES = """
    SELECT DATE_ADD(DATE'2026-03-02', CAST(day AS INT)) AS event_date, 'shoe' AS scope,
        CONCAT('age=', id DIV 2 % 2) AS cell, CONCAT('u', id) AS user_id, 'spring' AS experiment_id,
        IF(id % 2 = 0, 'control', 'new') AS arm, IF(id % 2 = 0, NULL, '7') AS model_version,
        day = 0 AND id DIV 2 < IF(id % 2 = 0, 60, 120) AS is_clicked
    FROM (SELECT id % 1200 AS id, id DIV 1200 AS day FROM RANGE(2400))"""
_GROUPS = """
    SELECT DATE'2026-03-01' AS as_of_date, 'shoe' AS scope, cell, CONCAT('[g', cell, ']') AS group_id
    FROM VALUES ('age=0'), ('age=1') AS t(cell)"""
_FEATURES = """SELECT DATE'2026-03-01' AS as_of_date, 'shoe' AS scope, '[g]' AS group_id, TRUE AS is_scope_root"""


@pytest.fixture
def lake_settings(settings: Settings, spark: SparkSession) -> Settings:
    """A lake of an experiment, and groups as of the day before."""
    for name, query in (
        ("silver_exposures", _EXPOSURES),
        ("user_groups", _GROUPS),
        ("group_features", _FEATURES),
    ):
        frame = spark.sql(query)
        partition = TABLES[name].partition_column
        assert partition is not None
        frame.write.format("delta").partitionBy(partition).save(f"{settings.lake_root}/{name}")
    return settings


def run(settings: Settings, experiment: str = "spring", output: Path | None = None, **changes) -> str:
    console = Console(file=io.StringIO(), width=200)
    options = {"first_date": None, "last_date": None, "control": None, "split": [], "lift": 0.05}
    try:
        run_ab(settings, console, experiment, **(options | changes), output=output)
    finally:
        text = console.file.getvalue()
    return text


@pytest.mark.slow
def test_an_experiment_is_read_out_from_the_lake(lake_settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "readout.json"
    text = run(lake_settings, output=path)
    for told in ("Experiment spring, 2026-03-02 to 2026-03-03", "no model", "+100.0%", "shoe [gage=0]", str(path)):
        assert told in text, text
    readout = read_readout(path)
    (overall,) = readout.overall
    assert (overall.found.lift, overall.found.difference) == pytest.approx((1.0, 60 / 1200))
    assert readout.experiment.groups_as_of == "2026-03-01"
    assert readout.experiment.model_versions == {"control": {"": 1200}, "new": {"7": 1200}}
    assert [one.found.lift for one in readout.by_group] == pytest.approx([1.0, 1.0])
    assert json.loads(path.read_text())["sample_size"]["lift"] == 0.05

    with pytest.raises(ValueError, match="'spring' is not sound, no lift is told: users do not split as planned"):
        run(lake_settings, output=path, split=["control=0.9", "new=0.1"], last_date=date(2026, 3, 2))
    broken = json.loads(path.read_text())
    assert (len(broken["faults"]), broken["overall"], broken["experiment"]["last_date"]) == (1, [], "2026-03-02")
    with pytest.raises(ValueError, match=r"'autumn'; there are: spring \(2026-03-02 to 2026-03-03, 2,400"):
        run(lake_settings, "autumn")


def test_impossible_options_are_told_before_anything_is_read(settings: Settings) -> None:
    for changes, message in (({"lift": 0.0}, "cannot be looked for"), ({"split": ["a"]}, "write ARM=SHARE")):
        with pytest.raises(ValueError, match=message):
            run(settings, **changes)
