"""The one Spark session of a process.

Everything that makes a run reproducible (UTC, no speculation) or fit for a laptop is set here; transformations never
touch the configuration.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from osmf_pipelines.spark.cluster import is_local, is_on_this_machine, master_problem, workers_problem
from osmf_pipelines.spark.shipping import WORKER_PYTHON, is_shipped, ship_code, shipped_conf

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from osmf_pipelines.settings import Settings

MIN_JAVA = 17
# Also of a cluster on this machine, which is no larger, so that it makes the same exports.
_ONE_MACHINE_CONF = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
}
_CONF = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.speculation": "false",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.debug.maxToStringFields": "100",
    # A day compiles more classes than the 100 that are kept by default; the next day has most of them again.
    "spark.sql.codegen.cache.maxEntries": "2000",
    "spark.databricks.delta.properties.defaults.enableDeletionVectors": "false",
}

# They repeat an error that is raised anyway, with the values of the row that caused it.
_LOGGERS_THAT_QUOTE_ROWS = ("DataFrameQueryContextLogger", "SQLQueryContextLogger")


def java_problem() -> str | None:
    """Returns one line that says what is wrong with this machine's Java and what to do, or None."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    remedy = (
        f"install JDK {MIN_JAVA} or newer (Debian: apt-get install openjdk-{MIN_JAVA}-jdk-headless) or set JAVA_HOME"
    )
    if java is None or not Path(java).is_file():
        return f"Java was not found: {remedy}."
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = text.split('"')[1] if '"' in text else "unknown"
    major = version.split(".")[0]
    if not major.isdigit() or int(major) < MIN_JAVA:
        return f"Java {version} ({java}) is too old for Spark: {remedy}."
    return None


def spark_conf(settings: Settings) -> dict[str, str]:
    """Returns the whole configuration: ours, then the user's, then what ships to a cluster's workers (packed here)."""
    log4j = Path(__file__).with_name("log4j2.properties")
    conf = {
        "spark.driver.memory": settings.driver_memory,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j.as_uri()} -XX:+UseParallelGC",
        "spark.sql.warehouse.dir": str(settings.home / "spark-warehouse"),
        **_CONF,
        **(_ONE_MACHINE_CONF if is_on_this_machine(settings.spark_master) else {}),
        **settings.spark_conf,
    }
    if not is_local(settings.spark_master) and not settings.spark_python:
        conf |= shipped_conf(_shipped_folder(settings), settings.spark_conf)
    return conf


def get_spark(settings: Settings) -> SparkSession:
    """Returns this process's Spark session, started on first use; on a cluster, with this code on its workers.

    Raises:
        RuntimeError: when Java is missing or too old, or the cluster cannot do the work, with the remedy.
    """
    problem = java_problem() or master_problem(settings.spark_master)
    if problem:
        raise RuntimeError(problem)
    from delta import configure_spark_with_delta_pip
    from pyspark.sql import SparkSession

    _set_environment(settings)
    builder = SparkSession.builder.appName("osmf").master(settings.spark_master)
    for key, value in spark_conf(settings).items():
        builder = builder.config(key, value)
    if "spark.jars" not in settings.spark_conf:
        packages = settings.spark_conf.get("spark.jars.packages", "")
        builder = configure_spark_with_delta_pip(builder, [name for name in packages.split(",") if name])
    for name in _LOGGERS_THAT_QUOTE_ROWS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    log = settings.home / "logs" / "spark.log"
    try:
        with _stderr_to(log):
            spark = builder.getOrCreate()
    except Exception as error:
        raise RuntimeError(f"Spark did not start ({str(error).splitlines()[0]}); {log} says more.") from error
    if not is_local(settings.spark_master) and not is_shipped(spark):
        _prepare_workers(spark, settings)
    return spark


def _prepare_workers(spark: SparkSession, settings: Settings) -> None:
    """Once for each session; one whose cluster cannot do the work is stopped."""
    ship_code(spark, _shipped_folder(settings))
    problem = workers_problem(spark, settings)
    if problem:
        spark.stop()
        raise RuntimeError(problem)


def _set_environment(settings: Settings) -> None:
    """What Spark takes from the environment: addresses to bind, and the Python that workers start."""
    if is_on_this_machine(settings.spark_master):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if is_local(settings.spark_master):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    else:
        os.environ["PYSPARK_PYTHON"] = settings.spark_python or WORKER_PYTHON


def _shipped_folder(settings: Settings) -> Path:
    return settings.home / "shipped"


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """Sends what this process and its children write to stderr into a file: the JVM keeps it for life."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    terminal = os.dup(2)
    with path.open("a") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
