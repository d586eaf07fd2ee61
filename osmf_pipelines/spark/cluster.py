"""Whether a cluster can be used: looked at when a session starts, and said in one line when it cannot.

Is there a master, does it give executors, do their Python and libraries have the versions of the driver, and do they
see the folders that the driver writes? How code reaches the workers is in `shipping`. Workers import this module, so it
needs nothing but Spark.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from osmf_pipelines.settings import Settings

# What functions that run on workers import. Segmentation models need more, and a Python that has it.
WORKER_LIBRARIES = ("numpy", "pandas", "pillow", "pyarrow", "scipy")
_CONNECT_SECONDS = 5.0
_SETTLE_SECONDS = 2.0  # executors come one after the other
_MAPPING = "mapping.toml"
_NAMED = re.compile(r"^(?:: |Caused by: )?((?:[\w$]+\.)*[\w$]*(?:Error|Exception): .+)$", re.MULTILINE)


@dataclass(frozen=True)
class Sight:
    """What one worker has and sees.

    Attributes:
        host: its machine.
        versions: of Python (minor), Spark and `WORKER_LIBRARIES`; "missing" where there is none.
        unseen: folders in which it does not see the driver's file, or may not write.
    """

    host: str
    versions: dict[str, str]
    unseen: tuple[str, ...]


def is_local(master: str) -> bool:
    """Whether Spark runs inside this process."""
    return master.startswith("local")


def is_on_this_machine(master: str) -> bool:
    """Whether nothing of Spark is beyond this machine: inside this process, or a cluster at a loopback address."""
    return is_local(master) or (
        master.startswith("spark://") and all(_is_loopback(host) for host, _ in _addresses(master))
    )


def master_problem(master: str) -> str | None:
    """Returns one line when nobody answers where a standalone master should be, or None; others are not tried."""
    if not master.startswith("spark://"):
        return None
    addresses = _addresses(master)
    if not all(host and port for host, port in addresses):
        return f"OSMF_SPARK_MASTER={master} must be spark://host:port."
    if any(_answers(host, int(port)) for host, port in addresses):
        return None
    return (
        f"No Spark master answers at OSMF_SPARK_MASTER={master}: start the cluster (on one machine: `make cluster`) or "
        "correct the address."
    )


def workers_problem(spark: SparkSession, settings: Settings) -> str | None:
    """Returns one line that says why this cluster cannot do the work, or None.

    Every executor that is there a few seconds after the first is looked at; of those that come later nothing is known.
    """
    if not _has_executors(spark, settings.executor_wait_seconds):
        return _no_executor(spark, settings)
    shared, given = _folders(settings)
    marks: dict[str, Path] = {}
    try:
        for folder in shared:
            marks[folder] = _mark(folder)
        sights = _look_from_workers(spark, marks, given)
    except OSError as error:
        return f"This machine cannot write what it shares with the workers: {error}."
    except Exception as error:  # whatever it is, the answer is a line that says so
        return _told_by_python(str(error))
    finally:
        for mark in marks.values():
            _remove(mark)
    problem = versions_problem(own_versions(), sights) or _folders_problem(sights)
    if problem is None and not _is_folder(settings.lake_root):
        problem = store_problem(spark, settings.lake_root)
    return problem


def own_versions() -> dict[str, str]:
    """Returns the versions that must be the same everywhere, as they are in this process."""
    import pyspark

    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "Spark": pyspark.__version__,
        **{name: _version(name) for name in WORKER_LIBRARIES},
    }


def versions_problem(own: dict[str, str], sights: Iterable[Sight]) -> str | None:
    """Returns one line that names each version on a worker that is not the driver's, or None."""
    wrong = {
        f"{name} {sight.versions[name]} on {sight.host}, here {version}"
        for sight in sights
        for name, version in own.items()
        if sight.versions[name] != version
    }
    if not wrong:
        return None
    return (
        f"The workers of the cluster have other versions than the driver: {'; '.join(sorted(wrong))}. Give them the "
        "same ones, or unset OSMF_SPARK_PYTHON, so that libraries ship with the job."
    )


def store_problem(spark: SparkSession, root: str) -> str | None:
    """Returns one line when what workers write into a store is not found there, or None.

    Args:
        spark: the session.
        root: of the lake, such as s3a://bucket/lake.
    """
    path = f"{root.rstrip('/')}/_candidates/_seen-{uuid4().hex}"
    num_rows = max(2, spark.sparkContext.defaultParallelism)
    try:
        spark.range(0, num_rows, 1, num_rows).selectExpr("CAST(id AS string) AS value").write.text(path)
        num_found = spark.read.text(path).count()
        jvm: Any = spark._jvm
        written = jvm.org.apache.hadoop.fs.Path(path)
        written.getFileSystem(spark._jsc.hadoopConfiguration()).delete(written, True)
    except Exception as error:  # each store's client has errors of its own
        return f"OSMF_LAKE={root} cannot be written ({_reason(error)}): docs/cluster.md names the packages and keys."
    return None if num_found == num_rows else f"OSMF_LAKE={root}: {num_found} of {num_rows} rows written were found."


