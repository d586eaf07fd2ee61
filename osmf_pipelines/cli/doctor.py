"""Looks at the machine before work starts: what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from packaging.requirements import Requirement

from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.session import get_spark, java_problem

MIN_FREE_GIB = 5.0
_GIB = 1024**3


def disk_problem(home: Path) -> str | None:
    """Returns one line when there is too little room at `home`, or None."""
    existing = next(path for path in (home, *home.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / _GIB
    if free < MIN_FREE_GIB:
        return f"{existing} has {free:.1f} GiB free, {MIN_FREE_GIB:.0f} needed: free some, or set OSMF_HOME elsewhere."
    return None


def find_problems(settings: Settings, report: Callable[[str, str | None], None], *, is_thorough: bool) -> list[str]:
    """Returns what is wrong, one line each, and tells `report` each look's name and problem as it goes.

    Args:
        settings: where OSMF writes.
        report: called with (what was looked at, the problem or None).
        is_thorough: also start Spark and write a Delta table.
    """
    looks: dict[str, Callable[[], str | None]] = {
        f"Python {sys.version.split()[0]}": lambda: None,
        "Java": java_problem,
        f"disk at {settings.home}": lambda: disk_problem(settings.home),
        "versions of libraries": _library_problem,
        "C++ compiler": _compiler_problem,
    }
    if is_thorough:
        looks["Spark with Delta"] = lambda: _spark_problem(settings)
    problems = []
    for name, look in looks.items():
        problem = look()
        report(name, problem)
        if problem:
            problems.append(problem)
    return problems


def _library_problem() -> str | None:
    """What this package requires and is missing, or there in another version."""
    wrong = []
    for text in importlib.metadata.requires("osmf") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return f"{'; '.join(wrong)}: run `make setup`." if wrong else None


def _compiler_problem() -> str | None:
    if shutil.which("g++") is None:
        return "g++ was not found: DeepSpeed compiles a small operation with it (Debian: apt-get install g++)."
    return None


def _spark_problem(settings: Settings) -> str | None:
    path = str(settings.home / "doctor")
    try:
        spark = get_spark(settings)
    except RuntimeError as error:
        return str(error)
    try:
        spark.range(1).write.format("delta").mode("overwrite").save(path)
        count = spark.read.format("delta").load(path).count()
    except Exception as error:  # whatever it is, the answer is a line that says so
        return f"Spark does not write Delta tables: {str(error).splitlines()[0]}"
    finally:
        shutil.rmtree(path, ignore_errors=True)
    return None if count == 1 else f"a Delta table with one row came back with {count}."
