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

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from osmf_pipelines.settings import Settings

MIN_JAVA = 17
_LOCAL_CONF = {
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


def get_spark(settings: Settings) -> SparkSession:
    """Returns this process's Spark session, started on first use.

    Raises:
        RuntimeError: when Java is missing or too old, with the remedy.
    """
    problem = java_problem()
    if problem:
        raise RuntimeError(problem)
    from delta import configure_spark_with_delta_pip
    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    local = _LOCAL_CONF if settings.spark_master.startswith("local") else {}
    log4j = Path(__file__).with_name("log4j2.properties")
    builder = SparkSession.builder.appName("osmf").master(settings.spark_master)
    for key, value in {
        "spark.driver.memory": settings.driver_memory,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j.as_uri()} -XX:+UseParallelGC",
        "spark.sql.warehouse.dir": str(settings.home / "spark-warehouse"),
        **_CONF,
        **local,
        **settings.spark_conf,
    }.items():
        builder = builder.config(key, value)
    if "spark.jars" not in settings.spark_conf:
        builder = configure_spark_with_delta_pip(builder)
    for name in _LOGGERS_THAT_QUOTE_ROWS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    log = settings.home / "logs" / "spark.log"
    try:
        with _stderr_to(log):
            return builder.getOrCreate()
    except Exception as error:
        raise RuntimeError(f"Spark did not start ({str(error).splitlines()[0]}); {log} says more.") from error


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
