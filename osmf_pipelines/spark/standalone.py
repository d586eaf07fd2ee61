"""A small Spark cluster on this machine: one master and some workers as processes of their own, at 127.0.0.1 only.

It is the real thing (Spark's standalone mode), small: for seeing that work runs on workers that know nothing of the
checkout. Whether a cluster can do the work is looked at in `cluster`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

_HOST = "127.0.0.1"
_START_SECONDS = 600.0  # a process that fails ends long before; one that is starved may need it
_STOP_SECONDS = 10.0
_DAEMON_MEMORY = "256m"
# Jobs come from drivers alone, not from whoever finds a port for them.
_NO_SUBMISSIONS = "-Dspark.master.rest.enabled=false"
# What jobs left behind, their libraries unpacked for each executor, is removed within the hour.
_CLEAN_UP = " ".join(
    f"-Dspark.worker.cleanup.{name}={value}"
    for name, value in {"enabled": "true", "interval": "600", "appDataTtl": "3600"}.items()
)
_KEPT_VARIABLES = ("HOME", "JAVA_HOME", "LANG", "TMPDIR", "USER")


@dataclass(frozen=True)
class StandaloneCluster:
    """A cluster that runs.

    Attributes:
        master: its address, the value of OSMF_SPARK_MASTER.
        folder: `logs`, and `work` with a folder for each application and executor.
        daemons: its processes by name.
    """

    master: str
    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]]

    def ended(self) -> str | None:
        """Returns the name of a process that has ended, or None."""
        return next((name for name, daemon in self.daemons.items() if daemon.poll() is not None), None)


@contextmanager
def standalone_cluster(
    folder: Path, *, port: int = 7077, num_workers: int = 2, memory: str = "1g"
) -> Iterator[StandaloneCluster]:
    """Runs a master and workers with one core each while the block runs.

    They get neither this process's import path nor its virtual environment, so nothing of the checkout.

    Args:
        folder: for logs and the workers' files.
        port: of the master, on 127.0.0.1.
        num_workers: how many.
        memory: of each worker, in Spark's notation.

    Raises:
        RuntimeError: when the port is taken, a process ends, or they do not all run within ten minutes.
    """
    if not _is_free(port):
        raise RuntimeError(
            f"Port {port} is taken on {_HOST}: another cluster may be running; choose another with --port."
        )
    shutil.rmtree(folder / "work", ignore_errors=True)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    page_port, master = _free_port(), f"spark://{_HOST}:{port}"
    options = ["--cores", "1", "--memory", memory, "--work-dir", str(folder / "work"), "--webui-port", "0", master]
    with ExitStack() as running:
        cluster = StandaloneCluster(master, folder, {})
        _start(cluster, running, "master", "master.Master", ["--port", str(port), "--webui-port", str(page_port)])
        for number in range(1, num_workers + 1):
            _start(cluster, running, f"worker-{number}", "worker.Worker", options)
        _await_workers(cluster, page_port, num_workers)
        yield cluster


def _start(cluster: StandaloneCluster, running: ExitStack, name: str, kind: str, options: Sequence[str]) -> None:
    import pyspark

    spark_home = Path(pyspark.__file__).parent
    log = running.enter_context((cluster.folder / "logs" / f"{name}.log").open("wb"))
    command = [str(spark_home / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}", "--host", _HOST, *options]
    daemon = subprocess.Popen(
        command,
        cwd=cluster.folder,
        env=_environment(spark_home),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the process that stops them in order
    )
    cluster.daemons[name] = daemon
    running.callback(_stop, daemon)


def _environment(spark_home: Path) -> dict[str, str]:
    """Of daemons, and so of executors: a base Python and Java on the path, no import path."""
    java = shutil.which("java")
    folders = [str(Path(sys.base_prefix) / "bin"), *([str(Path(java).parent)] if java else []), os.defpath]
    return {
        **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        "PATH": os.pathsep.join(folders),
        "SPARK_HOME": str(spark_home),
        "SPARK_LOCAL_IP": _HOST,
        "SPARK_DAEMON_MEMORY": _DAEMON_MEMORY,
        "SPARK_MASTER_OPTS": _NO_SUBMISSIONS,
        "SPARK_WORKER_OPTS": _CLEAN_UP,
    }


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _await_workers(cluster: StandaloneCluster, page_port: int, num_workers: int) -> None:
    """Returns when the master's page counts all workers."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if name := cluster.ended():
            raise RuntimeError(f"The cluster's {name} ended; {cluster.folder / 'logs' / name}.log says why.")
        try:
            with urlopen(f"http://{_HOST}:{page_port}/json/", timeout=5) as page:
                if json.load(page)["aliveworkers"] == num_workers:
                    return
        except (URLError, OSError, ValueError):
            pass  # not up yet
        time.sleep(0.2)
    raise RuntimeError(f"The cluster did not start within {_START_SECONDS:.0f} seconds; see {cluster.folder / 'logs'}.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
