"""Parts in processes of their own: what they made is kept, and an interrupted one goes on where it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from osmf_pipelines.bench.part_process import run_part

ROOT = Path(__file__).resolve().parents[2]
# Counts on to three from the steps that are there; its light goes out after as many as the request says.
COUNTING = """
import json, sys
from pathlib import Path
from osmf_pipelines.bench.part_process import Steps
request, result = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
steps, made = Steps.beside(result), 0
while len(steps.read()) < 3:
    if made == request["light"]:
        sys.exit("the light went out")
    steps.append({"number": len(steps.read()) + 1})
    made += 1
result.write_text(json.dumps({"num_made": made}))
"""


def _count(folder: Path, light: int) -> tuple[Any, list[int]]:
    """Returns the result and the numbers that were told."""
    (folder / "counting.py").write_text(COUNTING)
    told: list[int] = []
    environment = {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    request = {"light": light}
    result, peak = run_part(
        "counting", request, folder / "part", environment=environment, tell=lambda row: told.append(row["number"])
    )
    assert peak.tree >= peak.python > 0
    return result, told


def test_a_part_tells_its_steps_and_is_not_done_again(tmp_path: Path) -> None:
    assert _count(tmp_path, light=3) == ({"num_made": 3}, [1, 2, 3])
    assert _count(tmp_path, light=0) == ({"num_made": 3}, [1, 2, 3])


def test_an_interrupted_part_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"counting ended with 1; .*counting.log says more:\nthe light went out"):
        _count(tmp_path, light=2)
    assert _count(tmp_path, light=3) == ({"num_made": 1}, [1, 2, 3])
