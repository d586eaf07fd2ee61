"""A real standalone cluster whose workers have no checkout: the same day as in this process, whatever happens to it."""

from __future__ import annotations

from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.spark.cluster import own_versions
from osmf_pipelines.spark.content_hash import content_hashes
from osmf_pipelines.spark.lake import Lake
from osmf_pipelines.tables import TABLES
from tests.cluster.conftest import PAIRS, ROOT, UPSTREAM, Day
from tests.lake.conftest import DAILY, tiny_settings
from tests.lake.jobs import run_job
from tests.tiny_drop import FIRST_DAY

pytestmark = pytest.mark.slow


def _hashes(lake: Lake, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    return {name: content_hashes(TABLES[name], lake.read(name)) for name in names}


@pytest.fixture(scope="module")
def here(spark: SparkSession, day: Day, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The lake of the same day, made in this process."""
    settings = tiny_settings(tmp_path_factory.mktemp("here") / "home", day.drop.folder)
    assert run_job(settings, "ingest_days", FIRST_DAY).success
    assert run_job(settings, "form_pairs", FIRST_DAY, selection=PAIRS).success
    return LakeResource(settings).lake


@pytest.fixture(scope="module")
def there(here: Lake, day: Day) -> Lake:
    """The lake that the cluster wrote, read from here."""
    return Lake(here.spark, str(day.home / "lake"), day.home / "locks")


def test_workers_have_nothing_of_the_checkout(day: Day) -> None:
    """Code is imported from the zip that ships with the job, libraries from the archive beside it."""
    imports = day.found["imports"]
    assert Path(imports["osmf"]).parents[1].name.startswith("osmf-code-")
    assert Path(imports["numpy"]).is_relative_to(imports["cwd"])
    assert Path(imports["cwd"]).is_relative_to(day.work)
    site_packages, spark = Path(pytest.__file__).parents[1], Path(pyspark.__file__).parent
    paths = [Path(path) for path in imports["path"]]  # Spark's own Python may lie in the checkout's environment
    told = [path for path in paths if path.is_relative_to(ROOT) and not path.is_relative_to(spark)]
    assert told == []
    assert site_packages not in paths


def test_nothing_listens_beyond_this_machine(day: Day) -> None:
    """Master, workers, their executors and the driver."""
    assert day.listening == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("lake", ("/proc/self/cwd/lake on ", "must be on a path that all machines share")),
        ("driver", ("This machine cannot write", "driver.py")),
        ("versions", ("pillow 1.0 on ", f"here {own_versions()['pillow']}", "unset OSMF_SPARK_PYTHON")),
        ("python", ("have no /nowhere/python", "OSMF_SPARK_PYTHON")),
        ("executors", ("gave no executor within 3 seconds", "less memory than spark.executor.memory", "127.0.0.1:")),
        ("no store", ("OSMF_LAKE=nosuch://bucket/lake cannot be written", "docs/cluster.md")),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(day: Day, what: str, told: tuple[str, ...]) -> None:
    problem = day.found["problems"][what]
    assert all(part in problem for part in told), problem
    assert "\n" not in problem


def test_a_cluster_that_fits_has_no_problem(day: Day) -> None:
    assert day.found["problems"]["none"] is None
    assert day.found["problems"]["store"] is None


@pytest.mark.parametrize(("part", "names"), [("dimensions", UPSTREAM), ("pairs", PAIRS)], ids=["dimensions", "pairs"])
def test_a_cluster_makes_the_same_tables(day: Day, here: Lake, there: Lake, part: str, names: tuple[str, ...]) -> None:
    assert day.found[part]
    expected = _hashes(here, names)
    assert all(expected.values())
    assert _hashes(there, names) == expected


def test_an_executor_that_is_killed_changes_nothing(day: Day, here: Lake, there: Lake) -> None:
    assert day.found["events"]
    assert len(day.found["killed"]) == 1
    executors = sorted(int(path.name) for path in next(day.work.glob("app-*-0000")).iterdir())
    assert executors[:3] == [0, 1, 2], "two workers have one executor each, and one has another since"
    assert _hashes(there, DAILY) == _hashes(here, DAILY)
