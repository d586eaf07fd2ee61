"""One part of a benchmark in a process of its own: what it made and how much memory it took, kept beside its files.

A part is a module, run with REQUEST.json RESULT.json. What a part measures belongs in that module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from osmf_pipelines.bench.process_memory import MemorySampler, PeakMemory

_POLL_SECONDS = 1.0
_LAST_LINES = 5
Row = dict[str, Any]


class Steps:
    """What the process of a part has finished so far, a row each, for who waits for it and for who goes on after it.

    Args:
        path: of the file; without it nothing is finished.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def beside(cls, result_path: Path) -> Steps:
        """Returns those of the part whose result goes to `result_path`."""
        return cls(result_path.with_name(result_path.name.replace(".result.", ".steps.")))

    def read(self) -> list[Row]:
        """Returns the rows, in order."""
        return list(json.loads(self.path.read_text())) if self.path.is_file() else []

    def append(self, row: Row) -> None:
        """Adds a row; who reads meanwhile sees all of it or nothing."""
        write_json(self.path, [*self.read(), row])


def run_part(
    module: str,
    request: Row,
    folder: Path,
    *,
    name: str = "",
    environment: Mapping[str, str] | None = None,
    tell: Callable[[Row], None] = lambda row: None,
) -> tuple[Any, PeakMemory]:
    """Runs a module in a process of its own, unless its result is in `folder` already.

    Args:
        module: its full name.
        request: for it, always the same in this folder.
        folder: for request, steps, result and log.
        name: of these files; default: the last part of the module's.
        environment: more than this process's.
        tell: given each row of `Steps` once, in order, within about a second; those of an interrupted process too.

    Returns:
        The result and the peak memory of the process and all that it started; of a part that was interrupted, the peak
        since it went on.

    Raises:
        RuntimeError: when it fails; it names the log.
    """
    name = name or module.rpartition(".")[2]
    paths = {kind: folder / f"{name}.{kind}" for kind in ("request.json", "result.json", "done.json", "log")}
    steps, num_told = Steps.beside(paths["result.json"]), 0

    def tell_new() -> None:
        nonlocal num_told
        for row in steps.read()[num_told:]:
            tell(row)
            num_told += 1

    if not paths["done.json"].is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(paths["request.json"], request)
        command = [sys.executable, "-m", module, str(paths["request.json"]), str(paths["result.json"])]
        peak = _run(command, paths["log"], environment or {}, tell_new)
        done = {"result": json.loads(paths["result.json"].read_text()), "peak": asdict(peak)}
        write_json(paths["done.json"], done)
    tell_new()
    done = json.loads(paths["done.json"].read_text())
    return done["result"], PeakMemory(**done["peak"])


def _run(command: list[str], log_path: Path, environment: Mapping[str, str], look: Callable[[], None]) -> PeakMemory:
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        with MemorySampler(process.pid) as sampler:
            try:
                while (code := _wait(process)) is None:
                    look()
            finally:
                process.kill()
    if code:
        last = "\n".join(log_path.read_text().splitlines()[-_LAST_LINES:])
        raise RuntimeError(f"{command[2]} ended with {code}; {log_path} says more:\n{last}")
    return sampler.peak


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a process that ends within the time between two looks, None of one that goes on."""
    try:
        return process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def write_json(path: Path, value: Any) -> None:
    """Writes a file as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False))
    temporary.replace(path)
