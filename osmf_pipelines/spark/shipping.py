"""What a job brings along for workers that have no checkout: this code, and the libraries that it computes with.

Code goes as one zip on the workers' import path. Libraries are packed from this very environment, so that driver and
workers compute with the same versions; workers need Spark and a Python of the same minor version, nothing else. Where
a cluster is and whether its workers fit is looked at in `cluster`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from osmf_pipelines.spark.cluster import WORKER_LIBRARIES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

WORKER_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_PACKAGES = ("osmf_models", "osmf_pipelines")
_CODE = "osmf-code-"
_FOLDER_ON_WORKERS = "osmf-libraries"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files give the same zip


def shipped_conf(folder: Path, conf: Mapping[str, str]) -> dict[str, str]:
    """Returns the Spark configuration that brings the libraries to the workers, on top of the user's `conf`.

    Args:
        folder: where the archive is kept; packed when it is not there yet.
        conf: the user's configuration; its archives and import path stay.
    """
    archive = f"{pack_libraries(folder)}#{_FOLDER_ON_WORKERS}"
    archives, path = conf.get("spark.archives"), conf.get("spark.executorEnv.PYTHONPATH")
    return {
        "spark.archives": f"{archives},{archive}" if archives else archive,
        "spark.executorEnv.PYTHONPATH": f"{_FOLDER_ON_WORKERS}:{path}" if path else _FOLDER_ON_WORKERS,
    }


def ship_code(spark: SparkSession, folder: Path) -> None:
    """Puts this code on the import path of the session's workers."""
    path = list(sys.path)
    spark.sparkContext.addPyFile(str(pack_code(folder)))
    sys.path[:] = path  # here the code is read from where it lies, with the files beside it


def is_shipped(spark: SparkSession) -> bool:
    """Whether `ship_code` was done for this session."""
    return any(Path(name).name.startswith(_CODE) for name in spark.sparkContext.listFiles)


def pack_code(folder: Path) -> Path:
    """Returns a zip of this code in `folder`, named by its content."""
    root = Path(__file__).resolve().parents[2]
    paths = sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py"))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    files = ((path, path.relative_to(root).as_posix()) for path in paths)
    return _write_zip(folder / f"{_CODE}{digest.hexdigest()[:16]}.zip", files)


def pack_libraries(folder: Path) -> Path:
    """Returns a zip of `WORKER_LIBRARIES` and what they require, as installed here, named by their versions."""
    distributions = _with_requirements(WORKER_LIBRARIES)
    versions = sorted(f"{name}=={found.version}" for name, found in distributions.items())
    digest = hashlib.sha256("\n".join([*versions, sysconfig.get_platform(), WORKER_PYTHON]).encode()).hexdigest()
    files = (
        (Path(str(distribution.locate_file(file))), file.as_posix())
        for distribution in distributions.values()
        for file in distribution.files or ()
        if ".." not in file.parts and file.suffix != ".pyc"
    )
    return _write_zip(folder / f"osmf-libraries-{digest[:16]}.zip", files)


def _with_requirements(names: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions of these names and of all that they require here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        requirements = (Requirement(text) for text in found[name].requires or ())
        waiting += [
            canonicalize_name(requirement.name)
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    return found


def _write_zip(target: Path, files: Iterable[tuple[Path, str]]) -> Path:
    """Writes (file, name inside) into `target`, all or nothing; a zip that is there already is left as it is."""
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")
    with zipfile.ZipFile(unfinished, "w") as archive:
        for path, name in files:
            info = zipfile.ZipInfo(name, _EPOCH)
            archive.writestr(info, path.read_bytes(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=1)
    unfinished.replace(target)
    return target
