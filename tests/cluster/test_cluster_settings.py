"""What is known of a cluster before Spark starts: addresses that nobody answers at, settings that cannot work."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from osmf_pipelines.settings import Settings
from osmf_pipelines.spark import cluster, session, shipping
from osmf_pipelines.spark.cluster import Sight, is_on_this_machine, master_problem, versions_problem
from osmf_pipelines.spark.standalone import standalone_cluster
from tests.cluster.conftest import ROOT, free_port

MASTER = "spark://127.0.0.1:7077"


def test_a_master_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    master = f"spark://127.0.0.1:{free_port()}"
    with pytest.raises(RuntimeError, match=f"No Spark master answers at OSMF_SPARK_MASTER={master}: start the cluster"):
        session.get_spark(Settings(home=tmp_path, spark_master=master))


@pytest.mark.parametrize("master", ["spark://host", "spark://:7077", "spark://host:seven", "spark://a:1,b"])
def test_a_master_without_host_and_port_is_told(master: str) -> None:
    assert master_problem(master) == f"OSMF_SPARK_MASTER={master} must be spark://host:port."


@pytest.mark.parametrize("master", ["local[2]", "yarn", "k8s://https://10.0.0.1:6443"])
def test_only_standalone_masters_are_tried(master: str) -> None:
    assert master_problem(master) is None


@pytest.mark.parametrize(
    ("master", "is_here"),
    [
        ("local[*]", True),
        (MASTER, True),
        ("spark://localhost:7077", True),
        ("spark://[::1]:7077", True),
        ("spark://10.0.0.1:7077", False),
        ("spark://127.0.0.1:7077,master-2:7077", False),
        ("yarn", False),
    ],
)
def test_only_a_cluster_beyond_this_machine_is_told_its_address(master: str, is_here: bool, tmp_path: Path) -> None:
    assert is_on_this_machine(master) is is_here
    conf = session.spark_conf(Settings(home=tmp_path, spark_master=master, spark_python="python3.11"))
    assert (conf.get("spark.driver.host") == "127.0.0.1") is is_here


@pytest.mark.parametrize(("variable", "path"), [("OSMF_HOME", "home"), ("OSMF_LAKE", "lake")])
def test_a_path_that_means_another_place_on_workers_is_refused(
    variable: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, path)
    assert Settings(spark_master="local[2]").spark_master == "local[2]"
    with pytest.raises(ValidationError, match=f"absolute {variable}, and that is {path}"):
        Settings(spark_master=MASTER)


def test_a_lake_in_a_store_is_absolute(tmp_path: Path) -> None:
    assert Settings(home=tmp_path, lake="s3a://bucket/lake", spark_master=MASTER).lake_root == "s3a://bucket/lake"


def test_a_model_that_does_not_ship_needs_a_python_that_has_it(tmp_path: Path) -> None:
    given = {"home": tmp_path, "segmentation_model": "some/model"}
    with pytest.raises(ValidationError, match="on a cluster needs OSMF_SPARK_PYTHON"):
        Settings(**given, spark_master=MASTER)
    assert Settings(**given, spark_master=MASTER, spark_python="/opt/python").segmentation_model
    assert Settings(**given).segmentation_model


def test_each_version_that_differs_is_named_once() -> None:
    own = {"Python": "3.11", "Spark": "4.2.0", "numpy": "2.4.6"}
    same, old = Sight("a", own, ()), Sight("b", {**own, "numpy": "2.0.0", "Spark": "4.1.0"}, ())
    assert versions_problem(own, [same, same]) is None
    problem = versions_problem(own, [same, old, old])
    assert problem is not None
    assert "Spark 4.1.0 on b, here 4.2.0; numpy 2.0.0 on b, here 2.4.6. Give" in problem
    lacking = versions_problem(own, [Sight("c", {**own, "numpy": "missing"}, ())])
    assert lacking is not None
    assert "numpy missing on c" in lacking


_FAILED = "An error occurred while calling z:x.\n: org.apache.spark.SparkException: Job aborted: task 0 failed: "


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            f"{_FAILED}Traceback (most recent call last):\n  ...\n[PYTHON_VERSION_MISMATCH] Python in worker has "
            "different version: 3.12 than that in driver: 3.11, no.\nPlease check",
            "another Python than the driver: Python in worker has different version: 3.12 than that in driver: 3.11",
        ),
        (f'{_FAILED}java.io.IOException: Cannot run program "python3.11": error=2', "have no python3.11: install it"),
        (
            f"{_FAILED}Traceback (most recent call last):\n  File\nModuleNotFoundError: No module named 'numpy'\n\tat",
            "do not run Python: ModuleNotFoundError: No module named 'numpy'",
        ),
        (f"{_FAILED}lost", "do not run Python: org.apache.spark.SparkException: Job aborted: task 0 failed: lost"),
    ],
    ids=["another Python", "no Python", "no library", "anything else"],
)
def test_the_error_of_a_worker_becomes_one_line_that_names_it(message: str, told: str) -> None:
    line = cluster._told_by_python(message)
    assert told in line
    assert "\n" not in line


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"Port {port} is taken"), standalone_cluster(tmp_path, port=port):
            pass


def test_the_users_archives_and_packages_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "pack_libraries", lambda folder: folder / "ours.zip")
    theirs = {"spark.archives": "model.zip#model", "spark.executorEnv.PYTHONPATH": "/opt/lib", "spark.cores.max": "8"}
    conf = session.spark_conf(Settings(home=tmp_path, spark_master="yarn", spark_conf=theirs))
    assert conf["spark.archives"] == f"model.zip#model,{tmp_path}/shipped/ours.zip#osmf-libraries"
    assert conf["spark.executorEnv.PYTHONPATH"] == "osmf-libraries:/opt/lib"
    assert conf["spark.cores.max"] == "8"


def test_the_same_code_is_one_zip_and_imports_from_it(tmp_path: Path) -> None:
    """On a Python that has neither this checkout nor pandas."""
    first = shipping.pack_code(tmp_path / "a")
    assert shipping.pack_code(tmp_path / "b").read_bytes() == first.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert "osmf_pipelines/spark/pairs.py" in names
    assert {Path(name).parts[0] for name in names} == {"osmf_models", "osmf_pipelines"}
    code = "from osmf_pipelines.spark import cluster; print(cluster.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(first)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith(str(first))


_ONLY = """
import importlib, sys, sysconfig
class Only:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in there:
            raise ModuleNotFoundError(name, name=name)
