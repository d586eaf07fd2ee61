"""How a stage is started: on this machine, on the hosts of a hostfile, or by a command template.

Nothing is started here: `following.py` does that. All ways end in the same command, `python -m osmf_models.stages.…` or
torchrun around it; where it runs elsewhere, the variables that it needs stand in front of it. Elsewhere has the output
folder, the training export and the pretrained model at the same paths.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osmf_pipelines.resources.command_template import COMMAND, CommandTemplate, parse_template

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings

JOIN_NAME = "join.sh"
_PLACEHOLDERS = ("output", "data", "num_processes", "num_nodes", "job")
_DEFAULT_PORT = "29500"
# What a user sets for the network between the machines goes along.
_TRAVELLING_PREFIXES = ("GLOO_", "NCCL_")
_HOST_LINE = re.compile(r"(?P<host>\w[\w.:@-]*)\s+slots=(?P<slots>[1-9]\d*)\s*(#.*)?")
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=30")

Command = Sequence[str]


@dataclass(frozen=True)
class Job:
    """A stage to be run.

    Attributes:
        stage: name of the stage.
        arguments: its command line, without --output.
        output: the folder that it writes.
        mlflow_run_id: the run that it logs to.
    """

    stage: str
    arguments: Sequence[str]
    output: Path
    mlflow_run_id: str

    @property
    def name(self) -> str:
        """A name for schedulers, the same for every try of the same run: letters, digits, hyphens."""
        digest = hashlib.sha256(str(self.output).encode()).hexdigest()[:10]
        return f"osmf-{self.stage.replace('_', '-')}-{digest}"

    @property
    def words(self) -> list[str]:
        """What follows `python -m`."""
        return [f"osmf_models.stages.{self.stage}", *self.arguments, "--output", str(self.output)]

    @property
    def data(self) -> str:
        """The training export that it reads, or nothing."""
        after = [second for first, second in zip(self.arguments, self.arguments[1:], strict=False) if first == "--data"]
        return after[0] if after else ""


@dataclass(frozen=True)
class Launch:
    """What is started on this machine for a job.

    Attributes:
        commands: one for each process to start; the job has ended well when all of them have.
        cancels: end the job where it runs; none where ending the commands ends it.
        environment: of the commands.
        is_elsewhere: the job's processes are none of this machine's.
        note: for the log, or nothing.
    """

    commands: Sequence[Command]
    cancels: Sequence[Command]
    environment: dict[str, str]
    is_elsewhere: bool
    note: str = ""


def prepare_launch(settings: Settings, job: Job, *, is_distributed: bool) -> Launch:
    """Returns how `job` is started, and writes what the other machines need into its output.

    Args:
        settings: say where and in how many processes training runs.
        job: the stage.
        is_distributed: it trains; other stages are one process of this machine.

    Raises:
        ValueError: when a program is missing here, or a setting is wrong.
    """
    if not is_distributed:
        return _here(settings, job, launcher(1), 1)
    if settings.hostfile != Path():
        launch = _on_hosts(settings, job, read_hostfile(settings.hostfile))
    elif settings.launch_command:
        launch = _by_template(settings, job)
    elif settings.num_nodes > 1:
        launch = _with_others(settings, job)
    else:
        launch = _here(settings, job, launcher(settings.num_processes), settings.num_processes)
    for command in (*launch.commands, *launch.cancels):
        if shutil.which(command[0]) is None:
            raise ValueError(f"{command[0]}, which is to start or end training, is not on this machine's PATH.")
    return launch


def launcher(num_processes: int) -> list[str]:
    """Returns the start of a command that runs a module, named next, in so many processes of this machine."""
    if num_processes == 1:
        return [sys.executable, "-m"]
    return _torchrun(sys.executable, num_processes)


def parse_launch_command(text: str) -> CommandTemplate:
    """Returns the template that starts training; ValueError when it cannot."""
    return parse_template(text, (COMMAND, *_PLACEHOLDERS), needed=(COMMAND,))


def parse_cancel_command(text: str) -> CommandTemplate:
    """Returns the template that ends training; ValueError when it cannot."""
    return parse_template(text, _PLACEHOLDERS)


def read_hostfile(path: Path) -> dict[str, int]:
    """Returns the training processes of each host, in the file's order; the first host is where they meet.

    Raises:
        ValueError: when there is no such file, or it is no DeepSpeed hostfile.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}: write one with a line `name slots=4` for each host")
    hosts: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _HOST_LINE.fullmatch(line.strip())
        if found is None:
            raise ValueError(f"line {number} of {path} is {line!r}: write `name slots=4`, slots being at least 1")
        if found["host"] in hosts:
            raise ValueError(f"line {number} of {path} names {found['host']} again: give each host one line")
        hosts[found["host"]] = int(found["slots"])
    if not hosts:
        raise ValueError(f"{path} names no host: write a line `name slots=4` for each")
    return hosts


