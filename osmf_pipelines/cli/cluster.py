"""`osmf cluster`: a small Spark cluster on this machine, for as long as the command runs."""

from __future__ import annotations

import signal
import time
from typing import Annotated

import typer
from rich.console import Console

from osmf_pipelines.settings import Settings

_console = Console()


def cluster(
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the master, on 127.0.0.1")] = 7077,
    workers: Annotated[int, typer.Option(min=1, help="workers, with one core and an executor each")] = 2,
    memory: Annotated[str, typer.Option(help="of each worker, as Spark writes it; executors take 1g")] = "1g",
) -> None:
    """Runs a Spark master and workers on this machine, and prints the one setting that uses them; Ctrl-C stops them.

    The workers know nothing of this checkout: code and libraries ship with each job (docs/cluster.md).
    """
    from osmf_pipelines.spark.session import java_problem
    from osmf_pipelines.spark.standalone import standalone_cluster

    problem = java_problem()
    if problem:
        raise RuntimeError(problem)
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _interrupt)
    try:
        with standalone_cluster(
            Settings().home.absolute() / "cluster", port=port, num_workers=workers, memory=memory
        ) as running:
            _console.print(f"A Spark master and {workers} workers run; logs are in {running.folder}. To use them:")
            print(f"export OSMF_SPARK_MASTER={running.master}", flush=True)
            _console.print("Ctrl-C stops them.")
            while running.ended() is None:
                time.sleep(0.5)
            raise RuntimeError(f"The cluster's {running.ended()} ended; {running.folder / 'logs'} says why.")
    except KeyboardInterrupt:
        _console.print("stopped")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
