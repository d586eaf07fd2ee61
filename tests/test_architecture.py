"""The rules of the structure, executed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("osmf_models", "osmf_pipelines")

# Who may import what lies behind it; paths are prefixes.
OWNERS = {
    "great_expectations": ("osmf_pipelines/quality/gate.py",),
    "deepspeed": ("osmf_models/training/zero.py",),
    "pyspark": (
        "osmf_pipelines/spark/",
        "osmf_pipelines/sources/",
        "osmf_pipelines/quality/gate.py",
        "osmf_pipelines/quality/failing_rows.py",
        "osmf_pipelines/bench/",
    ),
    "delta": ("osmf_pipelines/spark/",),
    "dagster": (
        "osmf_pipelines/assets/",
        "osmf_pipelines/cli/runs.py",
        "osmf_pipelines/definitions.py",
        "osmf_pipelines/open_bandit_definitions.py",
        "osmf_pipelines/jobs.py",
        "osmf_pipelines/partitions.py",
        "osmf_pipelines/schedules.py",
        "osmf_pipelines/sensors.py",
        "osmf_pipelines/maintenance.py",
    ),
    "torch": ("osmf_models/",),
    "peft": ("osmf_models/model/lora.py",),
    # `run_record` only quietens their logs.
    "transformers": ("osmf_models/model/", "osmf_models/stages/run_record.py"),
    "diffusers": ("osmf_models/model/", "osmf_models/stages/run_record.py"),
    # The market's truth is read by evaluation and benchmarks alone; the simulator writes it.
    "osmf_models.simulator": (
        "osmf_models/simulator/",
        "osmf_models/evaluation/",
        "osmf_models/stages/evaluate.py",
        "osmf_models/stages/judge.py",
        "osmf_pipelines/spark/simulate",
        "osmf_pipelines/cli/demo.py",
        "osmf_pipelines/cli/simulate.py",
        "osmf_pipelines/bench/",
    ),
    "osmf_pipelines.bench": (
        "osmf_pipelines/bench/",
        "osmf_pipelines/cli/",
        "osmf_pipelines/report/",
        "osmf_pipelines/assets/truth.py",
    ),
    "osmf_models.evaluation": (
        "osmf_models/evaluation/",
        "osmf_models/stages/evaluate.py",
        "osmf_models/stages/judge.py",
        "osmf_models/stages/register.py",
        "osmf_pipelines/promotion/",
        "osmf_pipelines/report/",
        "osmf_pipelines/spark/off_policy.py",
        "osmf_pipelines/spark/policy_values.py",
        "osmf_pipelines/spark/experiment_arms.py",
        "osmf_pipelines/cli/ab.py",
        "osmf_pipelines/bench/",
    ),
}


def _files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _imports(path: Path, *, at_top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_top_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _is_inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_models_never_import_pipelines() -> None:
    offenders = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "osmf_models").rglob("*.py")
        if any(_is_inside(name, "osmf_pipelines") for name in _imports(path))
    ]
    assert offenders == []


@pytest.mark.parametrize("library", OWNERS)
def test_only_its_owners_import(library: str) -> None:
    offenders = []
    for path in _files():
        name = path.relative_to(ROOT).as_posix()
        if any(_is_inside(imported, library) for imported in _imports(path)) and not name.startswith(OWNERS[library]):
            # Types for the checker, and libraries imported where an asset or a command runs, are the two exceptions.
            is_lazy = not any(_is_inside(imported, library) for imported in _imports(path, at_top_only=True))
            if not (
                is_lazy
                and library in ("pyspark", "delta")
                and name.startswith(("osmf_pipelines/assets/", "osmf_pipelines/cli/"))
            ):
                offenders.append(name)
    assert offenders == []


def test_only_evaluation_is_given_the_truth() -> None:
    """What leads to the truth is named in settings, and where models or groups are judged; no data depends on these."""
    users = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "osmf_pipelines").rglob("*.py"))
        if any(name in path.read_text() for name in ("truth_folder", "truth_path", "--truth"))
    ]
    assert users == [
        "osmf_pipelines/assets/models.py",
        "osmf_pipelines/assets/truth.py",
        "osmf_pipelines/bench/ablation_market.py",
        "osmf_pipelines/definitions.py",
        "osmf_pipelines/settings.py",
    ]
    text = (ROOT / "osmf_pipelines/assets/models.py").read_text()
    assert text.count("truth_folder") == 1
    assert "truth_folder" in text.split("def _evaluation_report")[1].split("\ndef ")[0]


def test_definitions_load_without_spark_and_torch() -> None:
    code = (
        "import sys; from osmf_pipelines.definitions import defs; defs; "
        "print([m for m in ('pyspark', 'torch', 'mlflow', 'great_expectations') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_files_stay_small() -> None:
    too_long = [path.name for path in _files() if len(path.read_text().splitlines()) > 300]
    assert too_long == ["tables.py"]  # the one list that everything agrees on


def test_every_module_says_what_it_is() -> None:
    silent = [str(path.relative_to(ROOT)) for path in _files() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_lock_names_no_address() -> None:
    for name in ("requirements.lock", "requirements-bootstrap.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert "--hash=sha256:" in text