def _torchrun(python: str, num_processes: int, meeting: Sequence[str] = ()) -> list[str]:
    """Returns a command for processes of several machines that meet as said, or of one machine, which meet there."""
    module = "torch.distributed.run" if meeting else "osmf_models.training.local_launch"
    # Without --log-dir each run leaves a folder in /tmp.
    quiet = ["--nproc-per-node", str(num_processes), "--log-dir", os.devnull]
    return [python, "-m", module, *meeting, *quiet, "-m"]


def _here(settings: Settings, job: Job, start: list[str], num_processes: int) -> Launch:
    threads = max(1, num_usable_cores() // num_processes)
    needed = {**_needed(settings, job), "OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"}
    return Launch([[*start, *job.words]], [], {**os.environ, **needed}, is_elsewhere=False)


def num_usable_cores() -> int:
    """Returns how many cores this process may use, which `taskset` or a container can make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with_others(settings: Settings, job: Job) -> Launch:
    """This machine is one of several; the others run the script that is left in the output."""
    command = [*_torchrun(sys.executable, settings.num_processes, _meeting(settings, job)), *job.words]
    needed = _travelling(settings, job, settings.num_nodes)
    script = job.output / JOIN_NAME
    script.touch(mode=0o700)
    script.write_text(f"exec {shlex.join(_with_variables(needed, command))}\n")
    note = (
        f"waiting at {settings.rendezvous} for {settings.num_nodes - 1} more: run `sh {shlex.quote(str(script))}` there"
    )
    return Launch([command], [], {**os.environ, **needed}, is_elsewhere=False, note=note)


def _by_template(settings: Settings, job: Job) -> Launch:
    python = settings.launch_python or sys.executable
    if settings.num_nodes > 1:
        start = _torchrun(python, settings.num_processes, _meeting(settings, job))
    elif settings.num_processes > 1:
        start = _torchrun(python, settings.num_processes)
    else:
        start = [python, "-m"]
    values = {
        "output": str(job.output),
        "data": job.data,
        "num_processes": str(settings.num_processes),
        "num_nodes": str(settings.num_nodes),
        "job": job.name,
    }
    command = _with_variables(_travelling(settings, job, settings.num_nodes), [*start, *job.words])
    commands = [parse_launch_command(settings.launch_command).fill({**values, COMMAND: command})]
    cancel = settings.cancel_command
    cancels = [parse_cancel_command(cancel).fill(values)] if cancel else []
    return Launch(commands, cancels, dict(os.environ), is_elsewhere=True)


def _on_hosts(settings: Settings, job: Job, hosts: dict[str, int]) -> Launch:
    """Each host is reached by ssh and leaves the number of its process beside the output's files."""
    first = next(iter(hosts)).rpartition("@")[2]
    address, _, port = (settings.rendezvous or f"{first}:{_DEFAULT_PORT}").rpartition(":")
    python = settings.launch_python or sys.executable
    needed = _travelling(settings, job, len(hosts))
    commands: list[Command] = []
    cancels: list[Command] = []
    for rank, (host, slots) in enumerate(hosts.items()):
        meeting = ["--nnodes", str(len(hosts)), "--node-rank", str(rank)]
        meeting += ["--master-addr", address, "--master-port", port]
        command = _with_variables(needed, [*_torchrun(python, slots, meeting), *job.words])
        number = job.output / f".node-{rank}.pid"
        number.unlink(missing_ok=True)
        quoted = shlex.quote(str(number))
        commands.append([*_SSH, host, f"echo $$ > {quoted} && exec {shlex.join(command)}"])
        cancels.append([*_SSH, host, f'if test -s {quoted}; then kill -TERM "$(cat {quoted})"; fi'])
    return Launch(commands, cancels, dict(os.environ), is_elsewhere=True)


def _meeting(settings: Settings, job: Job) -> list[str]:
    """How machines that all run the same command find each other."""
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", settings.rendezvous]
    return ["--nnodes", str(settings.num_nodes), *where, "--rdzv-id", job.name]


def _needed(settings: Settings, job: Job) -> dict[str, str]:
    """What a stage is told by variables, wherever it runs."""
    return {
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_RUN_ID": job.mlflow_run_id,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _travelling(settings: Settings, job: Job, num_nodes: int) -> dict[str, str]:
    """What a stage needs on another machine; between several, an empty device lets the libraries choose one."""
    device = "lo" if num_nodes == 1 else ""
    own = {name: value for name, value in os.environ.items() if name.startswith(_TRAVELLING_PREFIXES)}
    if "OMP_NUM_THREADS" in os.environ:
        own["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
    return {**_needed(settings, job), "GLOO_SOCKET_IFNAME": device, "NCCL_SOCKET_IFNAME": device, **own}


def _with_variables(variables: dict[str, str], command: Command) -> list[str]:
    return ["env", *[f"{name}={value}" for name, value in variables.items()], *command]