def _addresses(master: str) -> list[tuple[str, str]]:
    """Host and port of each master; empty where there is none."""
    texts = master.removeprefix("spark://").split(",")
    found = [re.fullmatch(r"\[?([^\]/]+?)\]?:(\d{1,5})", text) for text in texts]
    return [(match[1], match[2]) if match else ("", "") for match in found]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError):
        return False
    return True


def _has_executors(spark: SparkSession, seconds: float) -> bool:
    """Waits until the number of executors has stopped rising; False when none came in time, or Spark gave up."""
    scala: Any = spark.sparkContext._jsc.sc()
    num_executors, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        if scala.isStopped():
            return False
        num_now = int(scala.getExecutorMemoryStatus().size()) - 1  # the driver is listed too
        if num_now > num_executors:
            num_executors, until = num_now, time.monotonic() + _SETTLE_SECONDS
        time.sleep(0.2)
    return num_executors > 0


def _no_executor(spark: SparkSession, settings: Settings) -> str:
    conf = spark.sparkContext.getConf()
    return (
        f"OSMF_SPARK_MASTER={settings.spark_master} gave no executor within {settings.executor_wait_seconds} seconds: "
        "its workers are busy (OSMF_EXECUTOR_WAIT_SECONDS waits longer), have less memory than spark.executor.memory, "
        f"run another Spark than {own_versions()['Spark']}, or do not reach this machine at "
        f"{conf.get('spark.driver.host')}:{conf.get('spark.driver.port')} (spark.driver.host)."
    )


def _is_folder(root: str) -> bool:
    return urlsplit(root).scheme in ("", "file")


def _folders(settings: Settings) -> tuple[list[str], list[str]]:
    """Folders that driver and workers write, and those that the workers read only."""
    shared = [str(settings.home)]
    if _is_folder(settings.lake_root):
        shared.append(unquote(urlsplit(settings.lake_root).path))
    drop = settings.drop_folder
    return shared, [str(drop)] if (drop / _MAPPING).is_file() else []


def _mark(folder: str) -> Path:
    """Writes a file that others who see this folder will see."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    mark = Path(folder) / f".osmf-seen-{uuid4().hex}"
    mark.touch()
    return mark


def _remove(mark: Path) -> None:
    for path in mark.parent.glob(f"{mark.name}*"):
        path.unlink(missing_ok=True)


def _look_from_workers(spark: SparkSession, marks: dict[str, Path], given: Sequence[str]) -> list[Sight]:
    """One sight per slot of the cluster; slots are filled side by side, so that each executor is asked."""
    slots = max(1, spark.sparkContext.defaultParallelism)
    look = _looker({folder: str(mark) for folder, mark in marks.items()}, list(given))
    return spark.sparkContext.parallelize(range(slots), slots).mapPartitions(look).collect()


def _looker(marks: dict[str, str], given: list[str]) -> Callable[[Iterable[int]], Iterator[Sight]]:
    def look(slots: Iterable[int]) -> Iterator[Sight]:
        time.sleep(0.5)  # a slot that is free again at once would be given the next task too
        unseen = [folder for folder, mark in marks.items() if not _is_shared(Path(mark))]
        unseen += [folder for folder in given if not (Path(folder) / _MAPPING).is_file()]
        for _ in slots:
            yield Sight(socket.gethostname(), own_versions(), tuple(unseen))

    return look


def _is_shared(mark: Path) -> bool:
    """Whether the driver's file is seen from here, and another can be written beside it."""
    if not mark.is_file():
        return False
    try:
        mark.with_name(f"{mark.name}-{uuid4().hex}").touch()
    except OSError:
        return False
    return True


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _folders_problem(sights: Iterable[Sight]) -> str | None:
    unseen = {(folder, sight.host) for sight in sights for folder in sight.unseen}
    if not unseen:
        return None
    told = "; ".join(f"{folder} on {host}" for folder, host in sorted(unseen))
    return (
        f"Workers of the cluster do not see or may not write what the driver writes: {told}. OSMF_HOME, OSMF_LAKE and "
        "OSMF_SOURCE_PATH must be on a path that all machines share."
    )


def _told_by_python(message: str) -> str:
    """One line from the error of a task whose Python did not come to look."""
    differs = re.search(r"PYTHON_VERSION_MISMATCH\S* (.*)", message)
    if differs:
        return f"The workers of the cluster have another Python than the driver: {differs[1]}"
    missing = re.search(r'Cannot run program "([^"]+)"', message)
    if missing:
        return f"The workers of the cluster have no {missing[1]}: install it there, or set OSMF_SPARK_PYTHON to theirs."
    return f"The workers of the cluster do not run Python: {_reason(message)}"


def _reason(error: object) -> str:
    """The line of a long error that names what went wrong: the one below Python's traceback, or Java's first."""
    message = str(error)
    told = _NAMED.findall(message[max(0, message.find("Traceback (most recent call last)")) :])
    return told[0] if told else (message.strip().splitlines() or [type(error).__name__])[0]
