"""What is missing is said in one line, with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from osmf_pipelines.cli import doctor
from osmf_pipelines.spark.session import java_problem


def _install_java(folder: Path, version: str) -> None:
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)


def test_missing_java_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    problem = java_problem()
    assert problem is not None
    assert problem.startswith("Java was not found: install JDK 17")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("version", "is_too_old"), [("1.8.0_392", True), ("11.0.2", True), ("17.0.1", False), ("21", False)]
)
def test_old_java_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, is_too_old: bool) -> None:
    _install_java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    problem = java_problem()
    assert (problem is not None) == is_too_old
    assert not is_too_old or f"Java {version}" in str(problem)


def test_a_full_disk_is_told_before_the_folder_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "not" / "yet"
    assert doctor.disk_problem(home) is None
    monkeypatch.setattr(doctor, "MIN_FREE_GIB", 1e9)
    problem = doctor.disk_problem(home)
    assert problem is not None
    assert "OSMF_HOME" in problem
    assert "\n" not in problem