there = {*sys.stdlib_module_names, sysconfig._get_sysconfigdata_name(), *sys.argv[1].split()}
sys.meta_path.insert(0, Only)
for name in sys.argv[2].split():
    importlib.import_module(name)
"""


def test_what_workers_import_ships() -> None:
    """Modules with functions that Spark sends to workers need Spark, this code and what ships, nothing else."""
    there = {"osmf_models", "osmf_pipelines", "pyspark", "py4j"}
    for distribution in shipping._with_requirements(shipping.WORKER_LIBRARIES).values():
        there |= {Path(file.parts[0]).name.partition(".")[0] for file in distribution.files or ()}
    sends = re.compile(r"\.(mapInPandas|applyInPandas|mapPartitions)\(")
    paths = sorted((ROOT / "osmf_pipelines" / "spark").glob("*.py"))
    names = [f"osmf_pipelines.spark.{path.stem}" for path in paths if sends.search(path.read_text())]
    assert {"osmf_pipelines.spark.group", "osmf_pipelines.spark.cluster"} <= set(names)
    assert not {"delta", "dagster", "torch"} & there
    done = subprocess.run(
        [sys.executable, "-c", _ONLY, " ".join(there), " ".join(names)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_libraries_ship_with_all_that_they_require(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shipping._with_requirements(["pandas"])
    assert {"pandas", "numpy", "python-dateutil", "six"} <= set(found)
    monkeypatch.setattr(shipping, "WORKER_LIBRARIES", ("python-dateutil",))
    archive = shipping.pack_libraries(tmp_path)
    names = zipfile.ZipFile(archive).namelist()
    assert {"dateutil/__init__.py", "six.py"} <= set(names)
    assert any(name.endswith(".dist-info/METADATA") for name in names)
    assert not any(name.startswith("..") or name.endswith(".pyc") for name in names)
    monkeypatch.setattr(shipping, "WORKER_LIBRARIES", ("six",))
    assert shipping.pack_libraries(tmp_path) != archive
